"""The Alerts page and the form of a rule, as viewers, editors and owners meet them."""

from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from costapp.core.alerts import Fact, Finding, Level, Source
from costapp.core.guardrails import Decision
from costapp.core.money import format_usd
from costapp.models import AlertRule, AuditEntry, Channel, Guardrail, Membership, Project, Silence
from costapp.services import alerts as service
from costapp.services.drain import drain
from costapp.services.evaluate_rules import evaluate_rules
from costapp.services.guardrails.judge import judge
from costapp.storage.standing import load_standing
from costapp.web import palette
from costapp.web.suggested_rules import SUGGESTIONS
from tests import pipeline
from tests.guardrails.conftest import calls, judged
from tests.web.conftest import EVIL, World, add_member, add_prices, add_project, stories

FORM = {
    "name": "Dear features", "metric": "cost", "by": "feature", "window": "24h", "condition": "above",
    "warning": "0.001", "critical": "", "clear": "", "minimum_requests": "0", "lasting_minutes": "0",
    "calm_readings": "1", "no_data": "ok", "remind_minutes": "", "note": "", "enabled": "on", "where_0": "", "is_0": "",
    "where_1": "", "is_1": "",
}  # fmt: skip


def finding(world, key="rule/7/search", **changes):
    fields = {
        "project_id": world.project.pk, "source": Source.RULE, "source_id": 7, "key": key, "level": Level.WARNING,
        "title": "Cost of search is $81.20, above $80.00.", "subject": {"feature": "search"},
        "facts": (Fact("Cost", "$81.20"),), "driver": "90% of its cost, $73.00, is model gpt-4o.",
        "path": "/p/acme/feature/?is=search", "group_key": "rule/7", "period_start": None, "period_end": world.now,
        "complete_until": world.now,
    }  # fmt: skip
    return Finding(**(fields | changes))


@pytest.fixture
def world(conn):
    """A small company of ten days whose rows are committed, as workers need them."""
    palette.forget()
    project = Project.objects.create(slug="acme", name="Acme & Sons", time_zone="Europe/Berlin")
    now = datetime.now(UTC)
    add_prices(project)
    pipeline.store(conn, stories(now), project_id=project.pk)
    drain(conn)
    return World(conn, project, add_member(project, name="mia"), now)


@pytest.fixture
def opened(world):
    """The number of an open alert."""
    channel = Channel.objects.create(project=world.project, name="#finops", kind=Channel.Kind.WEBHOOK)
    with world.conn.transaction():
        service.open_alerts(world.conn, [finding(world)], {"rule/7/search": [channel.pk]}, world.now)
    return world.scalar("select max(id) from alert")


def page(world, url="/p/acme/alerts/", user=None):
    answer = world.client(user).get(url)
    assert answer.status_code == 200
    return answer.content.decode()


def url(name, **kwargs):
    return reverse(name, kwargs={"slug": "acme", **kwargs})


def test_without_alerts_and_rules_the_page_says_so_and_offers_a_start(world):
    text = page(world)
    assert "Nothing needs you now" in text
    assert "No rule watches this project yet." in text
    for suggestion in SUGGESTIONS.values():
        assert suggestion.values["name"] in text
    viewer = add_member(world.project, Membership.Role.VIEWER)
    assert "Owners of the project add rules here." in page(world, user=viewer)


def test_an_open_alert_shows_its_sentence_driver_and_page(world, opened):
    text = page(world)
    assert "Cost of search is $81.20, above $80.00." in text
    assert "90% of its cost, $73.00, is model gpt-4o." in text
    assert 'href="/p/acme/feature/?is=search"' in text
    assert "1 open" in text


def test_the_overview_names_what_is_open_with_its_link(world, opened):
    text = page(world, "/p/acme/?range=30d")
    assert "Cost of search is $81.20, above $80.00." in text
    assert url("alert", alert_id=opened) in text


