"""Rollups are functions of charges: every grain, every zone, whatever happened in between."""

from datetime import UTC, datetime

import pytest

from costapp.services.drain import drain
from tests.pipeline import NOON_NS, SECOND_NS, call, fingerprint, root, store, totals

HOUR_NS = 3600 * SECOND_NS


def test_every_grain_holds_the_same_totals(conn, project):
    store(conn, [call(n, parent=0, start_ns=NOON_NS + n * HOUR_NS // 7) for n in range(1, 200)], project_id=project.id)
    drain(conn)
    sums = "sum(requests)::int, sum(input_tokens)::int, sum(duration_us)::bigint"
    expected = totals(conn, "count(*), sum(input_tokens), sum(duration_us)::bigint")
    for table in ("rollup_5m", "rollup_hour", "rollup_day"):
        assert totals(conn, sums, table) == expected
    for table in ("latency_hour", "latency_day"):
        assert totals(conn, "sum(requests)::int", table) == expected[:1]


@pytest.mark.parametrize(
    ("zone", "first_day", "hours"),
    [
        ("UTC", "2026-03-29T00:00", 24),
        ("Europe/Berlin", "2026-03-28T23:00", 23),
        ("America/New_York", "2026-11-01T04:00", 25),
        ("Asia/Kathmandu", "2026-05-28T18:15", 24),
        ("Australia/Adelaide", "2026-05-28T14:30", 24),
    ],
)
def test_a_day_is_a_day_of_the_projects_time_zone(conn, project, zone, first_day, hours):
    project.time_zone = zone
    project.save()
    start_at = datetime.fromisoformat(first_day).replace(tzinfo=UTC)
    start_ns = int(start_at.timestamp()) * SECOND_NS
    # One call a minute before, at, just before the end of, and at the end of the local day.
    offsets = (-60 * SECOND_NS, 0, hours * HOUR_NS - 1000, hours * HOUR_NS)
    spans = [call(n, parent=0, start_ns=start_ns + at, session="s", user="u") for n, at in enumerate(offsets, 1)]
    store(conn, spans, project_id=project.id)
    drain(conn)
    for table in ("rollup_day", "latency_day", "session_day", "user_day"):
        rows = conn.execute(f"select bucket_at, sum(requests)::int from {table} group by 1 order by 1").fetchall()
        assert [requests for _, requests in rows] == [1, 2, 1], table
        assert rows[1][0] == start_at


def test_a_change_of_time_zone_builds_the_days_again(conn, project):
    store(conn, [call(n, parent=0, start_ns=NOON_NS + n * HOUR_NS, session=f"s{n % 3}") for n in range(40)],
          project_id=project.id)  # fmt: skip
    drain(conn)
    before = fingerprint(conn)
    project.time_zone = "Asia/Kathmandu"
    project.save()
    drain(conn)
    moved = fingerprint(conn)
    assert moved["rollup_hour"] == before["rollup_hour"]
    assert moved["rollup_day"] != before["rollup_day"]
    assert totals(conn, "sum(requests)::int", "rollup_day") == (40,)
    project.time_zone = "UTC"
    project.save()
    drain(conn)
    assert fingerprint(conn) == before


def test_a_late_root_moves_cost_sessions_and_users_without_changing_the_total(conn, project):
    store(conn, [call(1), call(1, 3)], project_id=project.id)
    drain(conn)
    assert totals(conn, "feature, requests::int", "rollup_day") == ("", 2)
    assert totals(conn, "user_id, requests::int", "user_day") == ("", 2)
    store(conn, [root(1, feature="search", user="ann", session="s1")], project_id=project.id)
    drain(conn)
    assert totals(conn, "feature, requests::int", "rollup_day") == ("search", 2)
    assert totals(conn, "user_id, feature, requests::int, sessions::int", "user_day") == ("ann", "search", 2, 1)
    assert totals(conn, "session_id, user_id, requests::int", "session_day") == ("s1", "ann", 2)
    assert totals(conn, "feature, sessions::int, users::int", "activity_day") == ("search", 1, 1)
