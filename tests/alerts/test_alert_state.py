"""State, timeline and outbox of alerts change together, once, and in the order of the story."""

import threading
from datetime import timedelta

import psycopg
import pytest

from costapp.core.alerts import EventKind, Fact, Level, Source, bounded_key
from costapp.models import Channel, Project, Silence
from costapp.services import alerts
from costapp.storage import alerts as store
from tests import pipeline
from tests.alerts.conftest import NOW, finding, rows

MINUTE = timedelta(minutes=1)


def open_one(conn, found, *channel_ids, now=NOW):
    with conn.transaction():
        return alerts.open_alerts(conn, [found], {found.key: channel_ids}, now)


def sent(conn):
    """Marks everything pending as sent, as the delivery would."""
    conn.execute("update notification set state = 'sent', sent_at = next_at, message_id = id where state = 'pending'")


def states(conn):
    return rows(
        conn,
        "select event.kind, note.state, note.held_by from notification note"
        " join alert_event event on event.id = note.event_id order by note.id",
    )


def test_an_alert_its_timeline_and_its_message_are_one_transaction(conn, project, channel):
    with conn.transaction(force_rollback=True):
        alerts.open_alerts(conn, [finding(project)], {finding(project).key: [channel.pk]}, NOW)
    counts = "select (select count(*) from alert), (select count(*) from alert_event), count(*) from notification"
    assert rows(conn, counts) == [(0, 0, 0)]
    assert open_one(conn, finding(project), channel.pk) == [finding(project).key]
    assert rows(conn, counts) == [(1, 1, 1)]


def test_without_a_transaction_nothing_is_written(conn, project):
    with pytest.raises(RuntimeError, match="transaction"):
        alerts.open_alerts(conn, [finding(project)], {}, NOW)


def test_the_same_firing_is_opened_once_and_never_again_after_it_was_resolved(conn, project, channel):
    assert open_one(conn, finding(project), channel.pk)
    assert open_one(conn, finding(project), channel.pk) == []
    with conn.transaction():
        alerts.resolve(conn, project.pk, [finding(project).key], {}, NOW)
    assert open_one(conn, finding(project), channel.pk) == []
    assert rows(conn, "select state from alert") == ["resolved"]


