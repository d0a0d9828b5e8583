"""Span rows: their binary form, the statements that insert them once, and a synchronous insert.

A row is kept as the bytes that PostgreSQL's binary COPY takes, so nothing is converted twice. The
key columns come first and have fixed widths: comparing two rows as bytes compares their keys, and
the first `KEY_BYTES` bytes identify a span. The collectors use the same rows and statements.
"""

import struct
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Any, LiteralString, NamedTuple

import psycopg

from costapp.core.ids import response_hash
from costapp.core.values import Span, SpanFacts
from costapp.storage.facts import decode_facts, encode_facts
from costapp.storage.outbox import SHARDS

Connection = psycopg.Connection[Any]

_EPOCH = date(2000, 1, 1)
_NANOS_PER_DAY = 86_400_000_000_000
_DAYS_FROM_1970_TO_2000 = 10_957
_START_NS_MAX = 2**63 - 1

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"
_COLUMNS = "project_id, day, trace_id, span_id, parent_id, response_hash, start_ns, facts"

# field count; then (length, value) of project_id, day, trace_id, span_id, parent_id, response_hash, start_ns;
# then the length of facts, whose bytes follow
_ROW = struct.Struct(">h ii ii i16s iq iq iq iq i")
KEY_BYTES = struct.calcsize(">h ii ii i16s iq")  # a row up to and including span_id
TRACE_BYTES = struct.calcsize(">h ii ii i16s")  # ... up to and including trace_id
_START = slice(struct.calcsize(">h ii ii i16s iq iq iq i"), struct.calcsize(">h ii ii i16s iq iq iq iq"))
_KEY = struct.Struct(">2x 4xi 4xi 4x16s 4xq")
_MARK = struct.Struct(">h ii ii ih i16s")  # a dirty_trace row: project_id, day, shard, trace_id

COPY_SPANS: LiteralString = f"copy span ({_COLUMNS}) from stdin (format binary)"
COPY_MARKS = "copy dirty_trace (project_id, day, shard, trace_id) from stdin (format binary)"
# The staging table lives as long as its connection and is emptied at its next use: "on commit delete
# rows" does nothing when the commit is only a savepoint.
CREATE_STAGING = "create temp table if not exists span_staging (like span)"
TRUNCATE_STAGING = "truncate span_staging"
COPY_STAGING = f"copy span_staging ({_COLUMNS}) from stdin (format binary)"
# Sorted, so that two writers with the same spans wait for each other instead of deadlocking.
INSERT_STAGED = f"""
insert into span ({_COLUMNS}) select {_COLUMNS} from span_staging
order by project_id, day, trace_id, span_id
on conflict do nothing returning project_id, day - date '2000-01-01', trace_id, span_id"""
# Without statistics on the staging table a hash join over whole partitions can look cheap.
NESTED_LOOPS = "set local enable_hashjoin = off; set local enable_mergejoin = off"
# A key that is already stored with other content: the first copy stays, the difference is counted.
COUNT_CONFLICTS = """
select project_id, count(*) from span_staging new join span old using (project_id, day, trace_id, span_id)
where old.day between %s::date and %s::date
  and (old.start_ns, old.parent_id, old.facts) is distinct from (new.start_ns, new.parent_id, new.facts)
group by project_id"""


class SpanKey(NamedTuple):
    """The primary key of `span`. `day` counts from 2000-01-01, as PostgreSQL's wire format does."""

    project_id: int
    day: int
    trace_id: bytes
    span_id: int


def encode_row(
    project_id: int, trace_id: bytes, span_id: int, parent_id: int, start_ns: int, facts: SpanFacts
) -> bytes:
    """One span as a binary COPY row. A start beyond 2262 is stored as the last representable instant."""
    response_id = facts.response_id
    hashed = response_hash(response_id) if response_id else 0
    return pack_row(project_id, trace_id, span_id, parent_id, start_ns, hashed, encode_facts(facts))


def pack_row(
    project_id: int, trace_id: bytes, span_id: int, parent_id: int, start_ns: int, hashed: int, document: bytes
) -> bytes:
    """Like `encode_row`, for a document that is encoded already. `hashed`: response_hash, 0 = none."""
    if start_ns > _START_NS_MAX:
        start_ns = _START_NS_MAX
    return _ROW.pack(
        8, 4, project_id, 4, start_ns // _NANOS_PER_DAY - _DAYS_FROM_1970_TO_2000, 16, trace_id, 8, span_id,
        8, parent_id, 8, hashed, 8, start_ns, len(document),
    ) + document  # fmt: skip


