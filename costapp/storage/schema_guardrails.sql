-- Guardrails: who has just called, and whose limit is crossed.
-- Run once by a Django migration. project_id leads every key.

-- Outbox: sessions, users and traces of projects with guardrails whose calls of the last hours have changed.
create table guard_mark (
    id         bigint generated always as identity,
    project_id int      not null,
    per        text     not null,            -- core.guardrails.Per
    subject    text collate "C" not null     -- the session, the user, or the trace id in hex
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
create index guard_mark_claim on guard_mark (project_id, id);

-- The last incident of a guardrail and subject; open ones are what apps that ask are answered from.
create table guard_state (
    opened_at    timestamptz not null,       -- start of the first call that crossed the limit
    crossed_to   timestamptz not null,       -- start of the last one known
    until        timestamptz not null,       -- the answer holds until then
    value        bigint  not null,           -- largest sum within the window: nano-dollars, calls or tokens
    guardrail_id bigint  not null,
    project_id   int     not null,
    is_open      boolean not null,
    subject      text collate "C" not null,
    alert_key    text    not null,
    primary key (project_id, guardrail_id, subject)
);
