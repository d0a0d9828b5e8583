"""The audit log: what people change is told with before and after, secrets are not, and nobody edits it."""

from datetime import timedelta

import pytest
from django.contrib.admin import site
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone

from costapp.admin_audit import Audited
from costapp.models import AuditEntry, IngestKey, Membership, PriceList, Project, RateSet
from costapp.services import audit
from costapp.services.retention import apply_retention
from tests.web.conftest import PASSWORD, add_member, add_project

pytestmark = pytest.mark.django_db

READ_ONLY = {"AuditEntry", "Notification"}


@pytest.fixture
def boss(project):
    user = get_user_model().objects.create_superuser("audit-boss", password=PASSWORD)
    client = Client(REMOTE_ADDR="192.0.2.7")
    client.force_login(user)
    return client


def last():
    return AuditEntry.objects.order_by("-id").first()


def test_every_model_that_people_change_in_the_admin_is_audited():
    ours = {model.__name__ for model, its in site._registry.items() if not isinstance(its, Audited)}
    assert ours == READ_ONLY


def test_a_change_is_told_with_who_when_from_where_and_the_values_before_and_after(boss, project):
    number = add_project().pk
    page = boss.post(
        f"/admin/costapp/project/{number}/change/",
        {"name": "Renamed", "time_zone": "Asia/Kathmandu", "attribute_names": "{}", "token_rules": "[]"},
    )
    assert page.status_code == 302
    entry = last()
    assert (entry.actor, entry.action, entry.object_type, entry.address) == (
        "audit-boss", "changed", "project", "192.0.2.7",
    )  # fmt: skip
    assert entry.changes["time zone"] == ["UTC", "Asia/Kathmandu"]
    assert entry.project_id == number
    assert abs(timezone.now() - entry.at) < timedelta(minutes=1)


def test_saving_without_a_change_is_no_entry(boss, project):
    member = Membership.objects.get(user=add_member(project))
    add_member(project)  # else the last owner would stay one
    before = AuditEntry.objects.count()
    for role, entries in (("owner", 0), ("viewer", 1)):
        boss.post(f"/admin/costapp/membership/{member.pk}/change/", {"role": role})
        assert AuditEntry.objects.count() == before + entries
    assert last().changes == {"role": ["Owner", "Viewer"]}


def test_adding_and_deleting_are_told_and_outlive_the_project(boss):
    boss.post(
        "/admin/costapp/project/add/", {"slug": "brief", "name": "Brief", "time_zone": "UTC", "attribute_names": "{}"}
    )
    created = last()
    assert (created.action, created.changes["name"]) == ("created", [None, "Brief"])
    boss.post(f"/admin/costapp/project/{Project.objects.get(slug='brief').pk}/delete/", {"post": "yes"})
    deleted = last()
    assert (deleted.action, deleted.project, deleted.project_name) == ("deleted", None, "Brief")
    created.refresh_from_db()
    assert created.project is None


def test_actions_on_lists_are_told_per_object(boss, project):
    keys = [IngestKey.issue(project, f"audited-{i}")[0].pk for i in range(2)]
    boss.post("/admin/costapp/ingestkey/", {"action": "revoke", "_selected_action": keys})
    entries = AuditEntry.objects.filter(action="revoked", object_type="ingest key").order_by("-id")[:2]
    assert {entry.object_id for entry in entries} == {str(pk) for pk in keys}
    rates = RateSet.objects.create(price_list=PriceList.objects.create(name="audited", project=project), model="m")
    boss.post("/admin/costapp/rateset/", {"action": "supersede", "_selected_action": [rates.pk]})
    assert (last().action, last().project) == ("superseded", project)


def test_several_deleted_at_once_are_told_each(boss, project):
    lists = [PriceList.objects.create(name=f"to go {i}", project=project).pk for i in range(3)]
    boss.post("/admin/costapp/pricelist/", {"action": "delete_selected", "_selected_action": lists, "post": "yes"})
    assert {e.object_name for e in AuditEntry.objects.filter(action="deleted")} >= {f"to go {i}" for i in range(3)}


def test_keys_made_and_revoked_on_pages_are_told(world):
    client = world.client()
    client.post("/p/acme/connect/keys/", {"name": "from the page"})
    key = IngestKey.objects.get(name="from the page")
    assert (last().action, last().object_id, last().project) == ("created", str(key.pk), world.project)
    for _ in range(2):
        client.post(f"/p/acme/connect/keys/{key.pk}/revoke/")
    assert AuditEntry.objects.filter(object_id=str(key.pk), action="revoked").count() == 1


