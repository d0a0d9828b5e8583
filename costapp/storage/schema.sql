-- The data plane: facts (span), what they cost (charge), and sums of charges (rollup_*).
-- Run once by a Django migration. project_id leads every key; day is in the keys because the
-- tables are partitioned by it. Facts are inserted once; everything else can be rebuilt from them.

-- One row per received span. The primary key is the de-duplication.
-- Fixed-width columns first (no padding), no nullable column (no null bitmap): 0 means "none".
create table span (
    start_ns      bigint not null,           -- Unix time, lossless
    span_id       bigint not null,
    parent_id     bigint not null,           -- 0 = root
    response_hash bigint not null,           -- 64-bit hash of the provider's response id, 0 = none
    project_id    int    not null,
    day           date   not null,           -- UTC date of start_ns
    trace_id      uuid   not null,
    facts         bytea  not null,           -- MessagePack array of core.values.SpanFacts
    primary key (project_id, day, trace_id, span_id)
) partition by range (day);
-- Twins of one call in different traces are found by the response id they share.
create index span_response on span (project_id, response_hash) where response_hash <> 0;
create table span_default partition of span default;

-- Opted-in prompt and completion text (off by default), with its own retention.
create table span_content (
    project_id int   not null,
    day        date  not null,
    trace_id   uuid  not null,
    span_id    bigint not null,
    content    jsonb not null,
    primary key (project_id, day, trace_id, span_id)
) partition by range (day);
create table span_content_default partition of span_content default;

