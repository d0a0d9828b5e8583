"""Budgets as the evaluation reads them, and what it found. Readings are written in the transaction of their alerts."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

import orjson
import psycopg
from psycopg.types.json import Jsonb

from costapp.storage import locks

Connection = psycopg.Connection[Any]

#: First key of the advisory lock that makes one budget's evaluation serial; the second is the budget.
_BUDGET_LOCK = 7_316_405


class BudgetRow(NamedTuple):
    """A budget as it is configured, with what of its project it needs."""

    id: int
    project_id: int
    slug: str
    time_zone: str
    name: str
    dimension: str
    values: list[str]
    filters: dict[str, list[str]]
    amount_nano: int
    period: str
    rolling_days: int | None
    starts_on: date | None
    ends_on: date | None
    carry_over: str
    thresholds: list[list[Any]]
    owner: str
    note: str
    revision: int
    created_at: datetime
    channel_ids: list[int]
    own_values: list[str]  #: of a template: values that have a budget of their own for the same period

    @property
    def is_template(self) -> bool:
        return bool(self.dimension) and not self.values


class PeriodRow(NamedTuple):
    """An evaluated period of a budget."""

    project_id: int
    budget_id: int
    period_key: date
    revision: int
    start_at: datetime
    end_at: datetime
    evaluated_at: datetime
    forecast_at: datetime | None
    closed_at: datetime | None
    subjects: int


class Reading(NamedTuple):
    """One subject of a budget in one period."""

    project_id: int
    budget_id: int
    period_key: date
    subject: str
    evaluated_at: datetime
    amount_nano: int
    carried_nano: int
    spent_nano: int
    requests: int
    unpriced: int
    forecast_nano: int | None
    low_nano: int | None
    high_nano: int | None
    runs_out_at: datetime | None
    forecast_why: str
    states: Mapping[str, Any]

    @property
    def limit_nano(self) -> int:
        return max(0, self.amount_nano + self.carried_nano)


_COLUMNS = ", ".join(f"reading.{name}" for name in Reading._fields)

# A named budget over the same dimension, period and filters takes its values out of the template.
_BUDGETS = """
select budget.id, budget.project_id, project.slug, project.time_zone, budget.name, budget.dimension, budget.values,
       budget.filters, budget.amount_nano, budget.period, budget.rolling_days, budget.starts_on, budget.ends_on,
       budget.carry_over, budget.thresholds, budget.owner, budget.note, budget.revision, budget.created_at,
       array(select channel_id from costapp_budget_channels where budget_id = budget.id order by 1),
       array(select distinct value #>> '{}' from costapp_budget own, jsonb_array_elements(own.values) value
             where budget.dimension <> '' and budget.values = '[]' and own.project_id = budget.project_id
               and own.enabled and own.dimension = budget.dimension and own.filters = budget.filters
               and own.period = budget.period and own.rolling_days is not distinct from budget.rolling_days
               and (own.starts_on is null or own.starts_on <= (now() at time zone project.time_zone)::date)
               and (own.ends_on is null or own.ends_on >= (now() at time zone project.time_zone)::date)
             order by 1)
