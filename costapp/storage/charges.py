"""Charges on disk: encoding, writing only what differs, and marking the cells and actors that changed.

The caller holds the locks of the shards of all traces it writes, so nobody else changes these rows
meanwhile. Traces without booked charges (nearly all) are copied straight into the table; for the
others the rows go through a staging table and an upsert that leaves equal rows untouched.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from struct import Struct
from typing import NamedTuple

import psycopg
from psycopg import sql

from costapp.core.values import Call, Priced
from costapp.storage import kinds
from costapp.storage.arrays import uuids
from costapp.storage.kinds import Kind, kind_of, stored_text

#: (day, trace id, span id): the key of a charge inside its project.
Key = tuple[date, bytes, int]

_DAY_NS = 86_400_000_000_000
_EPOCH_DAYS = 10_957
_EPOCH_US = 946_684_800_000_000
_CELL_US = 300_000_000
_QUARTER_US = 900_000_000
_INT4_MAX = 2**31 - 1
_INT2_MAX = 2**15 - 1


class Booked(NamedTuple):
    """What of an existing charge decides whether and what a change is recorded."""

    start_us: int  # since PostgreSQL's epoch
    cost_nano: int | None
    feature: str
    session_id: str
    user_id: str


class Row(NamedTuple):
    """One charge to write: its key, the part of it that is compared and marked, its kind and its encoded fields."""

    key: Key
    booked: Booked
    kind: Kind
    fields: bytes  # all but the number of the kind, which is the last


class Revision(NamedTuple):
    """A booked charge whose money or feature moved."""

    key: Key
    reason: str
    old: Booked
    new: Booked | None  # None: there is no such charge any more


class Changes(NamedTuple):
    """What one write changed: old and new positions, to be recomputed in the rollups."""

    touched: list[Booked]
    revisions: list[Revision]


# -- columns -------------------------------------------------------------------------------------------------------

#: Fixed-width columns that are never null, in the order in which _FIXED packs them.
_FIXED_COLUMNS = (
    "project_id", "day", "start_at", "trace_id", "span_id", "input_nano", "output_nano", "input_tokens",
    "output_tokens", "flags", "cost_status", "usage_state", "attribution_source", "attempts",
)  # fmt: skip
# Each value follows its length: 4 or 8 or 16 or 2 bytes.
_FIXED = Struct("!hiiiiiqi16siqiqiqiiiiiiihihihih")
_BIGINT_COLUMNS = (
    "duration_us", "cost_nano", "cache_read_nano", "cache_write_nano", "other_nano", "reported_nano",
    "possible_nano", "avoided_nano", "prompt_hash", "gpu_nano",
)  # fmt: skip
_INT_COLUMNS = (
    "rate_id", "ttft_us", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "reasoning_tokens",
    "audio_in_tokens", "audio_out_tokens", "image_in_tokens", "image_out_tokens", "units", "prompt_chars",
    "output_chars",
)  # fmt: skip
_SMALLINT_COLUMNS = ("members", "signal")
_TEXT_COLUMNS = ("feature", "user_id", "session_id", "error")

KEY_COLUMNS = ("project_id", "day", "trace_id", "span_id")
COLUMNS = (*_FIXED_COLUMNS, *_BIGINT_COLUMNS, *_INT_COLUMNS, *_SMALLINT_COLUMNS, *_TEXT_COLUMNS, "kind_id")

_new = tuple.__new__  # half the cost of calling a NamedTuple
_NULL = b"\xff\xff\xff\xff"
_NULLS_7, _NONES_7 = _NULL * 7, (None,) * 7
_NULLS_10, _NONES_10 = _NULL * 10, (None,) * 10
_BIGINT = Struct("!iq")
_INT = Struct("!ii")
_SMALLINT = Struct("!ih")
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"


def _some_bigints(values: Iterable[int | None]) -> bytes:
    pack = _BIGINT.pack
    return b"".join([_NULL if value is None else pack(8, value) for value in values])


def _some_ints(values: Iterable[int | None]) -> bytes:
    pack = _INT.pack
    return b"".join(
        [_NULL if value is None else pack(4, value if value <= _INT4_MAX else _INT4_MAX) for value in values]
    )


@lru_cache(maxsize=65_536)
def _text(value: str) -> tuple[str, bytes]:
    """A text as it is stored, and that as a field of COPY."""
    stored = stored_text(value)
    data = stored.encode()
    return stored, len(data).to_bytes(4, "big") + data


#: The texts of a call's kind, read at once: a good deal faster than one by one.
_KIND_OF_CALL: Callable[[Call], tuple[str, ...]] = itemgetter(*map(Call._fields.index, kinds.COLUMNS))


def encode(project_id: int, call: Call, priced: Priced) -> Row:
    """One charge in COPY's binary format. Zero meters and absent texts become null: they cost a bit each."""
    days = call.start_ns // _DAY_NS
    start_us = call.start_ns // 1000 - _EPOCH_US
    usage = call.usage
    fixed = _FIXED.pack(
        len(COLUMNS), 4, project_id, 4, days - _EPOCH_DAYS, 8, start_us, 16, call.trace_id, 8, call.span_id,
        8, priced.input_nano, 8, priced.output_nano, 4, usage.input, 4, usage.output, 4, call.flags | priced.flags,
        2, priced.status, 2, call.usage_state, 2, call.attribution_source, 2, min(call.attempts, _INT2_MAX),
    )  # fmt: skip
    feature, feature_bytes = _text(call.feature)
    user, user_bytes = _text(call.user)
    session, session_bytes = _text(call.session)
    error_bytes = _text(call.error)[1] if call.error else _NULL
    fields = b"".join((
        fixed, _bigints(call, priced), _ints(call, priced), _smallints(call),
        feature_bytes, user_bytes, session_bytes, error_bytes,
    ))  # fmt: skip
    day, month = _day_and_month(days)
    booked = _new(Booked, (start_us, priced.cost_nano, feature, session, user))
    kind = kind_of(month, _KIND_OF_CALL(call))
    return _new(Row, ((day, call.trace_id, call.span_id), booked, kind, fields))