def test_an_editor_acknowledges_in_place_and_without_scripts(world, opened):
    editor = add_member(world.project, Membership.Role.EDITOR, name="eda")
    client = world.client(editor)
    part = client.post(url("acknowledge", alert_id=opened), headers={"HX-Request": "true"}).content.decode()
    assert part.lstrip().startswith("<li")
    assert "acknowledged by eda" in part
    again = client.post(url("acknowledge", alert_id=opened), follow=True)
    assert "acknowledged by eda" in again.content.decode()
    assert world.scalar("select count(*) from alert_event where kind = 'acknowledged'") == 1


def test_a_snooze_takes_a_preset_or_a_local_time_and_refuses_the_past(world, opened):
    client = world.client()
    client.post(url("snooze", alert_id=opened), {"for": "4h"})
    until = world.scalar("select snoozed_until from alert")
    assert timedelta(hours=3.9) < until - world.now < timedelta(hours=4.1)
    local = (world.now + timedelta(days=2)).astimezone().strftime("%Y-%m-%dT%H:%M")
    client.post(url("snooze", alert_id=opened), {"until": local})
    assert world.scalar("select snoozed_until from alert") > world.now + timedelta(days=1)
    refused = client.post(url("snooze", alert_id=opened), {"until": "2001-01-01T00:00"}, follow=True)
    assert "Choose a time in the next 90 days." in refused.content.decode()


def test_a_viewer_sees_alerts_and_has_no_buttons(world, opened):
    viewer = add_member(world.project, Membership.Role.VIEWER)
    assert "Acknowledge" not in page(world, user=viewer)
    assert world.client(viewer).post(url("acknowledge", alert_id=opened)).status_code == 404
    assert world.client(viewer).post(url("snooze", alert_id=opened), {"for": "1h"}).status_code == 404


def test_an_alert_has_a_page_with_its_timeline_and_messages(world, opened):
    text = page(world, url("alert", alert_id=opened))
    assert "#finops" in text
    assert "pending" in text
    assert "Opened" in text
    assert world.client().get(url("alert", alert_id=opened + 1000)).status_code == 404


def test_an_alert_of_another_project_is_not_found(world, opened):
    other = add_project()
    stranger = add_member(other)
    for name in ("alert", "acknowledge", "snooze"):
        address = reverse(name, kwargs={"slug": other.slug, "alert_id": opened})
        client = world.client(stranger)
        assert (client.get(address) if name == "alert" else client.post(address, {"for": "1h"})).status_code == 404
    assert world.scalar("select acknowledged_at is null and snoozed_until is null from alert")


def test_filters_are_in_the_address_and_past_alerts_are_listed(world, opened):
    assert "Cost of search is" not in page(world, "/p/acme/alerts/?source=budget")
    assert "No open alert matches this filter" in page(world, "/p/acme/alerts/?level=critical")
    with world.conn.transaction():
        service.resolve(world.conn, world.project.pk, ["rule/7/search"], {"rule/7/search": "Resolved. All calm."},
                        world.now + timedelta(hours=2))  # fmt: skip
    text = page(world)
    assert "Cost of search is" in text  # what it was, not that it is calm now
    assert "Resolved. All calm." not in text
    assert "2 h 0 min" in text
    assert "Resolved. All calm." in page(world, url("alert", alert_id=opened))


def test_names_that_anybody_may_choose_are_escaped(world, opened):
    with world.conn.transaction():
        service.open_alerts(
            world.conn,
            [finding(world, key="x", title=f"Cost of {EVIL} is $1.", subject={"feature": EVIL})],
            {},
            world.now,
        )
    text = page(world) + page(world, url("alert", alert_id=world.scalar("select max(id) from alert")))
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


def test_a_silence_that_holds_messages_back_is_announced(world, opened):
    Silence.objects.create(
        project=world.project, starts_at=world.now - timedelta(hours=1), ends_at=world.now + timedelta(hours=1),
        reason="Database move",
    )  # fmt: skip
    assert "Messages are held back" in page(world)
    assert "Database move" in page(world)


# --- the form of a rule


