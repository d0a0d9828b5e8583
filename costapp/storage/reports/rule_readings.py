"""What alert rules read: figures of every subject in a window, from the same cells as the pages.

One statement answers a ``Question`` for all subjects and all asked windows at once; rules that ask the same share
it. The ratios are computed from ``Sums`` as on the pages, so an alert and its page show one number. ``SOURCES`` and
``VALUES`` are open: a metric of ``core.alert_metrics`` is one row in each.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from costapp.core.alert_metrics import PPM, Family, Metric, Window
from costapp.core.alert_windows import start_of
from costapp.core.latency import quantile
from costapp.core.money import divide_half_up
from costapp.storage.reports.activity import histograms
from costapp.storage.reports.cells import (
    CHARGE_DIMENSIONS,
    CHARGE_MEASURES,
    CHARGES_IN_RANGE,
    ROLLUP_DIMENSIONS,
    ROLLUP_MEASURES,
    Grain,
    Scope,
    Unanswerable,
    params,
)
from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.sql import Connection, Row, run
from costapp.storage.reports.sums import MEASURES, USER_DAY_KEEPS, Sums, per

GRAINS = {"5m": Grain.FIVE_MINUTES, "hour": Grain.HOUR, "day": Grain.DAY}
TABLES = {"5m": "rollup_5m", "hour": "rollup_hour", "day": "rollup_day"}
#: Silence is known this far back; a subject that was silent for longer is forgotten.
SILENCE_KNOWN = timedelta(days=7)
FALLBACK = 8  #: core.values.ChargeFlag.FALLBACK


class Subject(NamedTuple):
    """What a rule can have one state for each of."""

    label: str
    empty: str  #: what '' means, in words


GPU_NODE = "gpu_node"
#: Whose series are watched for anomalies.
ANOMALY_DIMENSIONS = ("", "feature", "model", "team", "environment")
SUBJECTS: dict[str, Subject] = {
    **{key: Subject(each.label.lower(), each.empty) for key, each in DIMENSIONS.items()},
    GPU_NODE: Subject("GPU node", "(unnamed node)"),
}


class Question(NamedTuple):
    """What many rules ask together."""

    project_id: int
    time_zone: str
    family: Family
    window: Window
    by: str  #: key of a dimension; "" = the whole
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def scope(self, end: datetime) -> Scope:
        """The same window as a page shows it."""
        start = start_of(end, self.window, self.time_zone)
        return Scope(self.project_id, self.time_zone, start, end, GRAINS[self.window.grain], dict(self.filters))

    @property
    def condition(self) -> str:
        """SQL of the filters; their values are in the parameters of any scope."""
        return "".join(f" and {DIMENSIONS[key].column} = any(%(is_{key})s)" for key, _ in self.filters)


class Figures(NamedTuple):
    """Everything known of one subject in one window. None = not read by this family."""

    requests: int = 0
    sums: Sums = Sums()
    unattributed: int | None = None
    fallbacks: int | None = None
    sessions: int | None = None
    slots: Mapping[int, int] | None = None
    silent_s: int | None = None
    idle_us: int | None = None
    observed_us: int | None = None
    above_nano: int = 0
    why: str = ""  #: the sentence of the dearest anomaly


class Answer(NamedTuple):
    figures: dict[datetime, dict[str, Figures]]  #: by end of window, then subject
    subjects: int  #: how many there are; `figures` may hold fewer


def _ppm(part: int | None, whole: int | None) -> int | None:
    return divide_half_up(part * PPM, whole) if part is not None and whole else None


def _tokens_per_request(found: Figures) -> int | None:
    stated = found.sums.requests - (found.sums.usage_unknown or 0)
    return divide_half_up(found.sums.tokens * 1000, stated) if found.sums.tokens is not None and stated else None


def _cache_hit(found: Figures) -> int | None:
    sums = found.sums
    if sums.input_tokens is None:
        return None
    prompt = sums.input_tokens + (sums.cache_read_tokens or 0) + (sums.cache_write_tokens or 0)
    return _ppm(sums.cache_read_tokens, prompt)


def _quantile(q: float) -> Callable[[Figures], int | None]:
    return lambda found: quantile(found.slots, q) if found.slots else None


#: Metric -> its value in base units; None = unknown.
VALUES: dict[str, Callable[[Figures], int | None]] = {
    "cost": lambda found: found.sums.known_cost_nano,
    "cost_per_1k": lambda found: found.sums.cost_per_1k_nano,
    "cost_per_session": lambda found: per(found.sums.known_cost_nano, found.sessions),
    "requests": lambda found: found.requests,
    "tokens_per_request": _tokens_per_request,
    "latency_p50": _quantile(0.5),
    "latency_p95": _quantile(0.95),
    "latency_p99": _quantile(0.99),
    "error_rate": lambda found: _ppm(found.sums.errors, found.requests),
    "retry_rate": lambda found: _ppm(found.sums.retries, found.requests),
    "fallback_rate": lambda found: _ppm(found.fallbacks, found.requests),
    "cache_hit": _cache_hit,
    "unpriced_share": lambda found: _ppm(found.sums.unpriced, found.requests),
    "unattributed_share": lambda found: _ppm(found.unattributed, found.requests),
    "silence": lambda found: found.silent_s,
    "gpu_idle": lambda found: _ppm(found.idle_us, found.observed_us),
    "anomalous": lambda found: found.above_nano,
}


def require_readable(metric: Metric, window: Window, by: str, filters: Sequence[str]) -> None:
    """Raises Unanswerable, with a sentence, where no table and no index holds what is asked."""
    label = metric.label[:1].upper() + metric.label[1:]
    if metric.family is Family.ANOMALIES and (by not in ANOMALY_DIMENSIONS or filters):
        kept = ", ".join(DIMENSIONS[key].label.lower() for key in ANOMALY_DIMENSIONS if key)
        raise Unanswerable(f"{label} is known for the whole project and by {kept}, without filters.")
    if metric.family is Family.ANOMALIES and window.length < timedelta(hours=1):
        raise Unanswerable("Anomalies are found by the hour. Choose a window of at least 1 hour.")
    if metric.family is Family.GPU and (by not in ("", GPU_NODE) or filters):
        raise Unanswerable(f"{label} is known for the whole project and for each GPU node, without filters.")
    if metric.family is Family.GPU and window.length < timedelta(hours=1):
        raise Unanswerable(f"{label} is kept by the hour. Choose a window of at least 1 hour.")
    if metric.family is not Family.GPU and by == GPU_NODE:
        raise Unanswerable(f"{label} is not known by GPU node. Group by something else, or watch GPU idle time.")
    dimensions = [DIMENSIONS[key] for key in {by, *filters} - {"", GPU_NODE}]
    if metric.family is Family.LATENCY and not all(dimension.in_latency for dimension in dimensions):
        kept = ", ".join(d.plural for d in DIMENSIONS.values() if d.in_latency)
        raise Unanswerable(f"{label} is kept by {kept}. Group and filter by those.")
    if metric.family is Family.LATENCY and window.length < timedelta(hours=1):
        raise Unanswerable(f"{label} is kept by the hour. Choose a window of at least 1 hour.")
    if metric.family is Family.SESSIONS and ("feature" not in (by, *filters) or set(filters) | {by, "feature"} > {
        "feature", ""
    }):  # fmt: skip
        raise Unanswerable("Sessions are counted per feature. Group by feature, or watch one feature.")
    if metric.family is Family.SESSIONS and window.grain != "day":
        raise Unanswerable("Sessions are counted per day. Choose a window of whole days.")
    if metric.family is Family.CALLS and window.grain != "5m":
        raise Unanswerable(f"{label} is read from single calls. Choose a window of at most 6 hours.")
    people = [dimension for dimension in dimensions if not dimension.in_rollup]
    if people and not _knows_people(metric, window, by, filters):
        raise Unanswerable(
            f"{people[0].plural.capitalize()} are summed per day and feature, and can be read from single calls for "
            "windows of at most 6 hours. Choose such a window, or group by something else."
        )


def _knows_people(metric: Metric, window: Window, by: str, filters: Sequence[str]) -> bool:
    if window.grain == "5m" and metric.family in (Family.SUMS, Family.CALLS):
        return True
    by_day = by == "user" and window.grain == "day" and set(filters) <= {"feature"}
    return by_day and metric.key in ("cost", "cost_per_1k", "requests", "error_rate", "unpriced_share")


def read(
    conn: Connection, question: Question, ends: Sequence[datetime], *, limit: int, keep: Sequence[str] = ()
) -> Answer:
    """Figures of the ``limit`` subjects with most requests, and of those in ``keep``, in the windows that end then."""
    return SOURCES[question.family](conn, question, ends, limit, keep)


# -- one statement per family ------------------------------------------------------------------------------------

_WINDOWS = "unnest(%(starts)s::timestamptz[], %(ends)s::timestamptz[]) as w(start_at, end_at)"


def _asked(conn: Connection, question: Question, sql: str, ends: Sequence[datetime], limit: int, keep: Sequence[str]
           ) -> list[Row]:  # fmt: skip
    """Rows (end_at, value, n, ...) of ``sql``, cut to the subjects with most ``n``; the last column counts all."""
    starts = [start_of(end, question.window, question.time_zone) for end in ends]
    capped = f"""
        with found as materialized ({sql}),
        ranked as (
            select value, row_number() over (order by sum(n) desc, value) as place, count(*) over () as subjects
            from found group by value)
        select found.*, ranked.subjects from found join ranked on ranked.value = found.value
        where place <= %(limit)s or found.value = any(%(keep)s)"""
    values = params(question.scope(max(ends)), starts=starts, ends=list(ends), limit=limit, keep=list(keep),
                    by=question.by)  # fmt: skip
    return run(conn, capped, values)


def _value(by: str) -> str:
    return DIMENSIONS[by].column if by else "''::text"


def _read_sums(
    conn: Connection, question: Question, ends: Sequence[datetime], limit: int, keep: Sequence[str]
) -> Answer:
    cells, measures = _cells(question)
    sums = ", ".join(f"sum({name})::bigint" if name in measures else "null::bigint" for name in MEASURES)
    unattributed = "sum(requests) filter (where feature = '')::bigint"
    sql = f"""select end_at, {_value(question.by)} as value, sum(requests)::bigint as n, {sums}, {unattributed}
        from {_WINDOWS} cross join lateral ({cells}) cells group by 1, 2"""
    rows = _asked(conn, question, sql, ends, limit, keep)
    found = [(row[0], row[1], Figures(row[2], Sums._make(row[3:-2]), row[-2] or 0)) for row in rows]
    return _answer(ends, found, rows)


def _cells(question: Question) -> tuple[str, Sequence[str]]:
    """Cells of a window ``w``, and the measures they keep."""
    condition = question.condition
    keys = {question.by, *dict(question.filters)} - {""}
    where = f"project_id = %(project_id)s and bucket_at >= w.start_at and bucket_at < w.end_at{condition}"
    if all(DIMENSIONS[key].in_rollup for key in keys):
        table = TABLES[question.window.grain]
        return f"select {ROLLUP_DIMENSIONS}, {ROLLUP_MEASURES} from {table} where {where}", MEASURES
    if question.window.grain == "5m":
        in_range = CHARGES_IN_RANGE.replace("%(start)s", "w.start_at").replace("%(end)s", "w.end_at")
        return (
            f"select {CHARGE_DIMENSIONS}, {CHARGE_MEASURES} from charge_full where {in_range}{condition}",
            MEASURES,
        )
    return f"select user_id, feature, {', '.join(USER_DAY_KEEPS)} from user_day where {where}", USER_DAY_KEEPS


def _read_calls(
    conn: Connection, question: Question, ends: Sequence[datetime], limit: int, keep: Sequence[str]
) -> Answer:
    in_range = CHARGES_IN_RANGE.replace("%(start)s", "w.start_at").replace("%(end)s", "w.end_at")
    sql = f"""
        select end_at, {_value(question.by)} as value, count(*) as n,
               count(*) filter (where flags & {FALLBACK} <> 0) as fallbacks
        from {_WINDOWS} cross join lateral (
            select flags, {CHARGE_DIMENSIONS} from charge_full
            where {in_range}{question.condition}) calls
        group by 1, 2"""
    rows = _asked(conn, question, sql, ends, limit, keep)
    return _answer(ends, [(row[0], row[1], Figures(row[2], fallbacks=row[3])) for row in rows], rows)


def _read_sessions(
    conn: Connection, question: Question, ends: Sequence[datetime], limit: int, keep: Sequence[str]
) -> Answer:
    """Sums and the number of sessions, both by feature and day."""
    sums = _read_sums(conn, question, ends, limit, keep)
    sql = f"""
        select end_at, {_value(question.by)} as value, sum(sessions)::bigint as n
        from {_WINDOWS} cross join lateral (
            select feature, sessions from activity_day where project_id = %(project_id)s
            and bucket_at >= w.start_at and bucket_at < w.end_at{question.condition}) days
        group by 1, 2"""
    sessions = {(row[0], row[1]): row[2] for row in _asked(conn, question, sql, ends, limit, list(_subjects(sums)))}
    figures = {
        end: {value: found._replace(sessions=sessions.get((end, value))) for value, found in by_value.items()}
        for end, by_value in sums.figures.items()
    }
    return Answer(figures, sums.subjects)


def _subjects(answer: Answer) -> set[str]:
    return {value for by_value in answer.figures.values() for value in by_value}


def _read_latency(
    conn: Connection, question: Question, ends: Sequence[datetime], limit: int, keep: Sequence[str]
) -> Answer:
    filters = [key for key, _ in question.filters]
    by = question.by or (filters[0] if filters else "feature")
    scope = question.scope(max(ends))
    column, cells = histograms(scope if scope.grain is Grain.DAY else scope._replace(grain=Grain.HOUR), by)
    value = "cells.value" if question.by else "''::text"
    sql = f"""
        select end_at, {value} as value, sum(requests)::bigint as n, slot
        from {_WINDOWS} cross join lateral (
            select {column} as value, slot, requests from {cells}
            and project_id = %(project_id)s and bucket_at >= w.start_at and bucket_at < w.end_at) cells
        group by 1, 2, slot"""
    rows = _asked(conn, question, sql, ends, limit, keep)
    slots: dict[tuple[datetime, str], dict[int, int]] = defaultdict(dict)
    for end, subject, n, slot, _ in rows:
        slots[end, subject][slot] = n
    found = [(end, subject, Figures(sum(by.values()), slots=by)) for (end, subject), by in slots.items()]
    return _answer(ends, found, rows)


def _read_silence(
    conn: Connection, question: Question, ends: Sequence[datetime], limit: int, keep: Sequence[str]
) -> Answer:
    """Since the end of the last 5-minute cell with a call, for subjects that made one within a week."""
    end, scope = max(ends), question.scope(max(ends))
    where = f"project_id = %(project_id)s and bucket_at < %(end)s{question.condition}"
    sql = f"""
        with last_hours as materialized (
            select {_value(question.by)} as value, max(bucket_at) as hour_at, sum(requests)::bigint as n
            from rollup_hour where {where} and bucket_at >= %(since)s group by 1),
        hours as (select distinct hour_at from last_hours),
        last_cells as (
            select {_value(question.by)} as value, max(bucket_at) as cell_at
            from hours join rollup_5m on {where} and bucket_at >= hour_at and bucket_at < hour_at + interval '1 hour'
            group by 1)
        select value, n, cell_at, count(*) over () from last_hours join last_cells using (value)
        order by value = any(%(keep)s) desc, n desc, value limit %(limit)s + cardinality(%(keep)s)"""
    values = params(scope, since=end - SILENCE_KNOWN, limit=limit, keep=list(keep))
    rows = run(conn, sql, values)
    found = [(end, row[0], Figures(row[1], silent_s=max(0, int((end - row[2]).total_seconds()) - 300))) for row in rows]
    return _answer(ends, found, rows)


def _read_gpus(
    conn: Connection, question: Question, ends: Sequence[datetime], limit: int, keep: Sequence[str]
) -> Answer:
    """Idle and observed time of GPUs. What was not observed is not idle."""
    value = "node" if question.by else "''::text"
    sql = f"""
        select end_at, {value} as value, sum((gpu_us - unobserved_us) / 60000000)::bigint as n,
               sum(held_us + free_us)::bigint, sum(gpu_us - unobserved_us)::bigint
        from {_WINDOWS} cross join lateral (
            select node, gpu_us, held_us, free_us, unobserved_us from gpu_hour
            where project_id = %(project_id)s and hour_at >= w.start_at and hour_at < w.end_at) hours
        group by 1, 2"""
    rows = _asked(conn, question, sql, ends, limit, keep)
    found = [(row[0], row[1], Figures(row[2], idle_us=row[3], observed_us=row[4])) for row in rows]
    return _answer(ends, found, rows)


def _read_anomalies(
    conn: Connection, question: Question, ends: Sequence[datetime], limit: int, keep: Sequence[str]
) -> Answer:
    """Whole anomalies that lasted into the window, of each slice that they are told by or that shows the same money."""
    slices = (
        "select ''::text as value"
        if not question.by
        else """
        select a.value where a.dimension = %(by)s
        union select member ->> 1 from jsonb_array_elements(a.detail -> 'members') member where member ->> 0 = %(by)s"""
    )
    sql = f"""
        select w.end_at, slices.value, count(*) as n, sum(a.above_nano)::bigint,
               (array_agg(a.title order by a.above_nano desc, a.id))[1]
        from {_WINDOWS} join anomaly a
            on a.project_id = %(project_id)s and a.start_at < w.end_at and a.end_at > w.start_at
            and a.state <> 'withdrawn' and a.verdict <> 'dismissed' and a.above_nano > 0
        cross join lateral ({slices}) slices group by 1, 2"""
    rows = _asked(conn, question, sql, ends, limit, keep)
    found = [(row[0], row[1], Figures(row[2], above_nano=row[3], why=row[4])) for row in rows]
    return _answer(ends, found, rows)


def _answer(ends: Sequence[datetime], found: Sequence[tuple[datetime, str, Figures]], rows: Sequence[Row]) -> Answer:
    figures: dict[datetime, dict[str, Figures]] = {end: {} for end in ends}
    for end, subject, figure in found:
        figures[end][subject] = figure
    return Answer(figures, rows[0][-1] if rows else 0)


Source = Callable[[Connection, Question, Sequence[datetime], int, Sequence[str]], Answer]

SOURCES: dict[Family, Source] = {
    Family.SUMS: _read_sums,
    Family.CALLS: _read_calls,
    Family.SESSIONS: _read_sessions,
    Family.LATENCY: _read_latency,
    Family.SILENCE: _read_silence,
    Family.GPU: _read_gpus,
    Family.ANOMALIES: _read_anomalies,
}


def complete_until(conn: Connection, project_id: int, *, with_histograms: bool) -> tuple[datetime, datetime]:
    """The database's clock, and until when everything acknowledged is in the sums that rules read."""
    grains = [0, 1, 3] if with_histograms else [0, 3]
    sql = """
        select now(), least((select min(marked_at) from dirty_trace where project_id = %(project_id)s),
                            (select min(marked_at) from dirty_cell
                             where project_id = %(project_id)s and grain = any(%(grains)s)))"""
    now, waiting = run(conn, sql, {"project_id": project_id, "grains": grains})[0]
    return now, min(waiting or now, now)
