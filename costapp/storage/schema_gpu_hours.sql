-- What GPU hours cost and where the money went. gpu_call is a function of spans, like charge; the rest is a function
-- of gpu_call, samples, rates and mappings, worked out again as a whole for an hour whose inputs changed.

-- Where self-hosted calls of a month went (as charge_kind for charges). '' = not stated.
create table gpu_target (
    id           bigint generated always as identity,
    project_id   int  not null,
    month        date not null,              -- its first day: targets expire with their calls
    digest       uuid not null,              -- of the month and the texts
    instance     text collate "C" not null,  -- pod, host or instance id, told by the server itself
    host         text collate "C" not null,
    model        text collate "C" not null,
    service      text collate "C" not null,
    primary key (project_id, id),
    unique (project_id, digest)
);

-- One row per self-hosted call and hour that it touches. The key is the charge's, and the hour.
create table gpu_call (
    hour_at      timestamptz not null,
    span_id      bigint not null,
    start_us     bigint not null,            -- microseconds since 1970, of the whole call: after the queue ...
    border_us    bigint not null,            -- ... from prefill to decode ...
    end_us       bigint not null,
    target_id    bigint not null,            -- gpu_target
    project_id   int    not null,
    day          date   not null,            -- of the charge
    input_tokens int    not null,            -- uncached
    cached_tokens int   not null,
    output_tokens int   not null,
    trace_id     uuid   not null,
    primary key (project_id, day, trace_id, span_id, hour_at)
) partition by range (day);
create index gpu_call_hour on gpu_call (project_id, hour_at);
create table gpu_call_default partition of gpu_call default;

-- What a call was attributed of one pool's money in one hour. A charge's gpu_nano is the sum of its shares.
create table gpu_share (
    hour_at      timestamptz not null,
    span_id      bigint  not null,
    gpu_nano     bigint  not null,
    project_id   int     not null,
    day          date    not null,
    pool_id      int     not null,           -- costapp_gpupool
    is_estimate  boolean not null,           -- some of its GPUs have no rate: a lower bound
    trace_id     uuid    not null,
    primary key (project_id, day, trace_id, span_id, hour_at, pool_id)
) partition by range (day);
create index gpu_share_hour on gpu_share (project_id, hour_at);
create table gpu_share_default partition of gpu_share default;

-- The hours that have been worked out.
create table gpu_hour_state (
    hour_at      timestamptz not null,
    computed_at  timestamptz not null,
    applied_at   timestamptz,                -- null = its shares are not in all charges yet
    calls        bigint not null,
    lost_calls   bigint not null,            -- for which no engine was found
    unrated_calls bigint not null,           -- whose GPUs have no rate
    took_us      bigint not null,
    project_id   int not null,
    open_gpus    int[]  not null,            -- taken as switched off in this hour, as the next one had not seen them
    primary key (project_id, hour_at)
);
create index gpu_hour_unapplied on gpu_hour_state (project_id, hour_at) where applied_at is null;

-- The bill of the GPUs of one node in one hour, and its five buckets. Sums of time, energy and readings beside it.
create table gpu_hour (
    hour_at         timestamptz not null,
    cost_nano       bigint not null,         -- of the time that has a rate; read it beside unrated_us
    attributed_nano bigint not null,
    busy_nano       bigint not null,         -- the GPU worked, no traced call was active
    held_nano       bigint not null,         -- idle, a model loaded
    free_nano       bigint not null,         -- idle, nothing loaded
    unobserved_nano bigint not null,         -- no telemetry
    gpu_us          bigint not null,         -- time the GPUs were there
    attributed_us   bigint not null,
    busy_us         bigint not null,
    held_us         bigint not null,
    free_us         bigint not null,
    unobserved_us   bigint not null,
    unrated_us      bigint not null,         -- time without a rate
    util_bp_s      bigint not null,         -- utilisation x seconds; divide by util_s
    util_s         bigint not null,
    memory_mib_s   bigint not null,        -- memory used x seconds; divide by memory_s
    memory_total_mib_s bigint not null,
    memory_s       bigint not null,
    energy_mj       bigint not null,
    energy_us       bigint not null,         -- time whose energy is known
    project_id      int not null,
    pool_id         int not null,            -- 0 = no pool
    gpus            int not null,            -- devices, MIG slices each
    node            text collate "C" not null,
    gpu_model       text collate "C" not null,
    primary key (project_id, hour_at, pool_id, node, gpu_model),
    constraint gpu_hour_is_sum_of_buckets check (
        cost_nano = attributed_nano + busy_nano + held_nano + free_nano + unobserved_nano
        and gpu_us = attributed_us + busy_us + held_us + free_us + unobserved_us
    )
);

-- What one served model did in an hour, and what its GPUs cost: unit costs with idle time (allocation) and without.
create table gpu_model_hour (
    hour_at         timestamptz not null,
    cost_nano       bigint not null,         -- of the GPUs it ran on; a shared server's unused part is divided
    attributed_nano bigint not null,
    prefill_nano    bigint not null,         -- the part of attributed that reading prompts caused
    busy_nano       bigint not null,
    held_nano       bigint not null,
    free_nano       bigint not null,
    unobserved_nano bigint not null,
    requests        bigint not null,         -- that began in this hour
    input_tokens    bigint not null,         -- of those, uncached
    cached_tokens   bigint not null,
    output_tokens   bigint not null,
    gpu_us          bigint not null,
    active_us       bigint not null,         -- GPU time in which a call was active
    energy_mj       bigint not null,
    project_id      int not null,
    pool_id         int not null,
    model           text collate "C" not null,  -- '' = GPUs on which no call ran
    primary key (project_id, hour_at, pool_id, model)
);

-- Whose calls used a pool.
create table gpu_use_hour (
    hour_at         timestamptz not null,
    gpu_nano        bigint not null,
    requests        bigint not null,
    project_id      int not null,
    pool_id         int not null,
    feature         text collate "C" not null,
    team            text collate "C" not null,
    primary key (project_id, hour_at, pool_id, feature, team)
);

-- With which rates, pools and mappings hours were worked out; others mark them again.
create table gpu_setup (
    project_id   int not null primary key,
    rates        uuid not null,
    mappings     uuid not null
);

-- GPU money per session and user, so that it can be told apart there too.
alter table session_day add column gpu_nano bigint not null default 0;
alter table user_day add column gpu_nano bigint not null default 0;
drop index user_day_cell;
create index user_day_cell on user_day (project_id, bucket_at, feature)
    include (user_id, requests, errors, unpriced, sessions, tokens, cost_nano, gpu_nano);