from costapp_budget budget join costapp_project project on project.id = budget.project_id
where budget.enabled"""


def now(conn: Connection) -> datetime:
    """The clock that all workers share."""
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


def due(conn: Connection, *, quiet_s: int) -> list[tuple[int, int]]:
    """(project, budget) whose sums changed since they were last looked at, or that were not for ``quiet_s``."""
    sql = """
        select budget.project_id, budget.id from costapp_budget budget
        left join lateral (
            select max(evaluated_at) as evaluated_at from budget_period
            where project_id = budget.project_id and budget_id = budget.id) seen on true
        left join lateral (
            select max(computed_at) as computed_at from rollup_pace where project_id = budget.project_id) sums on true
        where budget.enabled
          and (seen.evaluated_at is null or budget.changed_at > seen.evaluated_at
               or sums.computed_at > seen.evaluated_at - interval '5 seconds'
               or seen.evaluated_at not between clock_timestamp() - make_interval(secs => %(quiet_s)s)
                                            and clock_timestamp())
        order by seen.evaluated_at nulls first, budget.id"""
    return conn.execute(sql, {"quiet_s": quiet_s}).fetchall()


def try_lock(conn: Connection, budget_id: int) -> bool:
    """Become the only one to evaluate this budget until the transaction ends."""
    return locks.try_lock(conn, _BUDGET_LOCK, budget_id)


def budget(conn: Connection, budget_id: int) -> BudgetRow | None:
    """As it is configured now; None = gone or switched off."""
    row = conn.execute(f"{_BUDGETS} and budget.id = %s".encode(), (budget_id,)).fetchone()
    return _budget(row) if row else None


def budgets_of(conn: Connection, project_id: int) -> list[BudgetRow]:
    """All of a project that are switched on, by name."""
    rows = conn.execute(f"{_BUDGETS} and budget.project_id = %s order by budget.name".encode(), (project_id,))
    return [_budget(row) for row in rows.fetchall()]


def _budget(row: Sequence[Any]) -> BudgetRow:
    found = BudgetRow._make(row)
    return found._replace(
        values=_json(found.values), filters=_json(found.filters), thresholds=_json(found.thresholds)
    )  # fmt: skip


def _json(value: Any) -> Any:
    """jsonb as Python values, also on Django's connections, which hand it out as text."""
    return orjson.loads(value) if isinstance(value, str | bytes) else value


def removed_with_alerts(conn: Connection) -> list[tuple[int, int]]:
    """(project, budget) with open alerts, whose budget is gone or switched off."""
    sql = """
        select distinct alert.project_id, alert.source_id from alert
        left join costapp_budget budget on budget.id = alert.source_id and budget.enabled
        where alert.source = 'budget' and alert.state = 'open' and budget.id is null order by 1, 2"""
    return conn.execute(sql).fetchall()


# --- periods and readings


def periods(conn: Connection, project_id: int, budget_id: int) -> dict[date, PeriodRow]:
    """The newest ones, which may still change."""
    sql = f"""select {", ".join(PeriodRow._fields)} from budget_period
        where project_id = %s and budget_id = %s order by period_key desc limit 40"""
    rows = [PeriodRow._make(row) for row in conn.execute(sql.encode(), (project_id, budget_id))]
    return {row.period_key: row for row in rows}


def save_period(conn: Connection, row: PeriodRow) -> None:
    names = PeriodRow._fields
    changes = ", ".join(f"{name} = excluded.{name}" for name in names[3:])
    sql = f"""insert into budget_period ({", ".join(names)}) values ({", ".join(["%s"] * len(names))})
        on conflict (project_id, budget_id, period_key) do update set {changes}"""
    conn.execute(sql.encode(), row)


def readings(conn: Connection, project_id: int, budget_id: int, period_key: date) -> dict[str, Reading]:
    sql = f"""select {_COLUMNS} from budget_reading reading
        where project_id = %s and budget_id = %s and period_key = %s"""
    rows = conn.execute(sql.encode(), (project_id, budget_id, period_key))
    return {row.subject: row for row in map(as_reading, rows)}


def as_reading(row: Sequence[Any]) -> Reading:
    found = Reading._make(row)
    return found._replace(states=_json(found.states))


def save_readings(conn: Connection, rows: Iterable[Reading]) -> None:
    """Insert or replace, in key order."""
    given = [{**row._asdict(), "states": dict(row.states)} for row in rows]
    if not given:
        return
    names = Reading._fields
    changes = ", ".join(f"{name} = excluded.{name}" for name in names[4:])
    sql = f"""
        insert into budget_reading ({", ".join(names)})
        select {", ".join(names)} from jsonb_to_recordset(%s) as given (
            project_id int, budget_id bigint, period_key date, subject text, evaluated_at timestamptz,
            amount_nano bigint, carried_nano bigint, spent_nano bigint, requests bigint, unpriced bigint,
            forecast_nano bigint, low_nano bigint, high_nano bigint, runs_out_at timestamptz, forecast_why text,
            states jsonb)
        order by project_id, budget_id, period_key, subject
        on conflict (project_id, budget_id, period_key, subject) do update set {changes}"""
    conn.execute(sql.encode(), (Jsonb(given, dumps=_dumps),))


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