-- Outbox: traces whose charges must be recomputed. Append and delete only.
create table dirty_trace (
    id         bigint generated always as identity,
    marked_at  timestamptz not null default clock_timestamp(),
    project_id int      not null,
    day        date     not null,
    shard      smallint not null,            -- last byte of the trace id, modulo the shard count
    trace_id   uuid     not null,
    reason     text                          -- null = new spans; else what charge_revision shall say
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
create index dirty_trace_claim on dirty_trace (shard, id);

-- Outbox: cells whose sums must be recomputed. Charges mark 5-minute cells (grain 0); recomputing
-- those marks the coarser, costlier ones (storage.rollups.Grain).
create table dirty_cell (
    id         bigint generated always as identity,
    marked_at  timestamptz not null default clock_timestamp(),
    bucket_at  timestamptz not null,
    project_id int         not null,
    grain      smallint    not null default 0
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
create index dirty_cell_claim on dirty_cell (project_id, grain, bucket_at);

-- Outbox: sessions and users whose day must be recomputed. Only what a changed charge names, so that
-- a busy day is not read again as a whole.
create table dirty_actor (
    id         bigint generated always as identity,
    marked_at  timestamptz not null default clock_timestamp(),
    quarter_at timestamptz not null,         -- start of the quarter hour: every local midnight is one
    project_id int  not null,
    session_id text collate "C" not null,
    user_id    text collate "C" not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
create index dirty_actor_claim on dirty_actor (project_id, id);

-- How long the last recomputation of a grain took: the next one waits a multiple of it.
create table rollup_pace (
    project_id  int not null,
    grain       smallint not null,
    computed_at timestamptz not null,
    took_us     bigint not null,
    primary key (project_id, grain)
);
-- The time zone the day tables were built with; another one in the project rebuilds them.
create table rollup_zone (
    project_id int  not null primary key,
    time_zone  text not null
);

-- Response ids seen in too many traces to identify one call (mocks, constants): never join by them.
create table shared_response (
    project_id    int    not null,
    day           date   not null,
    response_hash bigint not null,
    found_at      timestamptz not null default clock_timestamp(),
    primary key (project_id, day, response_hash)
);
-- Traces that could not be resolved, or only span by span. Shown on Data health, never retried blindly.
create table odd_trace (
    project_id int  not null,
    day        date not null,
    trace_id   uuid not null,
    kind       text not null,                -- failed | oversize
    at         timestamptz not null default clock_timestamp(),
    detail     text not null,
    primary key (project_id, day, trace_id)
);
-- Up to which day the rows of a table may have been dropped. Charges of such days are closed:
-- calls are still added, booked ones no longer change.
create table retention_horizon (
    table_name text not null primary key,
    day        date not null
);

-- What many charges of a month have in common (storage.kinds). '' = not attributed / not known.
create table charge_kind (
    id             bigint generated always as identity,
    project_id     int  not null,
    month          date not null,            -- its first day: kinds expire with their charges
    digest         uuid not null,            -- of the month and the texts
    team           text collate "C" not null,
    environment    text collate "C" not null,
    service        text collate "C" not null,
    span_name      text collate "C" not null,
    operation      text collate "C" not null,
    provider       text collate "C" not null,
    model          text collate "C" not null,
    variant        text collate "C" not null,
    prompt_version text collate "C" not null,
    model_requested text collate "C" not null,  -- '' = same as model
    service_tier   text collate "C" not null,
    region         text collate "C" not null,
    unit           text collate "C" not null,
    finish_reason  text collate "C" not null,
    usage_rule     text collate "C" not null,
    reported_source text collate "C" not null,
    primary key (project_id, id),
    unique (project_id, digest)
);

-- One row per model call; readers take charge_full. '' = not attributed / not known. cost_nano null = unpriced.
create table charge (
    start_at       timestamptz not null,
    span_id        bigint not null,
    duration_us    bigint,
    cost_nano      bigint,                   -- null = unpriced, never 0 by accident
    input_nano     bigint not null,
    output_nano    bigint not null,
    kind_id        bigint not null,          -- charge_kind
    project_id     int    not null,
    day            date   not null,          -- UTC date of start_at
    input_tokens   int    not null,          -- uncached
    output_tokens  int    not null,          -- visible
    rate_id        int,                      -- costapp_rateset; null = unpriced
    flags          int    not null,          -- core.values.ChargeFlag
    cost_status    smallint not null,        -- core.values.CostStatus
    usage_state    smallint not null,        -- core.values.UsageState
    attribution_source smallint not null,    -- core.values.AttributionSource, of the feature
    attempts       smallint not null,
    trace_id       uuid   not null,
    -- nullable: absent in most calls, so they cost a bit each
    ttft_us        int,
    cache_read_nano  bigint,
    cache_write_nano bigint,
    other_nano     bigint,
    gpu_nano       bigint,
    reported_nano  bigint,
    possible_nano  bigint,                   -- upper bound of a call that may have been billed
    avoided_nano   bigint,                   -- saved by the application's own cache
    cache_read_tokens     int,
    cache_write_5m_tokens int,
    cache_write_1h_tokens int,
    reasoning_tokens      int,
    audio_in_tokens  int,
    audio_out_tokens int,
    image_in_tokens  int,
    image_out_tokens int,
    units          int,
    prompt_chars   int,
    output_chars   int,
    prompt_hash    bigint,
    members        smallint,                 -- spans that described this call; null = 1
    signal         smallint,                 -- null = span
    feature        text collate "C" not null,
    user_id        text collate "C" not null,
    session_id     text collate "C" not null,
    error          text collate "C",         -- null = succeeded
    primary key (project_id, day, trace_id, span_id),
    constraint charge_is_sum_of_components check (
        cost_nano is null
        or cost_nano = input_nano + output_nano + coalesce(cache_read_nano, 0)
                     + coalesce(cache_write_nano, 0) + coalesce(other_nano, 0) + coalesce(gpu_nano, 0)
        or cost_status = 3                   -- the provider's own figure counts, by project policy
    ),
    constraint charge_unpriced_has_no_cost check ((cost_status = 0) = (cost_nano is null))
) partition by range (day);
-- Rollup cells, as an expression of few values: a tenth of the size of an index on start_at itself.
create index charge_cell on charge (project_id, date_bin('5 minutes', start_at, 'epoch'));
create index charge_session on charge (project_id, session_id) where session_id <> '';
create index charge_user on charge (project_id, user_id) where user_id <> '';
create table charge_default partition of charge default;
-- A charge with the texts of its kind. A left join, so that queries without those texts do not pay for it.
create view charge_full as
select
    charge.start_at, charge.span_id, charge.duration_us, charge.cost_nano, charge.input_nano,
    charge.output_nano, charge.project_id, charge.day, charge.input_tokens, charge.output_tokens,
    charge.rate_id, charge.flags, charge.cost_status, charge.usage_state, charge.attribution_source,
    charge.attempts, charge.trace_id, charge.ttft_us, charge.cache_read_nano, charge.cache_write_nano,
    charge.other_nano, charge.gpu_nano, charge.reported_nano, charge.possible_nano, charge.avoided_nano,
    charge.cache_read_tokens, charge.cache_write_5m_tokens, charge.cache_write_1h_tokens,
    charge.reasoning_tokens, charge.audio_in_tokens, charge.audio_out_tokens, charge.image_in_tokens,
    charge.image_out_tokens, charge.units, charge.prompt_chars, charge.output_chars, charge.prompt_hash,
    charge.members, charge.signal, charge.feature, charge.user_id, charge.session_id, charge.error,
    kind.team, kind.environment, kind.service, kind.span_name, kind.operation, kind.provider, kind.model,
    kind.variant, kind.prompt_version, kind.model_requested, kind.service_tier, kind.region, kind.unit,
    kind.finish_reason, kind.usage_rule, kind.reported_source
from charge left join charge_kind kind on kind.project_id = charge.project_id and kind.id = charge.kind_id;

-- What changed on a booked charge, when and why. Written only when money or attribution moved.
create table charge_revision (
    id          bigint generated always as identity primary key,
    at          timestamptz not null default clock_timestamp(),
    project_id  int    not null,
    day         date   not null,
    trace_id    uuid   not null,
    span_id     bigint not null,
    reason      text   not null,
    old_cost_nano bigint,
    new_cost_nano bigint,
    old_feature text,
    new_feature text
);
create index charge_revision_key on charge_revision (project_id, day, trace_id);

-- Exact sums of charges in a cell: time x dimensions. The same shape at three grains;
-- rollup_day cells are days of the project's own time zone.
create table rollup_5m (
    bucket_at      timestamptz not null,
    requests       bigint not null,
    errors         bigint not null,
    retries        bigint not null,
    unpriced       bigint not null,          -- requests without a cost
    estimated      bigint not null,
    usage_unknown  bigint not null,
    input_tokens   bigint not null,          -- uncached, all modalities
    cache_read_tokens  bigint not null,
    cache_write_tokens bigint not null,
    output_tokens  bigint not null,          -- visible, all modalities
    reasoning_tokens bigint not null,
    priced_tokens  bigint not null,          -- tokens of calls that carry a price: token coverage
    duration_us    bigint not null,
    input_nano     bigint not null,
    cache_read_nano  bigint not null,
    cache_write_nano bigint not null,
    output_nano    bigint not null,
    other_nano     bigint not null,
    gpu_nano       bigint not null,
    cost_nano      bigint not null,          -- of priced calls; read it beside `unpriced`
    possible_nano  bigint not null,
    reported_nano  bigint not null,
    avoided_nano   bigint not null,
    project_id     int    not null,
    feature        text collate "C" not null,
    team           text collate "C" not null,
    environment    text collate "C" not null,
    service        text collate "C" not null,
    span_name      text collate "C" not null,
    provider       text collate "C" not null,
    model          text collate "C" not null,
    variant        text collate "C" not null,
    prompt_version text collate "C" not null
);
create index rollup_5m_cell on rollup_5m (project_id, bucket_at);
create table rollup_hour (like rollup_5m);
create index rollup_hour_cell on rollup_hour (project_id, bucket_at);
create table rollup_day (like rollup_5m);
create index rollup_day_cell on rollup_day (project_id, bucket_at);

-- Mergeable latency histogram: counts per log-spaced slot (core.latency).
create table latency_hour (
    bucket_at  timestamptz not null,
    requests   bigint   not null,
    project_id int      not null,
    slot       smallint not null,
    feature    text collate "C" not null,
    environment text collate "C" not null,
    service    text collate "C" not null,
    span_name  text collate "C" not null,
    model      text collate "C" not null
);
create index latency_hour_cell on latency_hour (project_id, bucket_at);
create table latency_day (like latency_hour);
create index latency_day_cell on latency_day (project_id, bucket_at, feature);
-- The same histograms by one dimension at a time: what pages without a filter read, a tenth of the rows.
create table latency_hour_by (
    bucket_at  timestamptz not null,
    requests   bigint   not null,
    project_id int      not null,
    slot       smallint not null,
    dimension  text collate "C" not null,    -- a dimension of latency_hour
    value      text collate "C" not null
);
create index latency_hour_by_cell on latency_hour_by (project_id, dimension, bucket_at);
create table latency_day_by (like latency_hour_by);
create index latency_day_by_cell on latency_day_by (project_id, dimension, bucket_at);

-- Per user and session and day of the project's time zone. user_day has a row for user '' (calls
-- without one), so it sums to the day; session_day holds only calls that name a session.
create table session_day (
    bucket_at  timestamptz not null,
    first_at   timestamptz not null,
    last_at    timestamptz not null,
    requests   bigint not null,
    errors     bigint not null,
    unpriced   bigint not null,
    tokens     bigint not null,
    cost_nano  bigint not null,
    project_id int    not null,
    session_id text collate "C" not null,
    feature    text collate "C" not null,
    user_id    text collate "C" not null
);
-- With what decides which sessions and users are the dearest: found in the index alone.
create index session_day_cell on session_day (project_id, bucket_at, feature) include (session_id, cost_nano);
create index session_day_session on session_day (project_id, session_id);
create table user_day (
    bucket_at  timestamptz not null,
    requests   bigint not null,
    errors     bigint not null,
    unpriced   bigint not null,
    sessions   bigint not null,              -- distinct, without ''
    tokens     bigint not null,
    cost_nano  bigint not null,
    project_id int    not null,
    user_id    text collate "C" not null,
    feature    text collate "C" not null
);
create index user_day_cell on user_day (project_id, bucket_at, feature)
    include (user_id, requests, errors, unpriced, sessions, tokens, cost_nano);
create index user_day_user on user_day (project_id, user_id);
-- Sessions that made a call on that day, per feature ('' included): additive over days.
create table activity_day (
    bucket_at  timestamptz not null,
    sessions   bigint not null,
    users      bigint not null,
    project_id int    not null,
    feature    text collate "C" not null
);
create index activity_day_cell on activity_day (project_id, bucket_at);

-- What the collectors did: one row per commit, project, key and signal. Append-only; compacted hourly.
create table ingest_log (
    at         timestamptz not null default clock_timestamp(),
    requests   bigint not null,
    received   bigint not null,
    stored     bigint not null,
    duplicates bigint not null,
    rejected   bigint not null,
    bytes      bigint not null,
    project_id int    not null,
    key_id     int,
    signal     text   not null,              -- traces | metrics | logs
    transport  text   not null,              -- http | grpc
    reasons    jsonb                          -- {reason: count} of rejected, cut and odd values
);
create index ingest_log_project on ingest_log (project_id, at);

-- Token counters from metrics: for coverage only, never added to spans.
create table metric_point (
    time_ns    bigint not null,
    start_ns   bigint not null,
    stream     bigint not null,              -- 64-bit hash of resource, scope, metric and attributes
    tokens     bigint not null,
    project_id int    not null,
    day        date   not null,
    is_delta   boolean not null,
    service    text collate "C" not null,
    metric     text collate "C" not null,
    token_type text collate "C" not null,
    model      text collate "C" not null,
    primary key (project_id, day, stream, start_ns, time_ns)
) partition by range (day);
create table metric_point_default partition of metric_point default;

-- Failed sign-ins: the wait before the next attempt grows with their number.
create table sign_in_failure (
    last_at  timestamptz not null,
    failures int  not null,
    account  text not null,
    address  text not null,
    primary key (account, address)
);
