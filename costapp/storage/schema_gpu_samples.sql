-- What exporters and inference servers said about GPUs. Facts, like spans: inserted once, gaps filled, never
-- recomputed. Readers take the views gpu_sample_full and engine_sample_full.
-- A sample stands for its slot (core.gpu_samples.SLOT_SECONDS) and until the device's next sample, for at most
-- MAX_GAP_SECONDS. Where no sample stands, nothing is known: a gap is never idle.

-- The devices ever seen, and when; numbers that samples refer to. A MIG slice is a device of its own.
create table gpu_device (
    device_ref   int generated always as identity,
    project_id   int not null,
    first_at     timestamptz not null,
    last_at      timestamptz not null,       -- of its newest sample, to about five minutes
    memory_total_bytes bigint,               -- null = never stated
    is_split     boolean not null default false,  -- into MIG slices, which are paid for and do the work; the split
                                             -- GPU itself only has power and energy: never bill it beside its slices
    device_id    text collate "C" not null,  -- UUID; UUID/GPU_I_ID of a MIG slice; host/id where ids are local
    parent_id    text collate "C" not null,  -- the physical GPU of a MIG slice; '' = it is one itself
    node         text collate "C" not null,  -- where it was seen last
    gpu_model    text collate "C" not null,
    mig_profile  text collate "C" not null,  -- 3g.40gb; '' = whole GPU
    source       text collate "C" not null,  -- the dialect that spoke last (core.gpu_samples.Source)
    primary key (project_id, device_ref),
    unique (project_id, device_id)
);

-- Where and for whom a device worked: texts that many samples of a month share (as charge_kind for charges).
create table gpu_place (
    place_ref    int generated always as identity,
    project_id   int  not null,
    month        date not null,              -- its first day: places expire with their samples
    digest       uuid not null,              -- of the month and the texts
    node         text collate "C" not null,
    target       text collate "C" not null,  -- who told: the scraped host:port, or the sender's instance
    namespace    text collate "C" not null,  -- of the first holder, '' = not known
    pod          text collate "C" not null,
    container    text collate "C" not null,
    served_model text collate "C" not null,
    holders      text[] not null,            -- namespace/pod/container of each pod that shares the device, sorted
    primary key (project_id, place_ref),
    unique (project_id, digest)
);

-- One row per device and slot. null = not stated or rejected, never 0 by accident.
create table gpu_sample (
    sampled_at   timestamptz not null,       -- start of the slot
    project_id   int      not null,
    day          date     not null,          -- UTC date of sampled_at
    device_ref   int      not null,          -- gpu_device
    place_ref    int      not null,          -- gpu_place
    util_rank    smallint not null,          -- how good the figure behind util_bp is, 0 = best; a better one replaces it
    util_bp      smallint,                   -- busy share of time, in basis points 0..10000
    held         boolean,                    -- a process or pod holds the device; null = not known
    memory_used_kib int,
    power_mw     int,
    energy_mj    bigint,                     -- counter as seen, since the driver was loaded; may start again
    -- time before device: samples arrive and are read by time, so the index grows at its end and an hour is one range
    primary key (project_id, day, sampled_at, device_ref)
) partition by range (day);
create table gpu_sample_default partition of gpu_sample default;

create view gpu_sample_full as
select
    sample.project_id, sample.day, sample.sampled_at, sample.device_ref, device.device_id, device.parent_id, device.is_split,
    place.node,
    sample.util_bp, sample.util_rank, sample.held, sample.memory_used_kib::bigint * 1024 as memory_used_bytes,
    device.memory_total_bytes, sample.power_mw, sample.energy_mj, device.gpu_model, device.mig_profile,
    place.namespace, place.pod, place.container, place.served_model, place.holders, place.target, device.source
from gpu_sample sample
join gpu_device device on device.project_id = sample.project_id and device.device_ref = sample.device_ref
left join gpu_place place on place.project_id = sample.project_id and place.place_ref = sample.place_ref;

-- Moments from which on nothing is known, because somebody said so. A missing sample says the same, only later.
create table gpu_gap (
    at           timestamptz not null,       -- start of the slot
    project_id   int      not null,
    day          date     not null,          -- UTC date of at
    kind         smallint not null,          -- core.gpu_samples.GapKind
    target       text collate "C" not null,  -- as in gpu_place; '' = not known
    device_id    text collate "C" not null,  -- '' = all devices of the target
    primary key (project_id, day, target, device_id, at)
) partition by range (day);
create table gpu_gap_default partition of gpu_gap default;

-- Inference servers seen in metrics: one row per served model and replica.
create table engine_seen (
    engine_ref   int generated always as identity,
    project_id   int not null,
    first_at     timestamptz not null,
    last_at      timestamptz not null,       -- to about five minutes
    kind         text collate "C" not null,  -- vllm | sglang | tgi | triton
    target       text collate "C" not null,  -- the scraped host:port, or the sender's instance
    served_model text collate "C" not null,
    replica      text collate "C" not null,  -- the server's own number of the engine; '' = it has only one
    node         text collate "C" not null,  -- '' = not known
    namespace    text collate "C" not null,
    pod          text collate "C" not null,
    primary key (project_id, engine_ref),
    unique (project_id, kind, target, served_model, replica)
);

-- One row per engine and slot. Counters as seen, since the server started; readers see restarts (a smaller value).
create table engine_sample (
    sampled_at   timestamptz not null,
    project_id   int  not null,
    day          date not null,
    engine_ref   int  not null,
    running      int,                        -- requests being worked on
    waiting      int,
    kv_bp        smallint,                   -- share of the KV cache in use, in basis points
    prompt_tokens     bigint,
    generation_tokens bigint,
    cached_tokens     bigint,                -- prompt tokens found in the prefix cache
    requests     bigint,                     -- finished
    queue_us     bigint,                     -- sums over finished requests
    prefill_us   bigint,
    decode_us    bigint,
    preemptions  bigint,
    primary key (project_id, day, sampled_at, engine_ref)
) partition by range (day);
create table engine_sample_default partition of engine_sample default;

create view engine_sample_full as
select
    sample.*, engine.kind, engine.target, engine.served_model, engine.replica, engine.node, engine.namespace, engine.pod
from engine_sample sample
join engine_seen engine on engine.project_id = sample.project_id and engine.engine_ref = sample.engine_ref;

-- Outbox: GPU hours whose money must be worked out again. Append and delete only.
create table dirty_gpu_hour (
    id         bigint generated always as identity,
    marked_at  timestamptz not null default clock_timestamp(),
    hour_at    timestamptz not null,         -- UTC
    project_id int  not null,
    node       text collate "C" not null     -- '' = not known: any node of the project
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
create index dirty_gpu_hour_claim on dirty_gpu_hour (project_id, hour_at, id);
