"""A million calls of one hour as columns, and their shares back as rows: PostgreSQL's binary COPY is read in one go."""

from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import psycopg
from numpy.typing import NDArray

Connection = psycopg.Connection[Any]
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"

#: Every field follows its length. The key comes first, so that its bytes order rows as their keys do.
_CALL = np.dtype([
    ("fields", ">i2"), ("l0", ">i4"), ("day", ">i4"), ("l1", ">i4"), ("high", ">u8"), ("low", ">u8"), ("l2", ">i4"),
    ("span", ">i8"), ("l3", ">i4"), ("target", ">i8"), ("l4", ">i4"), ("start", ">i8"), ("l5", ">i4"),
    ("border", ">i8"), ("l6", ">i4"), ("end", ">i8"), ("l7", ">i4"), ("input", ">i4"), ("l8", ">i4"),
    ("cached", ">i4"), ("l9", ">i4"), ("output", ">i4"),
])  # fmt: skip
_SHARE = np.dtype([
    ("fields", ">i2"), ("l0", ">i4"), ("project", ">i4"), ("l1", ">i4"), ("day", ">i4"), ("l2", ">i4"),
    ("high", ">u8"), ("low", ">u8"), ("l3", ">i4"), ("span", ">i8"), ("l4", ">i4"), ("hour", ">i8"), ("l5", ">i4"),
    ("pool", ">i4"), ("l6", ">i4"), ("nano", ">i8"), ("l7", ">i4"), ("estimate", "u1"),
])  # fmt: skip
_READ = """
copy (select day, trace_id, span_id, target_id, start_us, border_us, end_us, input_tokens, cached_tokens, output_tokens
      from gpu_call where project_id = %s and hour_at = %s and day between %s::date - 1 and %s::date + 1
      order by day, trace_id, span_id) to stdout (format binary)"""
_WRITE = """
copy gpu_share (project_id, day, trace_id, span_id, hour_at, pool_id, gpu_nano, is_estimate) from stdin (format binary)
"""
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
    with conn.cursor().copy(_READ, (project_id, hour_at, day, day)) as copy:
        data = b"".join(copy)
    count = (len(data) - len(_HEADER) - len(_TRAILER)) // _CALL.itemsize
    rows = np.frombuffer(data, _CALL, count=count, offset=len(_HEADER))
    key = np.stack([rows["high"], rows["low"], rows["span"].astype(np.int64).view(np.uint64)], axis=1)
    numbers = (
        rows[name].astype(np.int64) for name in ("target", "start", "border", "end", "input", "cached", "output")
    )
    return CallColumns(rows["day"].astype(np.int64), key.astype(np.uint64), *numbers)


def write_shares(
    conn: Connection, project_id: int, *, hour_at: datetime, pool_id: int, calls: CallColumns,
    chosen: NDArray[np.int64], gpu_nano: NDArray[np.int64], is_estimate: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Add the shares of the ``chosen`` calls (places in ``calls``) in one pool; nothing else of them may be stored."""
    rows = np.zeros(len(chosen), _SHARE)
    rows["fields"] = 8
    for name, length in (("l0", 4), ("l1", 4), ("l2", 16), ("l3", 8), ("l4", 8), ("l5", 4), ("l6", 8), ("l7", 1)):
        rows[name] = length
    rows["project"], rows["day"], rows["pool"] = project_id, calls.day[chosen], pool_id
    rows["high"], rows["low"] = calls.key[chosen, 0], calls.key[chosen, 1]
    rows["span"] = calls.key[chosen, 2].view(np.int64)
    rows["hour"] = int(hour_at.timestamp()) * 1_000_000 - _EPOCH_US
    rows["nano"], rows["estimate"] = gpu_nano, is_estimate
    with conn.cursor().copy(_WRITE) as copy:
        copy.write(_HEADER + rows.tobytes() + _TRAILER)
