"""Reading spans back: whole traces by day, and traces that saw the same response id."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple

import psycopg

from costapp.core.values import Span
from costapp.storage.arrays import bigints, uuids
from costapp.storage.facts import decode_facts

#: A trace with more spans than this on one day is resolved span by span (settings: docs/operations.md).
SPANS_PER_TRACE = 10_000
#: Rows per round trip. More than SPANS_PER_TRACE, so that a page full of one trace proves it oversize.
PAGE_ROWS = 4 * SPANS_PER_TRACE

_new = tuple.__new__  # half the cost of calling Span, and a batch makes tens of thousands

#: What one trace sent on one UTC day.
Node = tuple[date, bytes]


class NodeSpans(NamedTuple):
    """The spans of one node; without them if they are too many."""

    spans: list[Span]
    response_hashes: set[int]  # without 0
    is_oversize: bool = False


OVERSIZE = NodeSpans([], set(), is_oversize=True)

_PAGE = """
select uuid_send(trace_id), span_id, parent_id, start_ns, response_hash, facts from span
where project_id = %s and day = %s and trace_id = any(%s) order by trace_id, span_id limit %s
"""


def load_nodes(
    conn: psycopg.Connection, project_id: int, *, day: date, trace_ids: Iterable[bytes]
) -> dict[Node, NodeSpans]:
    """The stored spans of these traces on one day. Traces without spans that day are absent."""
    wanted = sorted(trace_ids)
    found: dict[Node, NodeSpans] = {}
    while wanted:
        cursor = conn.cursor(binary=True)
        rows = cursor.execute(_PAGE, (project_id, day, uuids(wanted), PAGE_ROWS)).fetchall()
        last = rows[-1][0] if len(rows) == PAGE_ROWS else None
        _collect(found, day, rows, unfinished=last)
        if last is None:
            break
        if rows[0][0] == last:  # a whole page of one trace
            found[(day, last)] = OVERSIZE
            wanted = [trace_id for trace_id in wanted if trace_id > last]
        else:
            wanted = [trace_id for trace_id in wanted if trace_id >= last]
    return found


def _collect(
    found: dict[Node, NodeSpans], day: date, rows: Iterable[tuple[bytes, int, int, int, int, bytes]], *,
    unfinished: bytes | None,
) -> None:  # fmt: skip
    current, node = None, OVERSIZE
    for trace_id, span_id, parent_id, start_ns, response_hash, facts in rows:
        if trace_id != current:
            if trace_id == unfinished:
                break
            current = trace_id
            node = found[(day, trace_id)] = NodeSpans([], set())
        node.spans.append(_new(Span, (trace_id, span_id, parent_id, start_ns, decode_facts(facts))))
        if response_hash:
            node.response_hashes.add(response_hash)
    for key, value in found.items():
        if len(value.spans) > SPANS_PER_TRACE:
            found[key] = OVERSIZE


_SPANS_AFTER = """
select uuid_send(trace_id), span_id, parent_id, start_ns, facts from span
where project_id = %s and day = %s and trace_id = %s::uuid and span_id > %s order by span_id limit %s
"""


def load_spans_after(conn: psycopg.Connection, project_id: int, *, node: Node, after: int, limit: int) -> list[Span]:
    """One page of the spans of an oversize trace, in the order of their ids."""
    day, trace_id = node
    rows = conn.cursor(binary=True).execute(_SPANS_AFTER, (project_id, day, trace_id.hex(), after, limit))
    return [Span(key, span, parent, start_ns, decode_facts(facts)) for key, span, parent, start_ns, facts in rows]


# Nearly every id is seen in one trace only; the server tells which, so that only the others travel.
_BY_RESPONSE = """
with holder as (
    select distinct response_hash, day, trace_id from span
    where project_id = %s and response_hash = any(%s) and response_hash <> 0 and day between %s and %s
)
select response_hash, array_agg(day), array_agg(uuid_send(trace_id)) from holder
group by response_hash having count(*) > 1
"""


def find_by_response(
    conn: psycopg.Connection, project_id: int, *, response_hashes: Sequence[int], first_day: date, last_day: date
) -> dict[int, dict[date, set[bytes]]]:
    """Which traces saw these response ids, by day. Ids that one trace alone saw on one day alone are left out."""
    found: dict[int, dict[date, set[bytes]]] = defaultdict(lambda: defaultdict(set))
    cursor = conn.cursor(binary=True)
    for response_hash, days, trace_ids in cursor.execute(
        _BY_RESPONSE, (project_id, bigints(response_hashes), first_day, last_day)
    ):
        for day, trace_id in zip(days, trace_ids, strict=True):
            found[response_hash][day].add(trace_id)
    return found


_SHARED = "select response_hash, day from shared_response where project_id = %s and response_hash = any(%s)"


def load_shared(conn: psycopg.Connection, project_id: int, *, response_hashes: Sequence[int]) -> set[tuple[int, date]]:
    """Which of these response ids are known not to identify one call, and on which days."""
    return set(conn.execute(_SHARED, (project_id, bigints(response_hashes))).fetchall())


# Whoever finds it first marks every trace that may have been joined by the id before.
_REPORT_SHARED = """
with reported as (
    insert into shared_response (project_id, day, response_hash)
    select %(project_id)s, * from unnest(%(days)s::date[], %(hashes)s::bigint[]) on conflict do nothing
    returning day, response_hash
)
insert into dirty_trace (project_id, day, shard, trace_id)
select distinct %(project_id)s, span.day, get_byte(uuid_send(span.trace_id), 15) %% %(shards)s, span.trace_id
from reported join span on span.response_hash = reported.response_hash and span.response_hash <> 0
    and span.project_id = %(project_id)s and span.day between reported.day - 1 and reported.day + 1
