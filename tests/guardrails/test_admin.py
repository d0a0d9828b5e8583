"""Guardrails as an owner sets them in the admin: in one form, with sentences for what is wrong."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client

from costapp.core.guardrails import Incident
from costapp.models import AuditEntry, Channel, Guardrail, Membership, Project
from costapp.services.first_project import create_first_project
from costapp.storage import guardrails as store

pytestmark = pytest.mark.django_db

ADD = "/admin/costapp/guardrail/add/"
FORM = {
    "name": "Runaway agent", "enabled": "on", "per": "session", "metric": "calls", "limit_value": "200", "minutes": "5",
    "feature": "bot", "environment": "", "action": "block", "hold_minutes": "", "level": "critical",
}  # fmt: skip


@pytest.fixture
def project():
    return Project.objects.create(slug="acme", name="Acme")


@pytest.fixture
def owner(project):
    user = get_user_model().objects.create_user("olga", password="x", is_staff=True)
    Membership.objects.create(project=project, user=user, role=Membership.Role.OWNER)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="costapp"))
    client = Client()
    client.force_login(user)
    return client


def test_an_owner_sets_a_guardrail_and_the_list_says_what_it_does(owner, project):
    channel = Channel.objects.create(project=project, name="#oncall", kind=Channel.Kind.WEBHOOK)
    assert owner.post(ADD, FORM | {"project": project.pk, "channels": channel.pk}).status_code == 302
    made = Guardrail.objects.get()
    assert list(made.channels.all()) == [channel]
    listed = owner.get("/admin/costapp/guardrail/").content.decode()
    assert "Blocks for 5 minutes when a session makes 200 calls within 5 minutes (in bot)." in listed
    assert 'value="200"' in owner.get(f"/admin/costapp/guardrail/{made.pk}/change/").content.decode()


def test_the_list_says_how_many_are_blocked_now(owner, project):
    made = Guardrail.objects.create(project=project, name="Circles", limit_value=10, action="block")
    connection.ensure_connection()
    now = datetime.now(UTC)
    incidents = {f"k{n}": Incident(f"s-{n}", now, now, now + timedelta(minutes=5), 12, is_open=True) for n in range(2)}
    store.save(connection.connection, made.as_rule(), incidents=incidents)
    assert "2 sessions blocked" in owner.get("/admin/costapp/guardrail/").content.decode()


@pytest.mark.parametrize(("field", "value", "sentence"), [
    ("limit_value", "1.5", "A limit of calls is a whole number."),
    ("limit_value", "0", "The limit must be above 0."),
    ("limit_value", "-3", "The limit must be above 0."),
    ("limit_value", "2000000000", "The limit can be at most one thousand million."),
    ("minutes", "0", "At least one minute."),
    ("minutes", "121", "At most 120 minutes."),
    ("hold_minutes", "1441", "At most a day (1440 minutes)."),
])  # fmt: skip
def test_what_is_wrong_is_said_in_a_sentence(owner, project, field, value, sentence):
    page = owner.post(ADD, FORM | {"project": project.pk, field: value})
    assert page.status_code == 200
    assert sentence in page.content.decode()
    assert not Guardrail.objects.exists()


def test_a_name_is_taken_once_per_project(owner, project):
    owner.post(ADD, FORM | {"project": project.pk})
    page = owner.post(ADD, FORM | {"project": project.pk})
    assert "This project has a guardrail of that name already." in page.content.decode()


def test_channels_of_other_projects_are_neither_shown_nor_taken(owner, project):
    other = Project.objects.create(slug="other", name="Other")
    strange = Channel.objects.create(project=other, name="#theirs", kind=Channel.Kind.WEBHOOK)
    assert "#theirs" not in owner.get(ADD).content.decode()
    assert owner.post(ADD, FORM | {"project": project.pk, "channels": strange.pk}).status_code == 200
    root = Client()
    root.force_login(get_user_model().objects.create_superuser("root"))
    page = root.post(ADD, FORM | {"project": project.pk, "channels": strange.pk})
    assert "Of another project: #theirs. Choose some of Acme." in page.content.decode()
    assert not Guardrail.objects.exists()


def test_another_projects_guardrails_are_not_there(owner, project):
    other = Project.objects.create(slug="other", name="Other")
    theirs = Guardrail.give_first(other)
    assert "Runaway session" not in owner.get("/admin/costapp/guardrail/").content.decode()
    assert owner.get(f"/admin/costapp/guardrail/{theirs.pk}/change/").status_code in {302, 404}


def test_changes_and_switches_are_in_the_audit_log_with_plain_numbers(owner, project):
    owner.post(ADD, FORM | {"project": project.pk})
    made = Guardrail.objects.get()
    owner.post(f"/admin/costapp/guardrail/{made.pk}/change/", FORM | {"project": project.pk, "limit_value": "300"})
    assert AuditEntry.objects.get(action="changed").changes == {"limit": ["200", "300"]}
    owner.post("/admin/costapp/guardrail/", {"action": "switch_off", "_selected_action": made.pk})
    made.refresh_from_db()
    assert not made.enabled
    assert AuditEntry.objects.get(action="switched off").changes == {"enabled": ["yes", "no"]}


def test_a_new_project_begins_with_one_guardrail_that_only_warns(project):
    create_first_project()
    assert not Guardrail.objects.exists()  # somebody has been here before
    root = Client()
    root.force_login(get_user_model().objects.create_superuser("root"))
    form = {"name": "New", "slug": "new", "time_zone": "UTC", "attribute_names": "{}", "token_rules": "[]"}
    assert root.post("/admin/costapp/project/add/", form).status_code == 302
    first = Guardrail.objects.get(project__slug="new")
    assert (first.action, first.enabled, first.channels.count()) == ("warn", True, 0)
    assert first.sentence() == "Warns when a session makes 300 calls within 5 minutes."


def test_the_very_first_project_has_it_too():
    create_first_project()
    assert Guardrail.objects.get().project.slug == "default"
