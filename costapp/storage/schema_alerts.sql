-- Alerts, what happened to them, and the messages about them. An alert's state, its timeline and its outbox rows
-- change in one transaction.

-- One firing. The same firing has the same key, for ever.
create table alert (
    id            bigint generated always as identity,
    project_id    int    not null,
    key           text   not null collate "C",
    source        text   not null,           -- core.alerts.Source
    source_id     bigint not null,           -- of the budget, rule ...; 0 = none
    subject       jsonb  not null,           -- {"feature": "support-bot"}; {} = the whole project
    level         text   not null,           -- core.alerts.Level
    state         text   not null,           -- open | resolved
    title         text   not null,
    detail        jsonb  not null,           -- {"facts": [[label, text]], "driver": text}
    path          text   not null,           -- page that shows the same number
    group_key     text   not null collate "C",
    parent_key    text   not null collate "C",  -- '' = none
    channel_ids   bigint[] not null,         -- costapp_channel
    opened_at     timestamptz not null,
    changed_at    timestamptz not null,
    period_start  timestamptz,
    period_end    timestamptz,
    complete_until timestamptz,
    resolved_at   timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    snoozed_until timestamptz,
    last_notified_at timestamptz,            -- opened, escalated or reminded
    primary key (project_id, id),
    unique (project_id, key)
);
create index alert_open on alert (project_id, source, source_id) where state = 'open';
create index alert_recent on alert (project_id, opened_at desc);
create index alert_parent on alert (project_id, parent_key) where parent_key <> '';

-- The timeline of an alert. Append-only.
create table alert_event (
    id         bigint generated always as identity,
    project_id int    not null,
    alert_id   bigint not null,
    at         timestamptz not null,
    kind       text   not null,              -- core.alerts.EventKind
    level      text   not null,
    title      text   not null,
    detail     jsonb  not null,
    actor      text   not null,              -- user name; '' = Costapp
    primary key (project_id, id)
);
create index alert_event_alert on alert_event (project_id, alert_id, id);

-- The outbox, which is the delivery log at the same time: one row per event and channel. Rows that are sent
-- together share a message.
create table notification (
    id         bigint generated always as identity,
    project_id int    not null,
    channel_id bigint not null,              -- costapp_channel
    dedupe_key text   not null collate "C",
    group_key  text   not null collate "C",
    alert_id   bigint,                       -- null: a digest or a test
    event_id   bigint,
    body       jsonb,                        -- of a digest
    state      text   not null,              -- pending | sent | failed | suppressed
    reason     text   not null default '',   -- why suppressed or failed, in words
    held_by    text   not null default '',   -- suppressed by: silence | parent | snooze | level; '' = nothing
    attempts   int    not null default 0,
    created_at timestamptz not null,
    next_at    timestamptz,                  -- not before; of a suppressed row: when it is looked at again
    leased_until timestamptz,                -- a worker is sending it
    message_id bigint,                       -- the first row of the message it is part of; kept over retries
    sent_at    timestamptz,
    last_error text   not null default '',
    answer     text   not null default '',   -- status class of the receiver's answer
    primary key (project_id, id),
    unique (project_id, channel_id, dedupe_key)
);
create index notification_due on notification (project_id, next_at) where state = 'pending';
create index notification_held on notification (project_id, next_at) where state = 'suppressed' and next_at is not null;
create index notification_alert on notification (project_id, alert_id);
create index notification_sent on notification (project_id, channel_id, sent_at) where state = 'sent';
create index notification_recent on notification (project_id, created_at desc);

-- When each evaluation last ran: what stops running must not look like silence.
create table heartbeat (
    name       text not null primary key,
    at         timestamptz not null,
    interval_s int  not null
);