def test_a_saved_rule_is_judged_listed_and_in_the_audit_log(world):
    answer = world.client().post(url("new-rule"), FORM, follow=True)
    assert "The rule Dear features is saved." in answer.content.decode()
    assert AuditEntry.objects.filter(object_name="Dear features", action="created").exists()
    evaluate_rules(world.conn)
    text = page(world)
    assert "Warn when cost of any feature within 24 hours is above $0.001" in text
    assert world.scalar("select count(*) from alert where state = 'open'") > 0
    rule = AlertRule.objects.get()
    assert f"?rule={rule.pk}" in text
    assert "Cost of" in page(world, f"/p/acme/alerts/?rule={rule.pk}")


def test_the_preview_says_how_often_and_when_it_would_have_told(world):
    answer = world.client().post(url("rule-preview"), FORM)
    text = answer.content.decode()
    assert "It would have told you" in text
    assert "Replayed hour by hour" in text
    assert 'id="figure-rule"' in text
    quiet = world.client().post(url("rule-preview"), FORM | {"warning": "1000"}).content.decode()
    assert "It would not have told you anything in the last 30 days" in quiet


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"warning": ""}, "Enter a warning or a critical threshold, or both."),
        ({"critical": "0.0005"}, "Critical must be above the warning of 0.001."),
        ({"clear": "5"}, "An alert can only be over below the threshold of 0.001, or at it."),
        ({"metric": "latency_p95", "by": "team"}, "P95 latency is kept by"),
        ({"metric": "latency_p95", "window": "5m"}, "P95 latency is kept by the hour."),
        ({"metric": "cost_per_session"}, "Sessions are counted per day."),
        ({"by": "user"}, "Users are summed per day and feature"),
        ({"metric": "silence", "condition": "below"}, "can only be above a number of minutes"),
        ({"name": ""}, "This field is required."),
        ({"metric": "nonsense"}, "Select a valid choice."),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(world, changes, sentence):
    answer = world.client().post(url("new-rule"), FORM | changes)
    assert answer.status_code == 422
    assert sentence in answer.content.decode()
    assert not AlertRule.objects.exists()


@pytest.mark.parametrize("key", SUGGESTIONS)
def test_a_suggestion_opens_filled_in_and_can_be_saved_as_it_is(world, key):
    answer = world.client().get(f"{url('new-rule')}?use={key}")
    form = answer.context["form"]
    assert "What this rule does" in answer.content.decode()
    assert answer.context["sentence"]
    values = {name: form[name].value() for name in form.fields if name not in ("channels", "enabled")}
    saved = world.client().post(url("new-rule"), {k: "" if v is None else v for k, v in values.items()})
    assert saved.status_code == 302
    assert evaluate_rules(world.conn).rules == 0  # switched off: its box was not ticked
    AlertRule.objects.update(enabled=True)
    assert evaluate_rules(world.conn).rules == 1


def test_a_rule_is_changed_switched_and_deleted_by_its_owner_only(world):
    world.client().post(url("new-rule"), FORM)
    rule = AlertRule.objects.get()
    editor = add_member(world.project, Membership.Role.EDITOR)
    for name in ("edit-rule", "switch-rule", "delete-rule"):
        assert world.client(editor).post(url(name, rule_id=rule.pk), FORM).status_code == 404
    changed = FORM | {"name": "Renamed", "where_0": "environment", "is_0": "production"}
    world.client().post(url("edit-rule", rule_id=rule.pk), changed)
    rule.refresh_from_db()
    assert (rule.name, rule.filters) == ("Renamed", {"environment": ["production"]})
    world.client().post(url("switch-rule", rule_id=rule.pk))
    rule.refresh_from_db()
    assert not rule.enabled
    world.client().post(url("delete-rule", rule_id=rule.pk))
    assert not AlertRule.objects.exists()


def test_a_name_is_given_once_per_project(world):
    world.client().post(url("new-rule"), FORM)
    again = world.client().post(url("new-rule"), FORM)
    assert "This project has a rule of that name already." in again.content.decode()
    assert AlertRule.objects.count() == 1


