-- What budgets were found to be at: one row per budget, period and subject, written with the alerts it led to.

-- Each period of a budget that was ever evaluated.
create table budget_period (
    start_at     timestamptz not null,
    end_at       timestamptz not null,
    evaluated_at timestamptz not null,
    forecast_at  timestamptz,                -- when forecasts were last made; null = never
    closed_at    timestamptz,                -- its end was seen, with all data in: what crosses now is late
    budget_id    bigint not null,            -- costapp_budget
    project_id   int    not null,
    revision     int    not null,            -- of the budget; another one begins anew
    subjects     int    not null,            -- values with spend, of a template
    period_key   date   not null,            -- its first day; of a rolling period always 1970-01-01
    primary key (project_id, budget_id, period_key)
);

create table budget_reading (
    evaluated_at timestamptz not null,       -- when something of it last changed
    amount_nano  bigint not null,
    carried_nano bigint not null,            -- from the period before; may be negative
    spent_nano   bigint not null,            -- of priced calls; read it beside `unpriced`
    requests     bigint not null,
    unpriced     bigint not null,
    forecast_nano bigint,                    -- null = cannot be said
    low_nano     bigint,
    high_nano    bigint,
    runs_out_at  timestamptz,                -- null = not in this period, or over already
    budget_id    bigint not null,
    project_id   int    not null,
    period_key   date   not null,
    subject      text   not null collate "C",  -- value of a template's dimension; '' = the budget as a whole
    forecast_why text   not null,
    states       jsonb  not null,            -- {"actual-80": {"state": "open", "key": alert key, "times": 1}}
    primary key (project_id, budget_id, period_key, subject)
);