"""


def report_shared(
    conn: psycopg.Connection, project_id: int, *, shared: Iterable[tuple[int, date]], shards: int
) -> None:
    """Remember that a response id is seen in too many traces to join any."""
    ordered = sorted(shared)
    if ordered:
        parameters = {
            "project_id": project_id,
            "hashes": [response_hash for response_hash, _ in ordered],
            "days": [day for _, day in ordered],
            "shards": shards,
        }
        conn.execute(_REPORT_SHARED, parameters)


class Oddity(NamedTuple):
    """A trace that could not be resolved as a whole."""

    node: Node
    kind: str  # failed | oversize
    detail: str


_REPORT_ODD = """
insert into odd_trace (project_id, day, trace_id, kind, detail) values (%s, %s, %s::uuid, %s, %s)
on conflict (project_id, day, trace_id)
do update set kind = excluded.kind, detail = excluded.detail, at = excluded.at
"""


def report_odd(conn: psycopg.Connection, project_id: int, *, oddity: Oddity) -> None:
    day, trace_id = oddity.node
    conn.execute(_REPORT_ODD, (project_id, day, trace_id.hex(), oddity.kind, oddity.detail))


_CLEAR_FAILED = "delete from odd_trace where project_id = %s and kind = 'failed' and trace_id = any(%s)"


def clear_failed(conn: psycopg.Connection, project_id: int, *, trace_ids: Iterable[bytes]) -> None:
    """Traces that could be resolved after all are odd no longer."""
    conn.execute(_CLEAR_FAILED, (project_id, uuids(list(trace_ids))))


_MARK_TWINS = """
insert into dirty_trace (project_id, day, shard, trace_id)
select distinct twin.project_id, twin.day, get_byte(uuid_send(twin.trace_id), 15) %% %(shards)s, twin.trace_id
from span own join span twin on twin.project_id = own.project_id and twin.response_hash = own.response_hash
    and twin.response_hash <> 0 and twin.day between own.day - 1 and own.day + 1
where own.project_id = %(project_id)s and own.day = %(day)s and own.trace_id = %(trace_id)s::uuid
    and own.response_hash <> 0 and twin.trace_id <> own.trace_id
    and not exists (select from odd_trace odd where odd.project_id = own.project_id and odd.day = own.day
                    and odd.trace_id = own.trace_id and odd.kind = 'oversize')
"""


def mark_twins_once(conn: psycopg.Connection, project_id: int, *, node: Node, shards: int) -> None:
    """When a trace is found oversize for the first time, let go of the traces that were joined with it."""
    day, trace_id = node
    parameters = {"project_id": project_id, "day": day, "trace_id": trace_id.hex(), "shards": shards}
    conn.execute(_MARK_TWINS, parameters)


_RECENT_ODD = """
select day, uuid_send(trace_id) from odd_trace
where project_id = %s and kind = 'oversize' and trace_id = any(%s)
and clock_timestamp() - at < make_interval(secs => detail::bigint / 1000)
"""


def resting(conn: psycopg.Connection, project_id: int, *, trace_ids: Iterable[bytes]) -> set[Node]:
    """Oversize nodes that were read a short while ago: a millisecond of rest per span, so that one runaway
    trace cannot keep a worker busy by growing."""
    rows = conn.cursor(binary=True).execute(_RECENT_ODD, (project_id, uuids(list(trace_ids))))
    return {(day, trace_id) for day, trace_id in rows}


_FIND_TRACE = "select distinct project_id, day from span where trace_id = %s::uuid order by 1, 2"


def find_trace(conn: psycopg.Connection, trace_id: bytes) -> dict[int, list[Node]]:
    """By project, the days on which a trace has spans. Looks through every partition: for people, not for jobs."""
    found: dict[int, list[Node]] = defaultdict(list)
    for project_id, day in conn.execute(_FIND_TRACE, (trace_id.hex(),)):
        found[project_id].append((day, trace_id))
    return found
