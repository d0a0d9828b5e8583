"""A million calls of one hour as columns, and their shares back as rows, in PostgreSQL's binary formats."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray

Connection = psycopg.Connection[Any]
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"

#: Every field follows its length.
_SHARE = np.dtype([
    ("fields", ">i2"), ("l0", ">i4"), ("project", ">i4"), ("l1", ">i4"), ("day", ">i4"), ("l2", ">i4"),
    ("high", ">u8"), ("low", ">u8"), ("l3", ">i4"), ("span", ">i8"), ("l4", ">i4"), ("hour", ">i8"), ("l5", ">i4"),
    ("pool", ">i4"), ("l6", ">i4"), ("nano", ">i8"), ("l7", ">i4"), ("estimate", "u1"),
])  # fmt: skip
#: An array of a binary result: this many bytes of header, then each element after its length.
_ARRAY_HEADER = 20
_INT4, _INT8 = np.dtype([("length", ">i4"), ("value", ">i4")]), np.dtype([("length", ">i4"), ("value", ">i8")])
_UUID = np.dtype([("length", ">i4"), ("high", ">u8"), ("low", ">u8")])
#: One array per column: a tenth of the time of a million rows.
_READ = """
select array_agg(day), array_agg(trace_id), array_agg(span_id), array_agg(target_id), array_agg(start_us),
       array_agg(border_us), array_agg(end_us), array_agg(input_tokens), array_agg(cached_tokens),
       array_agg(output_tokens)
from (select * from gpu_call where project_id = %s and hour_at = %s and day between %s::date - 1 and %s::date + 1
      order by day, trace_id, span_id) calls"""
_ROWS_PER_WRITE = 100_000
_COLUMNS = "project_id, day, trace_id, span_id, hour_at, pool_id, gpu_nano, is_estimate"
_WRITE = f"copy {{}} ({_COLUMNS}) from stdin (format binary)"
_EPOCH_US = 946_684_800_000_000


class CallColumns(NamedTuple):
    """The calls of one hour in the order of their keys."""

    day: NDArray[np.int64]  # since 2000-01-01
    key: NDArray[np.uint64]  # (n, 3): both halves of the trace id, and the span id
    target: NDArray[np.int64]
    start_us: NDArray[np.int64]
    border_us: NDArray[np.int64]
    end_us: NDArray[np.int64]
    input_tokens: NDArray[np.int64]
    cached_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]


def load_calls(conn: Connection, project_id: int, *, hour_at: datetime) -> CallColumns:
    day = hour_at.date()
    cursor = conn.cursor(binary=True).execute(_READ, (project_id, hour_at, day, day))
    arrays = [_array(cursor, column, kind) for column, kind in enumerate((_INT4, _UUID, *(_INT8,) * 5, *(_INT4,) * 3))]
    days, traces, spans, *numbers = arrays
    key = np.empty((len(days), 3), np.uint64)
    key[:, 0], key[:, 1] = traces["high"], traces["low"]
    key[:, 2] = spans["value"].astype(np.int64).view(np.uint64)
    columns = (column["value"].astype(np.int64) for column in numbers)
    return CallColumns(days["value"].astype(np.int64), key, *columns)


def _array(cursor: psycopg.Cursor[Any], column: int, kind: np.dtype[Any]) -> NDArray[Any]:
    assert cursor.pgresult is not None
    data = cursor.pgresult.get_value(0, column)
    return np.frombuffer(data, kind, offset=_ARRAY_HEADER) if data else np.empty(0, kind)  # null: no rows


class Shares(NamedTuple):
    """What the calls of an hour were attributed in one pool; ``chosen`` are places in the call columns."""

    pool_id: int
    chosen: NDArray[np.int64]
    gpu_nano: NDArray[np.int64]
    is_estimate: NDArray[np.bool_]


_HAS_SHARES = """
select exists (select from gpu_share where project_id = %(project_id)s and hour_at = %(hour)s and {near})"""
_NEAR = "day between %(day)s::date - 1 and %(day)s::date + 1"
_STAGING = """
create temp table if not exists gpu_share_new (like gpu_share);
create temp table if not exists gpu_share_diff (
    hour_at timestamptz, day date, trace_id uuid, span_id bigint, pool_id int, gpu_nano bigint, is_estimate boolean);