def key_of(call: Call) -> Key:
    """The key of the charge of a call."""
    return _day_and_month(call.start_ns // _DAY_NS)[0], call.trace_id, call.span_id


def _bigints(call: Call, priced: Priced) -> bytes:
    usual = call.duration_us, priced.cost_nano, priced.cache_read_nano or None
    rare = (
        priced.cache_write_nano or None, priced.other_nano or None, call.reported_nano, priced.possible_nano,
        priced.avoided_nano, call.prompt_hash, priced.gpu_nano,
    )  # fmt: skip
    return _some_bigints(usual) + (_NULLS_7 if rare == _NONES_7 else _some_bigints(rare))


def _ints(call: Call, priced: Priced) -> bytes:
    _, cache_read, write_5m, write_1h, _, reasoning, audio_in, audio_out, image_in, image_out, units = call.usage
    usual = _some_ints((priced.rate_id, call.ttft_us, cache_read or None))
    rare = (
        write_5m or None, write_1h or None, reasoning or None, audio_in or None, audio_out or None, image_in or None,
        image_out or None, units or None, call.prompt_chars, call.output_chars,
    )  # fmt: skip
    return usual + (_NULLS_10 if rare == _NONES_10 else _some_ints(rare))


def _smallints(call: Call) -> bytes:
    members = _NULL if call.members == 1 else _SMALLINT.pack(2, min(call.members, _INT2_MAX))
    return members + (_SMALLINT.pack(2, call.signal) if call.signal else _NULL)


@lru_cache(maxsize=4096)
def _day_and_month(days_since_1970: int) -> tuple[date, date]:
    """A day, and the first one of its month."""
    day = date(1970, 1, 1) + timedelta(days=days_since_1970)
    return day, day.replace(day=1)


# -- reading what is booked ----------------------------------------------------------------------------------------

_BOOKED = """
select day, uuid_send(trace_id), span_id,
       (extract(epoch from start_at) * 1000000)::bigint - 946684800000000, cost_nano, feature, session_id, user_id
from charge where project_id = %s and day between %s and %s and trace_id = any(%s)
"""


def load_booked(conn: psycopg.Connection, project_id: int, *, nodes: Iterable[tuple[date, bytes]]) -> dict[Key, Booked]:
    """The charges booked under the given (day, trace) nodes."""
    nodes = set(nodes)
    if not nodes:
        return {}
    days = [day for day, _ in nodes]
    trace_ids = uuids(sorted({trace_id for _, trace_id in nodes}))
    cursor = conn.cursor(binary=True)
    rows = cursor.execute(_BOOKED, (project_id, min(days), max(days), trace_ids))
    keyed = (((day, trace_id, span_id), Booked._make(rest)) for day, trace_id, span_id, *rest in rows)
    return {key: booked for key, booked in keyed if key[:2] in nodes}


# -- writing -------------------------------------------------------------------------------------------------------

_COPY = sql.SQL("copy {table} ({columns}) from stdin (format binary)")
_COLUMN_LIST = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
_VALUES = [column for column in COLUMNS if column not in KEY_COLUMNS]
_VALUE_LIST = sql.SQL(", ").join(map(sql.Identifier, _VALUES))

# Emptied before each use: "on commit delete rows" does nothing when the commit is only a savepoint.
_STAGING = "create temporary table if not exists charge_staging (like charge)"
# Rows that are equal are left alone: nothing is written, nothing returned, no cell marked.
_UPSERT = sql.SQL("""
insert into charge ({columns}) select {columns} from charge_staging order by {key}
on conflict ({key}) do update set ({values}) = row({new})
where row({old}) is distinct from row({new})
returning day, uuid_send(trace_id), span_id
""").format(
    columns=_COLUMN_LIST,
    key=sql.SQL(", ").join(map(sql.Identifier, KEY_COLUMNS)),
    values=_VALUE_LIST,
    old=sql.SQL(", ").join(sql.Identifier("charge", column) for column in _VALUES),
    new=sql.SQL(", ").join(sql.Identifier("excluded", column) for column in _VALUES),
)
_DELETE = """
delete from charge using unnest(%s::date[], %s::uuid[], %s::bigint[]) as gone (day, trace_id, span_id)
where charge.project_id = %s and charge.day between %s and %s
and charge.day = gone.day and charge.trace_id = gone.trace_id and charge.span_id = gone.span_id
"""


def write(
    conn: psycopg.Connection, project_id: int, *, rows: Sequence[Row], booked: Mapping[Key, Booked],
    gone: Iterable[Key], reasons: Mapping[bytes, str],
) -> Changes:  # fmt: skip
    """Make ``rows`` the truth for their traces and delete the ``gone`` ones; touch nothing that is equal already.

    ``booked`` is what ``load_booked`` found for the same traces; ``reasons`` says per trace why it was resolved again.
    """
    known_traces = {key[:2] for key in booked}
    fresh = [row for row in rows if row.key[:2] not in known_traces]
    again = [row for row in rows if row.key[:2] in known_traces]
    numbers = kinds.kind_ids(conn, project_id, kinds=[row.kind for row in rows]) if rows else {}
    _copy(conn, "charge", fresh, numbers)
    touched = [row.booked for row in fresh]
    revisions: list[Revision] = []
    for row in _upsert(conn, again, numbers):
        old = booked.get(row.key)
        touched += [row.booked] if old is None else [old, row.booked]
        if old is not None and (old.cost_nano, old.feature) != (row.booked.cost_nano, row.booked.feature):
            revisions.append(Revision(row.key, reasons.get(row.key[1], "new spans"), old, row.booked))
    for key in _delete(conn, project_id, sorted(gone)):
        touched.append(booked[key])
        revisions.append(Revision(key, "merged into another call", booked[key], None))
    return Changes(touched, revisions)


def _copy(conn: psycopg.Connection, table: str, rows: Sequence[Row], numbers: Mapping[bytes, int]) -> None:
    if rows:
        statement = _COPY.format(table=sql.Identifier(table), columns=_COLUMN_LIST)
        last = {digest: _BIGINT.pack(8, number) for digest, number in numbers.items()}
        ordered = sorted(rows, key=_key)
        with conn.cursor().copy(statement) as copy:
            copy.write(_COPY_HEADER + b"".join([row.fields + last[row.kind.digest] for row in ordered]) + _COPY_TRAILER)


def _key(row: Row) -> Key:
    return row.key


def _upsert(conn: psycopg.Connection, rows: Sequence[Row], numbers: Mapping[bytes, int]) -> list[Row]:
    """Write rows that may exist; return those that were new or different."""
    if not rows:
        return []
    conn.execute(_STAGING)
    conn.execute("truncate charge_staging")
    _copy(conn, "charge_staging", rows, numbers)
    changed = set(conn.cursor(binary=True).execute(_UPSERT).fetchall())
    return [row for row in rows if row.key in changed]


def _delete(conn: psycopg.Connection, project_id: int, keys: Sequence[Key]) -> Sequence[Key]:
    if keys:
        days = [day for day, _, _ in keys]
        trace_ids = [trace_id.hex() for _, trace_id, _ in keys]
        span_ids = [span_id for _, _, span_id in keys]
        conn.execute(_DELETE, (days, trace_ids, span_ids, project_id, min(days), max(days)))
    return keys


# -- marks and revisions -------------------------------------------------------------------------------------------

_MARK_CELLS = "insert into dirty_cell (project_id, bucket_at) select %s, unnest(%s::timestamptz[])"
_MARK_ACTORS = "copy dirty_actor (project_id, quarter_at, session_id, user_id) from stdin (format binary)"
_ACTOR = Struct("!hiiiq")  # fields, then project_id and quarter_at, each after its length


def mark_rollups(conn: psycopg.Connection, project_id: int, *, touched: Iterable[Booked]) -> None:
    """Mark the 5-minute cells and the sessions and users of charges as they were and as they are."""
    cells: set[int] = set()
    actors: set[tuple[int, str, str]] = set()
    for start_us, _, _, session_id, user_id in touched:
        cells.add(start_us - start_us % _CELL_US)
        actors.add((start_us - start_us % _QUARTER_US, session_id, user_id))
    if cells:
        conn.execute(_MARK_CELLS, (project_id, [_instant(cell) for cell in sorted(cells)]))
    if actors:
        marks = [
            _ACTOR.pack(4, 4, project_id, 8, quarter) + _text(session_id)[1] + _text(user_id)[1]
            for quarter, session_id, user_id in sorted(actors)
        ]
        with conn.cursor().copy(_MARK_ACTORS) as copy:
            copy.write(_COPY_HEADER + b"".join(marks) + _COPY_TRAILER)


@lru_cache(maxsize=4096)
def _instant(since_epoch_us: int) -> datetime:
    return datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=since_epoch_us)


_INSERT_REVISIONS = """
insert into charge_revision
    (project_id, day, trace_id, span_id, reason, old_cost_nano, new_cost_nano, old_feature, new_feature)
select %s, * from unnest(%s::date[], %s::uuid[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::text[],
                         %s::text[])
"""


def record(conn: psycopg.Connection, project_id: int, *, revisions: Sequence[Revision]) -> None:
    """Append what moved on booked charges to charge_revision."""
    if revisions:
        columns = zip(*map(_revision_fields, revisions), strict=True)
        conn.execute(_INSERT_REVISIONS, (project_id, *map(list, columns)))


def _revision_fields(revision: Revision) -> tuple[object, ...]:
    day, trace_id, span_id = revision.key
    old, new = revision.old, revision.new
    return (
        day, trace_id.hex(), span_id, revision.reason, old.cost_nano, new.cost_nano if new else None,
        old.feature, new.feature if new else None,
    )  # fmt: skip
