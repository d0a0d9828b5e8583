"""Lists of calls: newest first by key, a session in order, one trace. Read by index, page by page."""

from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from costapp.core.ids import span_id_text
from costapp.core.values import ChargeFlag
from costapp.storage.reports.cells import CELL, CHARGE_EXPRESSIONS, CHARGES_IN_RANGE, Scope, filter_sql, params
from costapp.storage.reports.sql import Connection, run
from costapp.storage.reports.sums import known_cost

#: How many calls one page of the list reads at most before it says "search further back".
SCAN_LIMIT = 20_000

#: Named conditions that the address may ask for.
ONLY: dict[str, tuple[str, str]] = {
    "unpriced": ("unpriced", "cost_nano is null"),
    "errors": ("failed", "error is not null"),
    "unattributed": ("without a feature", "feature = ''"),
    "no-usage": ("without token counts", "usage_state = 0"),
    "retries": ("retries", "flags & 4 <> 0"),
    "estimated": ("estimated", "(cost_status = 2 or usage_state = 3)"),
}


class CallRow(NamedTuple):
    start_at: datetime
    day: date
    trace_id: UUID
    span_id: int
    feature: str
    user_id: str
    session_id: str
    team: str
    environment: str
    service: str
    span_name: str
    operation: str
    provider: str
    model: str
    duration_us: int | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_nano: int | None
    cost_status: int
    usage_state: int
    error: str | None
    flags: int

    @property
    def is_retry(self) -> bool:
        return bool(self.flags & ChargeFlag.RETRY)

    @property
    def is_fallback(self) -> bool:
        return bool(self.flags & ChargeFlag.FALLBACK)


COLUMNS = f"""start_at, day, trace_id, span_id, feature, user_id, session_id, team, environment, service, span_name,
    operation, provider, model, duration_us,
    ({CHARGE_EXPRESSIONS["input_tokens"]})::bigint,
    ({CHARGE_EXPRESSIONS["cache_read_tokens"]} + {CHARGE_EXPRESSIONS["cache_write_tokens"]})::bigint,
    ({CHARGE_EXPRESSIONS["output_tokens"]} + {CHARGE_EXPRESSIONS["reasoning_tokens"]})::bigint,
    cost_nano, cost_status, usage_state, error, flags"""

NEWEST_FIRST = f"order by {CELL} desc, start_at desc, span_id desc"


class Cursor(NamedTuple):
    """Calls that started before this one, or with it but with a smaller span id."""

    start_at: datetime
    span_id: int


class CallPage(NamedTuple):
    rows: list[CallRow]
    older: Cursor | None  #: where the next page begins; None = that was all
    searched_until: datetime | None  #: set when the page ended because it had read enough, not found enough


#: Days that are tried before the whole range: most pages are full with them, and open two partitions, not sixty.
NEWEST_DAYS = timedelta(days=1)
CLOCK_SLACK = timedelta(hours=1)


def newest_calls(
    conn: Connection, scope: Scope, *, only: str = "", before: Cursor | None = None, limit: int = 50
) -> CallPage:
    """One page, newest first. Reads at most SCAN_LIMIT calls, so a rare filter cannot hold the page."""
    last = min(scope.end, before.start_at if before else scope.end, datetime.now(UTC) + CLOCK_SLACK)
    recent = max(scope.start, last - NEWEST_DAYS)
    if recent > scope.start:
        page = _newest_calls(conn, scope.between(recent, scope.end), only=only, before=before, limit=limit)
        if page.older:
            return page
    return _newest_calls(conn, scope, only=only, before=before, limit=limit)


def _newest_calls(conn: Connection, scope: Scope, *, only: str, before: Cursor | None, limit: int) -> CallPage:
    older = f" and (start_at, span_id) < (%(before_at)s, %(before_span)s) and {CELL} <= %(before_at)s"
    keyset = older if before else ""
    by_index = any(key in scope.filters for key in ("user", "session"))
    where = CHARGES_IN_RANGE + keyset + (filter_sql(scope) if by_index else "")
    condition = filter_sql(scope) + (f" and {ONLY[only][1]}" if only in ONLY else "")
    sql = f"""
        select {COLUMNS} from (
            select *, {CELL} as cell from charge_full where {where} {NEWEST_FIRST} limit %(scan)s) window_of_calls
        where true{condition} order by cell desc, start_at desc, span_id desc limit %(limit)s"""
    at, span = before or (None, None)
    values = params(scope, scan=SCAN_LIMIT, limit=limit + 1, before_at=at, before_span=span)
    rows = [CallRow._make(row) for row in run(conn, sql, values)]
    if len(rows) > limit:
        last = rows[limit - 1]
        return CallPage(rows[:limit], Cursor(last.start_at, last.span_id), None)
    edge_sql = f"select start_at, span_id from charge_full where {where} {NEWEST_FIRST} offset %(scan)s - 1 limit 1"
    edge = run(conn, edge_sql, values)
    if not edge:
        return CallPage(rows, None, None)
    return CallPage(rows, Cursor(*edge[0]), edge[0][0])