def test_rules_that_are_not_judged_are_owned_up_to(world):
    AlertRule.objects.create(project=world.project, name="r", warning="1")
    AlertRule.objects.update(created_at=world.now - timedelta(hours=1))
    assert "Rules are not being judged." in page(world)
    evaluate_rules(world.conn)
    assert "Rules are not being judged." not in page(world)


def test_the_admin_holds_rules_to_the_same_checks_and_its_projects(world):
    owner = add_member(world.project)
    owner.is_staff = True
    owner.save()
    owner.user_permissions.add(*Permission.objects.filter(content_type__model="alertrule"))
    foreign = Channel.objects.create(project=add_project(), name="theirs", kind=Channel.Kind.WEBHOOK)
    client = world.client(owner)
    address = "/admin/costapp/alertrule/add/"
    data = FORM | {"project": world.project.pk, "filters": "feature = search\nfeature = checkout"}
    assert "theirs" not in client.get(address).content.decode()
    assert "Critical must be above" in client.post(address, data | {"critical": "0.0001"}).content.decode()
    assert client.post(address, data | {"channels": [foreign.pk]}).status_code == 200
    assert client.post(address, data).status_code == 302
    assert "Warn when cost of any feature" in client.get("/admin/costapp/alertrule/").content.decode()
    rule = AlertRule.objects.get()
    assert rule.filters == {"feature": ["search", "checkout"]}
    shown = client.get(f"/admin/costapp/alertrule/{rule.pk}/change/").content.decode()
    assert "feature = search\nfeature = checkout" in shown
    assert "There is no dimension" in client.post(address, data | {"name": "b", "filters": "x = y"}).content.decode()


def test_the_page_of_an_alert_leads_to_the_same_number(world):
    AlertRule.objects.create(project=world.project, name="r", by="model", window="3d", warning="0.000001")
    evaluate_rules(world.conn)
    row = world.conn.execute("select path, detail from alert where subject ->> 'model' = 'gpt-4o'").fetchone()
    shown = world.client().get(f"{row[0]}&{urlencode({'format': 'json'})}").json()
    facts = dict(row[1]["facts"])
    assert facts["Cost"] == format_usd(shown["total"]["cost_nano"])
    assert int(facts["Requests"].replace(",", "")) == shown["total"]["requests"]


def asked(world):
    """What the guard says about the session."""
    standing = load_standing(world.conn, world.project.pk, now=world.now).standing
    return standing.answer({"session": "s-loop"}, world.now).decision


def test_an_editor_lifts_what_a_guardrail_says_and_the_next_call_is_judged_again(world):
    guardrail = Guardrail.objects.create(
        project=world.project, name="Loops", limit_value=2, minutes=5, action="block", hold_minutes=600
    )
    judged(world.conn, world.project, calls(3, at=world.now, session="s-loop", first=9000), world.now)
    alert_id = world.scalar("select id from alert where source = 'guardrail'")
    viewer, editor = (add_member(world.project, role) for role in (Membership.Role.VIEWER, Membership.Role.EDITOR))
    address = url("lift-block", alert_id=alert_id)
    assert "Lift it now" not in page(world, url("alert", alert_id=alert_id), viewer)
    assert world.client(viewer).post(address).status_code in {403, 404}
    assert "Lift it now" in page(world, url("alert", alert_id=alert_id), editor)
    assert asked(world) is Decision.BLOCK
    said = world.client(editor).post(address, follow=True).content.decode()
    assert "Lifted. Apps that ask hear it within two seconds." in said
    assert f"s-loop: lifted by {editor.get_username()}." in said
    assert asked(world) is Decision.ALLOW
    assert "There is nothing to lift" in world.client(editor).post(address, follow=True).content.decode()
    again = calls(1, at=world.now + timedelta(seconds=2), session="s-loop", first=9500)
    assert judged(world.conn, world.project, again, world.now + timedelta(seconds=2)) == 1
    guardrail.delete()
    judge(world.conn, now=world.now)


def test_nobody_lifts_anything_in_a_project_of_others(world, opened):
    strange = add_member(add_project())
    assert world.client(strange).post(url("lift-block", alert_id=opened)).status_code == 404
