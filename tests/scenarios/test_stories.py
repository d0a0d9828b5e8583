"""What happens to money when telemetry misbehaves, told from the first span to the sums."""

import pytest

from costapp.core.values import Role
from costapp.models import RateSet
from costapp.services.drain import drain
from costapp.storage import outbox
from tests.pipeline import NOON_NS, SECOND_NS, call, fingerprint, price, root, store, totals

CALL_NANO = 1000 * 2500 + 100 * 10_000  # 1000 tokens at $2.50, 100 at $10 per million
DAY_NS = 86_400 * SECOND_NS


def days(conn):
    """Cost by feature, as a page reads it."""
    return dict(conn.execute("select feature, sum(cost_nano)::bigint from rollup_day group by 1").fetchall())


@pytest.fixture(autouse=True)
def _prices(project):
    price(project)


def test_a_late_root_moves_cost_from_unattributed_and_the_total_stays(conn, project):
    store(conn, [call(1), call(1, 3), call(2)], project_id=project.id)
    drain(conn)
    assert days(conn) == {"": 3 * CALL_NANO}
    store(conn, [root(1, feature="search", user="ann")], project_id=project.id)
    drain(conn)
    assert days(conn) == {"": CALL_NANO, "search": 2 * CALL_NANO}
    assert conn.execute("select old_feature, new_feature, reason from charge_revision").fetchall() == [
        ("", "search", "new spans"), ("", "search", "new spans"),
    ]  # fmt: skip


def test_a_batch_that_is_sent_again_costs_nothing(conn, project):
    batch = [root(1, feature="search"), call(1), call(1, 3)]
    store(conn, batch, project_id=project.id)
    drain(conn)
    before = fingerprint(conn)
    assert store(conn, batch, project_id=project.id) == 0
    assert outbox.backlog(conn).traces == 0
    drain(conn)
    assert fingerprint(conn) == before


def test_services_that_report_in_any_order_agree_in_the_end(conn, project):
    """web -> agent -> model; each service has its own exporter, and the one at the top is the slowest."""
    spans = [
        root(1, 1, feature="assistant", user="ann", session="s1"),
        root(1, 2, service="agent", name="run", role=Role.AGGREGATE)._replace(parent_id=1),
        call(1, 3, parent=2, service="agent"),
        call(1, 4, parent=2, service="agent"),
    ]
    for span in reversed(spans):
        store(conn, [span], project_id=project.id)
        drain(conn)
    late = fingerprint(conn)
    conn.execute("truncate span, charge")
    conn.execute("insert into dirty_cell (project_id, bucket_at) select project_id, bucket_at from rollup_5m")
    conn.execute(
        "insert into dirty_actor (project_id, quarter_at, session_id, user_id)"
        " select project_id, bucket_at + interval '12 hours', session_id, user_id from session_day"
    )
    drain(conn)
    store(conn, spans, project_id=project.id)
    drain(conn)
    assert fingerprint(conn) == late
    assert days(conn) == {"assistant": 2 * CALL_NANO}


def test_a_gateways_view_of_a_call_is_not_a_second_call(conn, project):
    store(conn, [call(2, parent=0, response_id="same", scope="proxy", user="gateway")], project_id=project.id)
    drain(conn)
    assert days(conn) == {"": CALL_NANO}
    store(conn, [root(1, feature="search"), call(1, response_id="same")], project_id=project.id)
    drain(conn)
    assert sum(days(conn).values()) == CALL_NANO
    assert totals(conn, "count(*)::int, sum(members)::int") == (1, 2)


def test_a_price_correction_and_its_reversal_restore_every_byte(conn, project):
    store(conn, [root(1, feature="search"), call(1)], project_id=project.id)
    drain(conn)
    before = fingerprint(conn)
    rates = RateSet.objects.get()
    for factor in (3, 1):
        rates.rates["input"]["nano"] = 2_500_000_000 * factor
        rates.save()
        outbox.mark_day(conn, project.id, day="2026-05-29", reason="price correction")
        drain(conn)
        assert days(conn) == {"search": 1000 * 2500 * factor + 100 * 10_000}
    assert fingerprint(conn) == before
    assert conn.execute("select reason, new_cost_nano from charge_revision order by id").fetchall() == [
        ("price correction", 1000 * 7500 + 100 * 10_000), ("price correction", CALL_NANO),
    ]  # fmt: skip


def test_an_unpriced_call_is_never_zero_and_is_priced_later(conn, project):
    store(conn, [call(1, model_requested="acme-1", model_responded="acme-1")], project_id=project.id)
    drain(conn)
    assert totals(conn, "cost_nano, cost_status") == (None, 0)
    assert totals(conn, "requests::int, unpriced::int, cost_nano", "rollup_day") == (1, 1, 0)
    RateSet.objects.create(price_list=RateSet.objects.get().price_list, provider="openai", model="acme-1",
                           rates={"input": {"nano": 10**9}, "output": {"nano": 10**9}})  # fmt: skip
    outbox.mark_day(conn, project.id, day="2026-05-29")
    drain(conn)
    assert totals(conn, "requests::int, unpriced::int, cost_nano", "rollup_day") == (1, 0, 1_100_000)


def test_every_dimension_adds_up_to_the_total(conn, project):
    project.time_zone = "Australia/Adelaide"
    project.save()
    spans = [
        span
        for n in range(1, 60)
        for span in (
            root(n, start_ns=NOON_NS + n * DAY_NS // 17, feature=f"f{n % 4}" if n % 5 else None, team=f"t{n % 2}",
                 user=f"u{n % 7}" if n % 3 else None, session=f"s{n % 9}" if n % 4 else None),
            call(n, start_ns=NOON_NS + n * DAY_NS // 17, input=1000 + n, environment=f"e{n % 2}"),
            call(n, 3, start_ns=NOON_NS + n * DAY_NS // 17, model_requested=f"m{n % 3}", model_responded=f"m{n % 3}"),
        )
    ]  # fmt: skip
    store(conn, spans, project_id=project.id)
    drain(conn)
    sums = "sum(cost_nano)::bigint, sum(requests)::bigint, sum(unpriced)::bigint"
    expected = totals(conn, "sum(cost_nano)::bigint, count(*), count(*) - count(cost_nano)")
    for table in ("rollup_5m", "rollup_hour", "rollup_day", "user_day"):
        assert totals(conn, sums, table) == expected
    assert totals(conn, sums, "session_day") == totals(
        conn, "sum(cost_nano)::bigint, count(*), count(*) - count(cost_nano)", "charge where session_id <> ''"
    )
    for dimension in ("feature", "user_id", "session_id"):
        table = {"feature": "rollup_day", "user_id": "user_day", "session_id": "session_day"}[dimension]
        by_sums = conn.execute(f"select {dimension}, sum(requests)::int from {table} group by 1 order by 1").fetchall()
        by_charges = conn.execute(
            f"select {dimension}, count(*)::int from charge where {dimension} <> '' or '{table}' <> 'session_day'"
            " group by 1 order by 1"
        ).fetchall()
        assert by_sums == by_charges


def test_client_reported_cost_counts_only_where_the_project_says_so(conn, project):
    store(conn, [call(1, reported_nano=7, reported_source="llm.cost")], project_id=project.id)
    drain(conn)
    assert totals(conn, "cost_nano, reported_nano") == (CALL_NANO, 7)
    project.reported_cost_counts = True
    project.save()
    outbox.mark_day(conn, project.id, day="2026-05-29")
    drain(conn)
    assert totals(conn, "cost_nano, cost_status") == (7, 3)
    assert totals(conn, "cost_nano::int, reported_nano::int", "rollup_day") == (7, 7)
