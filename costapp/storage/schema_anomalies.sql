-- Anomalies: anomalies of odd cost with their cause, and how far detection has come. All of it but `verdict*`, `told_at`
-- and `found_at` is worked out again from the sums on every run, so late data corrects it.

-- One story: an odd series and those that show the same money (a feature, its model, its user) as one row.
create table anomaly (
    id            bigint generated always as identity,
    project_id    int    not null,
    dimension     text   not null,           -- of the series it is told by: reports.dimensions; '' = the whole project
    value         text collate "C" not null,
    kind          text   not null,           -- anomaly.detect_signals.Kind
    state         text   not null,           -- open | over | withdrawn (later data explains it)
    start_at      timestamptz not null,
    odd_at        timestamptz not null,      -- first cell that raised it
    peak_at       timestamptz not null,
    end_at        timestamptz not null,      -- end of the last odd cell
    score_milli   bigint not null,           -- of the oddest cell, in thousandths
    above_nano    bigint not null,           -- cost minus what was expected; negative in a silence
    above_band_nano bigint not null,         -- cost beyond what is usual on most days
    actual_nano   bigint not null,
    new_normal    boolean not null,          -- has lasted so long that it is what is expected from now on
    title         text   not null,           -- one sentence
    detail        jsonb  not null,           -- drivers, parts, members, the course of the series: services.anomalies
    suppressed    text   not null,           -- why nobody was told: '' | dismissed | budget | old
    found_at      timestamptz not null,
    changed_at    timestamptz not null,
    told_at       timestamptz,               -- an alert was opened
    verdict       text   not null default '', -- confirmed | dismissed
    verdict_reason text  not null default '',
    verdict_by    text   not null default '',
    verdict_at    timestamptz,
    primary key (project_id, id)
);
create index anomaly_recent on anomaly (project_id, start_at desc);

-- How far detection has come, per project.
create table anomaly_pulse (
    judged_until timestamptz not null,       -- end of the last cell judged
    first_at     timestamptz,                -- first cell of the history it was judged against
    ran_at       timestamptz not null,
    took_us      bigint not null,
    series       int    not null,            -- judged
    beyond       int    not null,            -- more series than the limit: not judged
    odd          int    not null,            -- series with an anomaly in the days looked at
    project_id   int    not null primary key
);