def test_signing_in_failing_and_signing_out_are_told(project):
    add_member(project, name="audit-ada")
    client = Client(REMOTE_ADDR="192.0.2.9")
    client.post("/sign-in/", {"username": "audit-ada", "password": "wrong"})
    assert (last().action, last().actor, last().address) == ("failed to sign in", "audit-ada", "192.0.2.9")
    client.post("/sign-in/", {"username": "audit-ada", "password": PASSWORD})
    assert (last().action, last().actor) == ("signed in", "audit-ada")
    client.post("/sign-out/")
    assert (last().action, last().actor) == ("signed out", "audit-ada")


def test_what_is_typed_as_an_account_is_kept_only_if_it_is_one(project):
    for door in ("/sign-in/", "/admin/login/"):
        Client(REMOTE_ADDR="192.0.2.10").post(door, {"username": "hunter2-my-password", "password": "x"})
        assert (last().action, last().actor, last().address) == ("failed to sign in", "(no such account)", "192.0.2.10")
    assert not AuditEntry.objects.filter(actor__contains="hunter2").exists()


def test_secrets_never_get_in(boss, project):
    boss.post(
        "/admin/auth/user/add/",
        {"username": "new-person", "password1": "a-long-secret-9", "password2": "a-long-secret-9",
         "usable_password": "true"},
    )  # fmt: skip
    user = get_user_model().objects.get(username="new-person")
    assert last().changes["password"] == [None, "(hidden)"]
    boss.post(
        f"/admin/auth/user/{user.pk}/password/",
        {"password1": "another-secret-9", "password2": "another-secret-9", "usable_password": "true"},
    )
    assert last().changes == {"password": ["(hidden)", "(hidden, changed)"]}
    told = str(list(AuditEntry.objects.values_list("changes", flat=True)))
    user.refresh_from_db()
    assert "secret-9" not in told
    assert user.password not in told


def test_a_producer_that_forgets_to_mask_is_masked_by_the_name_of_the_field():
    found = audit.difference(
        {"bot token": "xoxb-1", "signing_secret": ""}, {"bot token": "xoxb-2", "signing_secret": "s"}
    )
    assert found == {"bot token": ["(hidden)", "(hidden, changed)"], "signing_secret": [None, "(hidden)"]}


def test_long_values_are_cut():
    [[_, value]] = audit.difference({}, {"note": "x" * 5000}).values()
    assert len(value) == audit.LONGEST_VALUE + 1


def test_nobody_edits_or_deletes_entries(boss, project):
    entry = audit.record(project, "test", "created", project, None, {"name": "x"})
    entry.actor = "somebody else"
    for attempt in (
        entry.save, entry.delete, AuditEntry.objects.all().delete, lambda: AuditEntry.objects.update(actor="nobody"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="never"):
            attempt()
    assert boss.get("/admin/costapp/auditentry/add/").status_code == 403
    assert boss.post(f"/admin/costapp/auditentry/{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    boss.post(f"/admin/costapp/auditentry/{entry.pk}/change/", {"actor": "nobody"})
    boss.post(
        "/admin/costapp/auditentry/", {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"}
    )
    assert AuditEntry.objects.get(pk=entry.pk).actor == "test"


def test_the_log_shows_what_changed_and_escapes_it(boss, project):
    audit.record(project, "mia", "changed", project, {"name": "<b>old</b>"}, {"name": "<i>new</i>"})
    page = boss.get("/admin/costapp/auditentry/?q=old").content.decode()
    assert "name: &lt;b&gt;old&lt;/b&gt; → &lt;i&gt;new&lt;/i&gt;" in page


def test_retention_drops_entries_that_are_too_old_and_no_others(conn, settings):
    conn.execute("delete from costapp_auditentry")
    for days in (89, 91):
        conn.execute(
            """insert into costapp_auditentry (at, project_name, actor, action, object_type, object_id, object_name,
                   changes, address) values (now() - make_interval(days => %s), '', %s, '', '', '', '', '{}', '')""",
            (days, f"{days} days ago"),
        )
    settings.KEEP_AUDIT_DAYS = 90
    apply_retention(conn)
    assert conn.execute("select actor from costapp_auditentry").fetchall() == [("89 days ago",)]