class SessionTotals(NamedTuple):
    first_at: datetime | None
    last_at: datetime | None
    requests: int
    errors: int
    unpriced: int
    tokens: int
    cost_nano: int
    gpu_nano: int  #: the part of it that GPUs of one's own caused
    traces: int
    features: list[str]
    users: list[str]
    models: list[str]

    @property
    def known_cost_nano(self) -> int | None:
        return known_cost(self.cost_nano, self.unpriced)


def session_totals(conn: Connection, project_id: int, session_id: str) -> SessionTotals:
    sql = f"""
        select min(start_at), max(start_at + make_interval(secs => coalesce(duration_us, 0) / 1e6)),
               count(*), count(error), count(*) - count(cost_nano),
               coalesce(sum({CHARGE_EXPRESSIONS["tokens"]}), 0)::bigint,
               coalesce(sum(cost_nano), 0)::bigint, coalesce(sum(gpu_nano), 0)::bigint, count(distinct trace_id),
               coalesce((array_agg(distinct feature))[1:8], '{{}}'),
               coalesce((array_agg(distinct user_id))[1:8], '{{}}'),
               coalesce((array_agg(distinct model))[1:8], '{{}}')
        from charge_full where project_id = %(project_id)s and session_id = %(session_id)s and session_id <> ''"""
    return SessionTotals._make(run(conn, sql, {"project_id": project_id, "session_id": session_id})[0])


def session_calls(conn: Connection, project_id: int, session_id: str, *, limit: int = 500) -> list[tuple[CallRow, int]]:
    """The first calls of a session in order, each with the cost up to and including it."""
    sql = f"""
        select {COLUMNS}, coalesce(sum(cost_nano) over (
            order by start_at, trace_id, span_id rows unbounded preceding), 0)::bigint
        from charge_full where project_id = %(project_id)s and session_id = %(session_id)s and session_id <> ''
        order by start_at, trace_id, span_id limit %(limit)s"""
    rows = run(conn, sql, {"project_id": project_id, "session_id": session_id, "limit": limit})
    return [(CallRow._make(row[:-1]), row[-1]) for row in rows]


class Charge(NamedTuple):
    """Every column of a charge, by name."""

    columns: dict[str, Any]

    @property
    def span(self) -> str:
        return span_id_text(self.columns["span_id"])

    def __getattr__(self, name: str) -> Any:
        try:
            return self.columns[name]
        except KeyError:
            raise AttributeError(name) from None


CHARGE_COLUMNS = """
    start_at, span_id, duration_us, cost_nano, input_nano, output_nano, day, input_tokens, output_tokens, rate_id,
    flags, cost_status, usage_state, attribution_source, attempts, trace_id, ttft_us, cache_read_nano, cache_write_nano,
    other_nano, gpu_nano, reported_nano, possible_nano, avoided_nano, members, signal, feature, user_id, session_id,
    team, environment, service, span_name, operation, provider, model, variant, prompt_version, model_requested,
    service_tier, region, unit, error, finish_reason, usage_rule, reported_source"""


def trace_charges(conn: Connection, project_id: int, trace_id: UUID) -> list[Charge]:
    """All charges of a trace, in order. A trace may cross midnight: the day is left to the index."""
    sql = f"""select {CHARGE_COLUMNS} from charge_full
        where project_id = %(project_id)s and trace_id = %(trace_id)s order by start_at, span_id limit 10000"""
    names = [name.strip() for name in CHARGE_COLUMNS.split(",")]
    return [
        Charge(dict(zip(names, row, strict=True)))
        for row in run(conn, sql, {"project_id": project_id, "trace_id": trace_id})
    ]
