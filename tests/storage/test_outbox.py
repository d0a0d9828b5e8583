"""Marks: claimed in order, coalesced, given back with their age."""

from datetime import UTC, date, datetime

from costapp.storage import outbox, spans
from costapp.storage.outbox import Mark
from tests.pipeline import call, store, trace_id

DAY = date(2026, 5, 29)


def test_both_writers_of_marks_agree_on_the_shards():
    assert spans.SHARDS == outbox.SHARDS


def test_marks_are_claimed_in_order_up_to_a_limit(conn, project):
    for n in (1, 17, 33, 2):
        store(conn, [call(n)], project_id=project.id)
    with conn.transaction():
        assert [mark.trace_id for mark in outbox.claim(conn, 1, limit=2)] == [trace_id(1), trace_id(17)]
    assert [mark.trace_id for mark in outbox.claim(conn, 1, limit=2)] == [trace_id(33)]
    assert outbox.marked_shards(conn) == [2]


def test_repeated_marks_of_a_trace_are_one_with_the_oldest_age_and_the_stated_reason():
    old, new = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    key = b"x" * 16
    marks = [Mark(1, DAY, key, new, None), Mark(1, DAY, key, old, "reprice"), Mark(2, DAY, key, new, None)]
    assert outbox.coalesce(marks) == [Mark(1, DAY, key, old, "reprice"), Mark(2, DAY, key, new, None)]


def test_marks_that_are_put_back_come_again_unchanged(conn, project):
    store(conn, [call(1), call(17)], project_id=project.id)
    marks = outbox.claim(conn, 1, limit=10)
    outbox.put_back(conn, marks)
    assert outbox.claim(conn, 1, limit=10) == marks


def test_a_day_can_be_marked_as_a_whole(conn, project):
    store(conn, [call(1), call(1, 3), call(2)], project_id=project.id)
    for shard in (1, 2):
        outbox.claim(conn, shard, limit=10)
    assert outbox.mark_day(conn, project.id, day=DAY, reason="price correction") == 2
    assert [mark[:3] + mark[4:] for mark in outbox.claim(conn, 2, limit=10)] == [
        (project.id, DAY, trace_id(2), "price correction")
    ]


def test_the_backlog_tells_how_much_waits_and_since_when(conn, project):
    assert outbox.backlog(conn) == (0, 0, 0, None)
    store(conn, [call(1), call(2)], project_id=project.id)
    conn.execute("update dirty_trace set marked_at = '2026-01-01 00:00+00' where shard = 1")
    assert outbox.backlog(conn) == (2, 0, 0, datetime(2026, 1, 1, tzinfo=UTC))
