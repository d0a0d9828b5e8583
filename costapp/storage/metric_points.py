"""Token counters from metrics: for coverage only, never added to spans."""

from collections.abc import Iterable
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]
PointRow = tuple[int, int, int, int, int, int, bool, str, str, str, str]

_INSERT = """
insert into metric_point (project_id, day, stream, start_ns, time_ns, tokens, is_delta, service, metric,
                          token_type, model)
values (%s, (timestamp '1970-01-01' + %s * interval '1 day')::date, %s, %s, %s, %s, %s, %s, %s, %s, %s)
on conflict do nothing"""
_NANOS_PER_DAY = 86_400_000_000_000
_TIME_NS_MAX = 2**63 - 1


def point_row(
    project_id: int, *, stream: int, start_ns: int, time_ns: int, tokens: int, is_delta: bool, service: str,
    metric: str, token_type: str, model: str,
) -> PointRow:  # fmt: skip
    time_ns = min(time_ns, _TIME_NS_MAX)
    start_ns = min(start_ns, _TIME_NS_MAX)
    day = time_ns // _NANOS_PER_DAY
    return (project_id, day, stream, start_ns, time_ns, tokens, is_delta, service, metric, token_type, model)


def insert_points(conn: Connection, rows: Iterable[PointRow]) -> int:
    """Insert the points that are not stored yet, sorted by key so that two writers cannot deadlock.

    Part of the caller's transaction. Returns how many were new.
    """
    with conn.cursor() as cursor:
        cursor.executemany(_INSERT, sorted(set(rows)))
        return max(cursor.rowcount, 0)