def forget_subjects(
    conn: Connection, project_id: int, budget_id: int, period_key: date, subjects: Sequence[str]
) -> None:
    """They have a budget of their own now."""
    sql = """delete from budget_reading
        where project_id = %s and budget_id = %s and period_key = %s and subject = any(%s)"""
    conn.execute(sql, (project_id, budget_id, period_key, list(subjects)))


def forget_period(conn: Connection, project_id: int, budget_id: int, period_key: date) -> None:
    """Its readings were made for another revision of the budget."""
    sql = "delete from budget_reading where project_id = %s and budget_id = %s and period_key = %s"
    conn.execute(sql, (project_id, budget_id, period_key))


def drop_before(conn: Connection, *, at: datetime) -> int:
    """Periods that ended before ``at``, and all of budgets that are gone. Returns the number of readings dropped."""
    conn.execute("delete from budget_period where end_at < %s and period_key <> '1970-01-01'", (at,))
    conn.execute("delete from budget_period where not exists (select from costapp_budget where id = budget_id)")
    return conn.execute(
        """delete from budget_reading reading where not exists (
               select from budget_period period where period.project_id = reading.project_id
                 and period.budget_id = reading.budget_id and period.period_key = reading.period_key)"""
    ).rowcount


# --- for pages


class Burn(NamedTuple):
    """A reading of a current period, with the budget's place among all by risk."""

    reading: Reading
    start_at: datetime
    end_at: datetime
    checked_at: datetime
    subjects: int


_RISK = """(case when reading.amount_nano + reading.carried_nano <= 0 then 10
    else greatest(reading.spent_nano, coalesce(reading.forecast_nano, 0))::numeric
         / (reading.amount_nano + reading.carried_nano) end)"""
_CURRENT = """
    from budget_reading reading
    join budget_period period using (project_id, budget_id, period_key)
    join costapp_budget budget on budget.id = reading.budget_id and budget.enabled
    where reading.project_id = %(project_id)s and period.revision = budget.revision
      and period.start_at <= %(now)s and period.end_at > %(now)s"""
_BURN = f"select {_COLUMNS}, period.start_at, period.end_at, period.evaluated_at, period.subjects"


def burns(
    conn: Connection, project_id: int, at: datetime, *, budget_id: int | None = None, subject: str | None = None,
    limit: int = 50, offset: int = 0, per_budget: int | None = None,
) -> list[Burn]:  # fmt: skip
    """Readings of the periods that contain ``at``, riskiest first; ``per_budget`` = at most so many of each."""
    which = " and reading.budget_id = %(budget_id)s" if budget_id is not None else ""
    which += " and reading.subject = %(subject)s" if subject is not None else ""
    sql = f"""select {", ".join(f"ranked.c{i}" for i in range(len(Reading._fields) + 4))} from (
        select {", ".join(f"{name} as c{i}" for i, name in enumerate(_BURN.removeprefix("select ").split(", ")))},
               {_RISK} as risk, row_number() over (partition by reading.budget_id
                   order by {_RISK} desc, reading.spent_nano desc, reading.subject) as place
        {_CURRENT}{which}) ranked
        where %(per_budget)s::int is null or place <= %(per_budget)s
        order by risk desc, c7 desc, c1, c3 limit %(limit)s offset %(offset)s"""
    values = {
        "project_id": project_id, "now": at, "budget_id": budget_id, "subject": subject, "limit": limit,
        "offset": offset, "per_budget": per_budget,
    }  # fmt: skip
    width = len(Reading._fields)
    rows = conn.execute(sql.encode(), values).fetchall()
    return [Burn(as_reading(row[:width]), *row[width:]) for row in rows]