truncate gpu_share_new"""
# gpu_nano is null: there is no such share any more
_DIFFER = f"""
insert into gpu_share_diff
select %(hour)s, day, trace_id, span_id, pool_id, new.gpu_nano, new.is_estimate
from (select day, trace_id, span_id, pool_id, gpu_nano, is_estimate from gpu_share
      where project_id = %(project_id)s and hour_at = %(hour)s and {_NEAR}) old
full join gpu_share_new new using (day, trace_id, span_id, pool_id)
where (old.gpu_nano, old.is_estimate) is distinct from (new.gpu_nano, new.is_estimate)"""
_DELETE = f"""
delete from gpu_share share using gpu_share_diff diff
where share.project_id = %(project_id)s and share.hour_at = %(hour)s and diff.hour_at = %(hour)s and share.{_NEAR}
  and share.day = diff.day and share.trace_id = diff.trace_id and share.span_id = diff.span_id
  and share.pool_id = diff.pool_id"""
_INSERT = f"""
insert into gpu_share ({_COLUMNS})
select %(project_id)s, day, trace_id, span_id, hour_at, pool_id, gpu_nano, is_estimate
from gpu_share_diff where hour_at = %(hour)s and gpu_nano is not null"""


def replace_shares(
    conn: Connection, project_id: int, *, hour_at: datetime, calls: CallColumns, shares: Sequence[Shares]
) -> bool:
    """Make these the shares of an hour, and write only what differs.

    True: it had others, and those that differ are noted in gpu_share_diff, for as long as this session lives.
    """
    values = {"project_id": project_id, "hour": hour_at, "day": hour_at.date()}
    found = conn.execute(_HAS_SHARES.format(near=_NEAR).encode(), values).fetchone()
    assert found is not None
    table = "gpu_share"
    if found[0]:
        table = "gpu_share_new"
        conn.execute(_STAGING)
        conn.execute("delete from gpu_share_diff where hour_at = %(hour)s", values)
    for share in shares:
        _copy(conn, table, _share_rows(project_id, hour_at, calls, share))
    if found[0]:
        conn.execute("analyze gpu_share_new")
        changed = conn.execute(_DIFFER.encode(), values).rowcount
        if changed:
            conn.execute("analyze gpu_share_diff")
            conn.execute(_DELETE.encode(), values)
            conn.execute(_INSERT.encode(), values)
    return bool(found[0])


def _share_rows(project_id: int, hour_at: datetime, calls: CallColumns, share: Shares) -> NDArray[Any]:
    chosen = share.chosen
    rows = np.zeros(len(chosen), _SHARE)
    rows["fields"] = 8
    for name, length in (("l0", 4), ("l1", 4), ("l2", 16), ("l3", 8), ("l4", 8), ("l5", 4), ("l6", 8), ("l7", 1)):
        rows[name] = length
    rows["project"], rows["day"], rows["pool"] = project_id, calls.day[chosen], share.pool_id
    rows["high"], rows["low"] = calls.key[chosen, 0], calls.key[chosen, 1]
    rows["span"] = calls.key[chosen, 2].view(np.int64)
    rows["hour"] = int(hour_at.timestamp()) * 1_000_000 - _EPOCH_US
    rows["nano"], rows["estimate"] = share.gpu_nano, share.is_estimate
    return rows


def _copy(conn: Connection, table: str, rows: NDArray[Any]) -> None:
    with conn.cursor().copy(_WRITE.format(table).encode()) as copy:
        copy.write(_HEADER)
        for first in range(0, len(rows), _ROWS_PER_WRITE):
            copy.write(rows[first : first + _ROWS_PER_WRITE].tobytes())
        copy.write(_TRAILER)
