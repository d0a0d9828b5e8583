"""Partitions are made ahead and for history, and dropped whole."""

from datetime import date, timedelta

import pytest

from costapp.services.drain import drain
from costapp.services.retention import Keep, apply_retention, make_partitions
from costapp.services.verify_ledger import verify
from costapp.storage import outbox, partitions
from tests.pipeline import NOON_NS, SECOND_NS, call, drop_partitions, fingerprint, open_connection, root, store, totals

DAY = date(2026, 5, 29)  # of NOON_NS
DAY_NS = 86_400 * SECOND_NS
KEEP_ONE_DAY = Keep(span=1, span_content=1, charge=400, metric_point=400)


@pytest.fixture(autouse=True)
def _drop_partitions(conn):
    drop_partitions(conn)
    yield
    drop_partitions(conn)


def test_a_day_of_spans_and_a_month_of_charges_get_a_partition_each(conn):
    made = partitions.ensure_partitions(conn, [DAY, DAY + timedelta(days=1)])
    assert made == [
        "span_20260529", "span_20260530", "span_content_20260529", "span_content_20260530", "charge_202605",
        "metric_point_202605", "gpu_call_202605", "gpu_share_202605", "gpu_sample_20260529",
        "gpu_sample_20260530", "gpu_gap_202605", "engine_sample_20260529", "engine_sample_20260530",
    ]  # fmt: skip
    assert partitions.ensure_partitions(conn, [DAY]) == []


def test_december_ends_with_the_year(conn):
    assert partitions.partition_of("charge", date(2026, 12, 31)).end_day == date(2027, 1, 1)


def test_rows_that_came_first_move_out_of_the_default_partition(conn, project):
    store(conn, [root(1), call(1)], project_id=project.id)
    drain(conn)
    before = fingerprint(conn)
    assert partitions.waiting_days(conn, "span") == [DAY]
    partitions.ensure_partitions(conn, [DAY])
    assert partitions.waiting_days(conn, "span") == partitions.waiting_days(conn, "charge") == []
    assert totals(conn, "count(*)::int", "span_20260529") == (2,)
    assert fingerprint(conn) == before
    store(conn, [call(1, 7)], project_id=project.id)
    drain(conn)
    assert totals(conn, "count(*)::int", "charge_202605") == (2,)


def test_waiting_rows_get_their_partitions_by_the_daily_job(conn, project):
    store(conn, [call(1)], project_id=project.id)
    made = make_partitions(conn, today=date(2026, 11, 21))
    assert "span_20260529" in made
    assert {"span_20261119", "span_20261121", "span_20261205", "charge_202611", "charge_202612"} <= set(made)


def test_making_partitions_gives_up_instead_of_blocking_everyone_behind_a_reader(conn, monkeypatch):
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(partitions, "ATTEMPTS", 2)
    with open_connection() as reader, reader.transaction():
        reader.execute("select count(*) from span")
        with pytest.raises(partitions.RETRYABLE):
            partitions.ensure_partitions(conn, [DAY], tables=["span"])
    assert partitions.existing(conn, "span") == []
    assert partitions.ensure_partitions(conn, [DAY], tables=["span"]) == ["span_20260529"]


def test_expired_days_are_dropped_and_remembered(conn, project):
    for n in range(3):
        store(conn, [call(n, start_ns=NOON_NS + n * DAY_NS)], project_id=project.id)
    drain(conn)
    assert apply_retention(conn, keep=KEEP_ONE_DAY, today=DAY + timedelta(days=2)) == ["span_20260529"]
    assert partitions.horizon(conn, "span") == date(2026, 5, 30)
    assert totals(conn, "count(*)::int", "span") == (2,)
    assert totals(conn, "count(*)::int") == (3,)
    assert apply_retention(conn, keep=KEEP_ONE_DAY, today=DAY + timedelta(days=2)) == []


def test_charges_whose_spans_have_expired_are_closed(conn, project):
    store(conn, [root(1, feature="search"), call(1, 2), call(1, 3)], project_id=project.id)
    drain(conn)
    before = fingerprint(conn)
    apply_retention(conn, keep=KEEP_ONE_DAY, today=DAY + timedelta(days=9))
    # A collector sends the old batch again, another root tries to take the calls, and one call is really new.
    store(conn, [call(1, 2), root(1, 9, feature="stolen")], project_id=project.id)
    drain(conn)
    assert fingerprint(conn) == before
    store(conn, [call(1, 4)], project_id=project.id)
    drain(conn)
    assert totals(conn, "count(*)::int, count(*) filter (where feature = 'search')::int") == (3, 2)


def test_a_trace_that_lost_its_first_day_keeps_its_attribution(conn, project):
    midnight_ns = NOON_NS + DAY_NS // 2
    store(conn, [root(1, start_ns=midnight_ns - SECOND_NS, feature="night"), call(1, start_ns=midnight_ns + SECOND_NS)],
          project_id=project.id)  # fmt: skip
    drain(conn)
    before = fingerprint(conn)
    apply_retention(conn, keep=KEEP_ONE_DAY, today=DAY + timedelta(days=2))
    assert outbox.mark_day(conn, project.id, day=DAY + timedelta(days=1)) == 1
    drain(conn)
    assert fingerprint(conn) == before


def test_sums_outlive_the_charges_they_were_made_of(conn, project):
    store(conn, [call(1, session="s", user="u"), call(2, start_ns=NOON_NS + 40 * DAY_NS)], project_id=project.id)
    drain(conn)
    keep = Keep(span=400, span_content=400, charge=9, metric_point=9)
    assert apply_retention(conn, keep=keep, today=date(2026, 7, 10)) == ["charge_202605"]
    assert totals(conn, "count(*)::int") == (1,)
    assert totals(conn, "sum(requests)::int", "rollup_day") == (2,)
    store(conn, [call(3, session="s", user="u")], project_id=project.id)  # thirteen months too late
    drain(conn)
    assert totals(conn, "sum(requests)::int", "rollup_day") == (2,)
    assert [one.result.check.name for one in verify(conn) if one.result.differences] == []