def facts_of(row: bytes) -> SpanFacts:
    return decode_facts(row[_ROW.size :])


def key_of(row: bytes) -> SpanKey:
    return SpanKey(*_KEY.unpack_from(row))


def encode_marks(rows: Iterable[bytes]) -> list[bytes]:
    """One dirty_trace row for every trace that the span rows (or their keys) touch, in key order."""
    return [_encode_mark(prefix) for prefix in sorted({row[:TRACE_BYTES] for row in rows})]


def _encode_mark(prefix: bytes) -> bytes:
    project_id, day = struct.unpack_from(">4xi4xi", prefix, 2)
    return _MARK.pack(4, 4, project_id, 4, day, 2, prefix[-1] % SHARDS, 16, prefix[-16:])


def first_of_each(rows: Iterable[bytes]) -> list[bytes]:
    """Rows in key order; of several with the same key the first one given."""
    unique: dict[bytes, bytes] = {}
    for row in rows:
        unique.setdefault(row[:KEY_BYTES], row)
    return sorted(unique.values())


def count_started_before(rows: Iterable[bytes], time_ns: int) -> int:
    """How many of the rows are of spans that started before that Unix time."""
    edge = time_ns.to_bytes(8, "big")
    return sum(row[_START] < edge for row in rows)


def copy_document(rows: Sequence[bytes]) -> bytes:
    """The rows as one complete binary COPY stream."""
    return COPY_HEADER + b"".join(rows) + COPY_TRAILER


class Inserted(NamedTuple):
    """What one insert did."""

    new_rows: list[bytes]  # stored now
    conflicts: dict[int, int]  # per project: spans already stored with other content


def insert_new_rows(conn: Connection, rows: list[bytes]) -> Inserted:
    """Insert rows (unique, in key order) of which none should be stored yet; UniqueViolation if one is.

    Several times faster than `insert_rows`. Part of the caller's transaction, which the error aborts.
    """
    copy_rows(conn, COPY_SPANS, rows)
    return Inserted(rows, {})


def insert_rows(conn: Connection, rows: list[bytes]) -> Inserted:
    """Insert those rows (unique, in key order) that are not stored yet. Part of the caller's transaction."""
    conn.execute(CREATE_STAGING)
    conn.execute(TRUNCATE_STAGING)
    copy_rows(conn, COPY_STAGING, rows)
    stored = {
        SpanKey(project_id, day, trace_id.bytes, span_id)
        for project_id, day, trace_id, span_id in conn.cursor(binary=True).execute(INSERT_STAGED)
    }
    if len(stored) == len(rows):
        return Inserted(rows, {})
    return Inserted([row for row in rows if key_of(row) in stored], _conflicts(conn, rows))


def _conflicts(conn: Connection, rows: list[bytes]) -> dict[int, int]:
    days = [_EPOCH + timedelta(days=key_of(row).day) for row in rows]
    conn.execute(NESTED_LOOPS)
    return dict(conn.execute(COUNT_CONFLICTS, (min(days), max(days))).fetchall())


def mark_traces(conn: Connection, rows: Sequence[bytes]) -> None:
    """Ask for a new look at every trace these rows belong to. Part of the caller's transaction."""
    if rows:
        copy_rows(conn, COPY_MARKS, encode_marks(rows))


def dirty_traces_exceed(conn: Connection, limit: int) -> bool:
    """Whether more than `limit` marks wait. Reads at most that many index entries."""
    row = conn.execute("select exists (select from dirty_trace offset %s)", (limit,)).fetchone()
    return bool(row and row[0])


def copy_rows(conn: Connection, statement: LiteralString, rows: Sequence[bytes]) -> None:
    with conn.cursor().copy(statement) as copy:
        copy.write(copy_document(rows))


def insert_spans(conn: Connection, project_id: int, spans: Iterable[Span]) -> int:
    """Store spans that are not stored yet and mark their traces; returns how many were new.

    Part of the caller's transaction if there is one. The collectors do the same, many requests at a time.
    """
    rows = first_of_each(encode_row(project_id, *span) for span in spans)
    if not rows:
        return 0
    with conn.transaction():
        inserted = insert_rows(conn, rows)
        mark_traces(conn, inserted.new_rows)
    return len(inserted.new_rows)