def test_two_workers_that_find_the_same_at_once_open_it_once(conn, project, channel):
    found = [finding(project, key=f"rule/1/f{n}/x") for n in range(300)]
    opened, barrier = [], threading.Barrier(2)

    def work(findings):
        with pipeline.open_connection() as own:
            barrier.wait()
            with own.transaction():
                opened.extend(alerts.open_alerts(own, findings, {f.key: [channel.pk] for f in findings}, NOW))

    threads = [threading.Thread(target=work, args=(order,)) for order in (found, found[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(opened) == sorted(f.key for f in found)
    assert rows(conn, "select count(*), count(distinct dedupe_key) from notification") == [(300, 300)]


class Counting(psycopg.Cursor):
    statements = 0

    def execute(self, *args, **options):
        Counting.statements += 1
        return super().execute(*args, **options)


def test_thousands_of_findings_take_a_handful_of_statements(conn, project, channel):
    conn.cursor_factory = Counting
    found = [finding(project, key=f"rule/{n}") for n in range(3000)]
    with conn.transaction():
        assert len(alerts.open_alerts(conn, found, {f.key: [channel.pk] for f in found}, NOW)) == 3000
    assert 0 < Counting.statements < 10
    assert rows(conn, "select count(*) from notification") == [3000]


def test_a_storm_is_not_quadratic_although_the_database_has_no_statistics_of_it(conn, project, channel):
    """Tables grew by the storm itself; each row must still be looked up by its whole key."""
    found = [finding(project, key=f"rule/{n}") for n in range(1000)]
    with conn.transaction():
        alerts.open_alerts(conn, found, {f.key: [channel.pk] for f in found}, NOW)
    ids = rows(conn, "select id from notification")
    values = {"project_ids": [project.pk] * len(ids), "ids": ids, "now": NOW}
    explained = conn.execute("explain (analyze, buffers, format json) " + store._SUPPRESS, values).fetchone()
    assert explained[0][0]["Plan"]["Shared Hit Blocks"] < 40 * len(ids)


def test_an_alert_of_one_project_is_never_sent_to_a_channel_of_another(conn, project):
    other = Project.objects.create(slug="other", name="Other")
    foreign = Channel.objects.create(project=other, name="theirs", kind=Channel.Kind.WEBHOOK)
    open_one(conn, finding(project), foreign.pk)
    assert rows(conn, "select count(*) from notification") == [0]


def test_a_channel_gets_only_what_is_severe_enough_for_it(conn, project):
    pager = Channel.objects.create(project=project, name="pager", kind="webhook", least_level="critical")
    open_one(conn, finding(project), pager.pk)
    assert states(conn) == []
    with conn.transaction():
        alerts.change_level(conn, project.pk, finding(project).key, Level.CRITICAL, "Worse.", (), NOW)
    assert states(conn) == [("escalated", "pending", "")]


def test_getting_worse_ends_acknowledgement_and_does_not_wait(conn, project, channel):
    open_one(conn, finding(project), channel.pk)
    sent(conn)
    alert_id = rows(conn, "select id from alert")[0]
    with conn.transaction():
        assert alerts.acknowledge(conn, project.pk, alert_id, "mia", NOW)
        assert not alerts.acknowledge(conn, project.pk, alert_id, "mia", NOW)
    with conn.transaction():
        alerts.remind(conn, project.pk, [finding(project).key], NOW + MINUTE)
    assert states(conn)[-1] == ("reminded", "suppressed", "snooze")
    later = NOW + 2 * MINUTE
    with conn.transaction():
        alerts.change_level(
            conn, project.pk, finding(project).key, Level.CRITICAL, "Now $120.", (Fact("Cost", "$120"),), later
        )
    assert states(conn)[-1] == ("escalated", "pending", "")
    assert rows(conn, "select acknowledged_at, level, detail -> 'facts' from alert") == [
        (None, "critical", [["Cost", "$120"]])
    ]
    assert rows(conn, "select next_at from notification order by id desc limit 1") == [later]


def test_new_figures_at_the_same_level_are_no_event(conn, project, channel):
    open_one(conn, finding(project), channel.pk)
    with conn.transaction():
        alerts.change_level(conn, project.pk, finding(project).key, Level.WARNING, "Cost is $82.", (), NOW)
    assert rows(conn, "select title from alert") == ["Cost is $82."]
    assert rows(conn, "select kind from alert_event") == ["opened"]


def test_a_snooze_stops_reminders_until_it_ends(conn, project, channel):
    open_one(conn, finding(project), channel.pk)
    sent(conn)
    alert_id = rows(conn, "select id from alert")[0]
    with conn.transaction():
        assert alerts.snooze(conn, project.pk, alert_id, NOW + 60 * MINUTE, "mia", NOW)
        alerts.remind(conn, project.pk, [finding(project).key], NOW + MINUTE)
    with conn.transaction():
        alerts.remind(conn, project.pk, [finding(project).key], NOW + 61 * MINUTE)
    assert [state for _, state, _ in states(conn)] == ["sent", "suppressed", "pending"]
    assert rows(conn, "select actor from alert_event where kind = 'snoozed'") == ["mia"]


def test_a_message_waits_for_its_group_but_that_of_a_budget_does_not(conn, project, channel, settings):
    settings.ALERT_GROUP_WAIT_S = 30
    open_one(conn, finding(project), channel.pk)
    open_one(conn, finding(project, key="budget/1/x", source=Source.BUDGET), channel.pk)
    waits = rows(conn, "select next_at from notification order by id")
    assert waits == [NOW + timedelta(seconds=30), NOW]


def test_a_second_message_of_a_group_keeps_its_distance(conn, project, channel):
    open_one(conn, finding(project), channel.pk)
    sent(conn)
    open_one(conn, finding(project, key="rule/1/other/x"), channel.pk, now=NOW + MINUTE)
    [first, second] = rows(conn, "select next_at from notification order by id")
    assert second - first == timedelta(seconds=300)


def silence(project, **fields):
    return Silence.objects.create(
        project=project, **({"starts_at": NOW - MINUTE, "ends_at": NOW + 60 * MINUTE, "reason": "deploy"} | fields)
    )


@pytest.mark.parametrize(
    ("matcher", "matches"),
    [
        ({}, True),
        ({"subject": {"feature": "support-bot"}}, True),
        ({"subject": {"feature": "search"}}, False),
        ({"source": "rule"}, True),
        ({"source": "budget"}, False),
        ({"source": "rule", "source_id": 1}, True),
        ({"source": "rule", "source_id": 2}, False),
        ({"level": "warning"}, True),
        ({"level": "info"}, False),
        ({"group_key": "rule/1"}, True),
        ({"group_key": "rule/2"}, False),
        ({"starts_at": NOW + MINUTE}, False),
        ({"ends_at": NOW}, False),
    ],
)
def test_a_silence_holds_back_what_it_matches_and_says_so(conn, project, channel, matcher, matches):
    silence(project, **matcher)
    open_one(conn, finding(project), channel.pk)
    assert states(conn) == [("opened", "suppressed", "silence") if matches else ("opened", "pending", "")]
    if matches:
        [reason] = rows(conn, "select reason from notification")
        assert reason.startswith("Silenced until 2026-05-29")
        assert reason.endswith("deploy")


def test_a_silence_of_another_project_does_not_matter(conn, project, channel):
    silence(Project.objects.create(slug="other", name="Other"))
    open_one(conn, finding(project), channel.pk)
    assert states(conn) == [("opened", "pending", "")]


def test_what_is_still_open_when_the_silence_ends_is_told_then(conn, project, channel):
    silence(project)
    open_one(conn, finding(project), channel.pk)
    open_one(conn, finding(project, key="rule/1/gone/x"), channel.pk)
    with conn.transaction():
        alerts.resolve(conn, project.pk, ["rule/1/gone/x"], {}, NOW + MINUTE)
        store.release_due(conn, [project.pk], NOW + 59 * MINUTE)
    assert states(conn) == [("opened", "suppressed", "silence")] * 2
    with conn.transaction():
        store.release_due(conn, [project.pk], NOW + 60 * MINUTE)
    assert states(conn) == [("opened", "pending", ""), ("opened", "suppressed", "silence")]


def test_children_of_a_firing_parent_send_nothing_until_it_is_over(conn, project, channel):
    parent = finding(project, key="rule/1/all/x", subject={})
    child = finding(project, parent_key="rule/1/all/x")
    with conn.transaction():
        alerts.open_alerts(conn, [child, parent], {f.key: [channel.pk] for f in (child, parent)}, NOW)
    assert sorted(states(conn)) == [("opened", "pending", ""), ("opened", "suppressed", "parent")]
    sent(conn)
    with conn.transaction():
        alerts.resolve(conn, project.pk, [parent.key], {}, NOW + MINUTE)
    assert sorted(states(conn)) == [
        ("opened", "pending", ""), ("opened", "sent", ""), ("resolved", "pending", ""),
    ]  # fmt: skip


def test_a_child_speaks_where_its_parent_does_not(conn, project, channel):
    other = Channel.objects.create(project=project, name="team", kind="webhook")
    parent, child = finding(project, key="all", subject={}), finding(project, parent_key="all")
    with conn.transaction():
        alerts.open_alerts(conn, [parent, child], {"all": [channel.pk], child.key: [other.pk]}, NOW)
    assert states(conn) == [("opened", "pending", "")] * 2


def test_the_end_is_told_only_where_the_beginning_was(conn, project, channel):
    silence(project)
    open_one(conn, finding(project), channel.pk)
    Silence.objects.all().delete()
    with conn.transaction():
        alerts.resolve(conn, project.pk, [finding(project).key], {finding(project).key: "Over: $2.10 now."}, NOW)
    assert [kind for kind, _, _ in states(conn)] == ["opened"]
    assert rows(conn, "select kind, title from alert_event order by id")[-1] == ("resolved", "Over: $2.10 now.")


def test_keys_and_names_of_any_length_are_kept_apart(conn, project, channel):
    long = "rule/1/" + "é" * 9000
    assert open_one(conn, finding(project, key=long + "a", subject={"feature": "x" * 9000}), channel.pk) == [long + "a"]
    assert open_one(conn, finding(project, key=long + "b", title="t" * 9000), channel.pk) == [long + "b"]
    assert open_one(conn, finding(project, key=long + "a"), channel.pk) == []
    assert bounded_key("short") == "short"
    with conn.transaction():
        alerts.resolve(conn, project.pk, [long + "b"], {}, NOW)
        assert [found.key for found in alerts.open_of(conn, Source.RULE, [project.pk])] == [bounded_key(long + "a")]


def test_producers_see_what_they_have_open(conn, project, channel):
    open_one(conn, finding(project), channel.pk)
    [found] = alerts.open_of(conn, Source.RULE, [project.pk])
    assert (found.level, found.subject, found.opened_at) == (Level.WARNING, {"feature": "support-bot"}, NOW)
    assert found.last_notified_at == NOW
    assert alerts.open_of(conn, Source.BUDGET, [project.pk]) == []


def test_late_data_is_a_line_in_the_timeline(conn, project, channel):
    open_one(conn, finding(project), channel.pk)
    [row] = rows(conn, "select project_id, id, key from alert")
    with conn.transaction():
        alerts.note(conn, [store.AlertRef._make(row)], "Late data crossed it.", NOW, kind=EventKind.LATE, tell=True)
    assert states(conn)[-1] == ("late", "pending", "")
