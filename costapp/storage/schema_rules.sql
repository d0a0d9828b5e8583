-- What alert rules remember between evaluations. Rules themselves are rows of costapp_alertrule.

-- One row per subject of which something is to be remembered; most subjects are quiet and have none.
create table rule_state (
    worse_since timestamptz,                 -- since when a higher severity holds, which has not lasted yet
    opened_at   timestamptz,                 -- end of the window that opened the alert; part of its key
    told_at     timestamptz,
    rule_id     bigint   not null,
    project_id  int      not null,
    severity    smallint not null,           -- of the open alert: core.alert_rules.Severity
    worse       smallint not null,
    calm        smallint not null,
    lower       smallint not null,
    subject     text collate "C" not null,   -- value of the rule's dimension; '' also stands for the whole
    primary key (project_id, rule_id, subject)
);

-- One row per rule that was evaluated.
create table rule_status (
    evaluated_end timestamptz not null,      -- end of the last window judged, for all subjects
    evaluated_at  timestamptz not null,
    started_at    timestamptz not null,      -- when this was first watched; part of the keys of its alerts
    value       bigint,                      -- of the worst subject, in base units; null = unknown
    requests    bigint not null,
    subjects    int    not null,             -- judged
    beyond      int    not null,             -- more subjects than a rule may have: not judged
    open_alerts int    not null,
    rule_id     bigint not null,
    project_id  int    not null,
    fingerprint text   not null,             -- what is watched; another one starts afresh
    worst       text collate "C" not null,   -- the worst subject
    recent      bigint[] not null,           -- values of the worst subject, newest last
    known       text[] not null,             -- subjects seen lately, kept only where silence is an alert
    primary key (project_id, rule_id)
);

-- That evaluation runs at all: a page and a bell look at this.
create table rule_pulse (
    evaluated_at timestamptz not null,
    took_us      bigint not null,
    rules        int    not null,
    subjects     bigint not null,
    beyond       bigint not null,
    project_id   int    not null primary key
);
