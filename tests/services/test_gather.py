"""Which traces are looked at together."""

from costapp.core.calls import resolve
from costapp.services import attribute, gather
from costapp.services.drain import drain
from costapp.storage import charges, outbox, traces
from tests.pipeline import NOON_NS, SECOND_NS, call, fingerprint, root, store, totals

DAY_NS = 86_400 * SECOND_NS


def test_chains_of_twins_are_one_set(conn, project):
    """1 - 2 share a response, 2 - 3 another one: the three are resolved together, from whichever is marked."""
    spans = [call(1, response_id="a"), call(2, response_id="a")]
    spans += [call(2, 3, response_id="b"), call(3, 3, response_id="b")]
    store(conn, spans, project_id=project.id)
    with conn.transaction():
        found = gather.Gatherer(conn, project.id, try_lock=lambda shard: True).gather(
            [(outbox.claim(conn, 3, limit=1)[0].day, call(3).trace_id)]
        )
    assert [len(one.spans) for one in found.sets] == [4]


def test_a_response_id_that_many_traces_carry_joins_none_of_them(conn, project):
    """A mock that always answers with the same id must not become one giant set, nor one charge."""
    for n in range(1, gather.TRACES_PER_RESPONSE + 20):
        store(conn, [root(n, feature="mock"), call(n, response_id="chatcmpl-123")], project_id=project.id)
        if n % 5 == 0:
            drain(conn)
    drain(conn)
    assert totals(conn, "count(*)::int, max(coalesce(members, 1))::int") == (gather.TRACES_PER_RESPONSE + 19, 1)
    one_by_one = fingerprint(conn)
    outbox.mark_day(conn, project.id, day="2026-05-29")
    conn.execute("truncate shared_response")
    assert drain(conn) == 0
    assert fingerprint(conn) == one_by_one
    assert totals(conn, "count(*)::int", "shared_response")[0] > 0


def test_a_trace_over_several_midnights_is_one_set_wherever_the_mark_is(conn, project):
    spans = [root(1, feature="long run", start_ns=NOON_NS)]
    spans += [call(1, n, start_ns=NOON_NS + n * DAY_NS // 2) for n in range(2, 9)]
    for span in reversed(spans):
        store(conn, [span], project_id=project.id)
        drain(conn)
    assert totals(conn, "count(*)::int, min(feature), max(feature)") == (7, "long run", "long run")


def test_twins_on_both_sides_of_midnight_are_one_charge(conn, project):
    late_ns = NOON_NS + DAY_NS // 2
    store(conn, [call(1, response_id="same", start_ns=late_ns - 1000)], project_id=project.id)
    drain(conn)
    store(conn, [call(2, response_id="same", start_ns=late_ns + 1000, scope="proxy")], project_id=project.id)
    drain(conn)
    assert totals(conn, "count(*)::int, sum(members)::int") == (1, 2)


def test_a_runaway_trace_is_charged_span_by_span_and_reported(conn, project, monkeypatch):
    monkeypatch.setattr(traces, "SPANS_PER_TRACE", 20)
    monkeypatch.setattr(traces, "PAGE_ROWS", 25)
    monkeypatch.setattr(attribute, "PAGE_SPANS", 7)
    store(conn, [root(1, feature="loop")], project_id=project.id)
    store(conn, [root(17, feature="twin"), call(17, response_id="same")], project_id=project.id)
    for first in range(2, 82, 20):
        spans = [call(1, n, response_id="same" if n == 2 else f"r{n}") for n in range(first, first + 20)]
        store(conn, [*spans, root(33 + first * 16), call(33 + first * 16)], project_id=project.id)
        drain(conn)
    assert totals(conn, "count(*)::int", "charge where trace_id = '00000000-0000-0000-0000-000000000001'") == (80,)
    assert totals(conn, "max(feature)", "charge where trace_id = '00000000-0000-0000-0000-000000000001'") == ("",)
    assert totals(conn, "feature", "charge where trace_id = '00000000-0000-0000-0000-000000000011'") == ("twin",)
    assert totals(conn, "kind, detail", "odd_trace") == ("oversize", "81")
    assert totals(conn, "count(*)::int") == (80 + 1 + 4,)


def test_a_runaway_trace_rests_between_two_readings(conn, project, monkeypatch):
    monkeypatch.setattr(traces, "SPANS_PER_TRACE", 3)
    monkeypatch.setattr(traces, "PAGE_ROWS", 4)
    store(conn, [call(1, n) for n in range(2, 2002)], project_id=project.id)
    assert attribute.attribute_shards(conn, [1], limit=9).charges == 2000
    store(conn, [call(1, 5000)], project_id=project.id)
    again = attribute.attribute_shards(conn, [1], limit=9)
    assert (again.marks, again.deferred, outbox.backlog(conn).traces) == (0, 1, 1)
    drain(conn)
    assert totals(conn, "count(*)::int") == (2001,)


def test_a_trace_that_cannot_be_resolved_does_not_stop_the_others(conn, project, monkeypatch, caplog):
    def fail_for_one(spans, **rules):
        if spans[0].trace_id == call(1).trace_id:
            raise ValueError("unheard of")
        return resolve(spans, **rules)

    monkeypatch.setattr(attribute, "resolve", fail_for_one)
    store(conn, [call(1), call(17)], project_id=project.id)
    drain(conn)
    assert totals(conn, "count(*)::int") == (1,)
    assert totals(conn, "kind, detail", "odd_trace") == ("failed", "ValueError: unheard of")
    monkeypatch.undo()
    outbox.mark_day(conn, project.id, day="2026-05-29")
    drain(conn)
    assert totals(conn, "count(*)::int", "odd_trace") == (0,)
    assert totals(conn, "count(*)::int") == (2,)
    assert "could not be resolved" in caplog.text


def test_a_charge_that_the_database_refuses_does_not_stop_the_others(conn, project, monkeypatch, caplog):
    """A defect in pricing: components that do not add up. The constraint refuses the row, and only its trace waits."""

    sound = charges.encode

    def encode(project_id, each, priced):
        if each.trace_id == call(17).trace_id:
            priced = priced._replace(status=1, cost_nano=5)
        return sound(project_id, each, priced)

    monkeypatch.setattr(charges, "encode", encode)
    store(conn, [call(1), call(17), call(33), call(2)], project_id=project.id)
    assert attribute.attribute_pending(conn, group=0, groups=1, budget_s=9) == 3
    assert totals(conn, "kind", "odd_trace") == ("failed",)
    assert "charge_is_sum_of_components" in caplog.text
    assert outbox.backlog(conn).traces == 0
