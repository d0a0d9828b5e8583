"""Scrape targets in the admin: superusers list them, secrets go in and never come out, owners only look."""

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from costapp.models import AuditEntry, ScrapeTarget
from costapp.services import sealed
from costapp.services.rotate import rotate
from tests.web.conftest import add_member, add_project

pytestmark = pytest.mark.django_db

LISTS = "/admin/costapp/scrapetarget/"
KEYS = ["a" * 40, "b" * 40]


@pytest.fixture(autouse=True)
def allowed(settings):
    settings.SCRAPE_ALLOW = ["127.0.0.1/32:9400"]
    settings.FIELD_KEYS = KEYS[:1]


@pytest.fixture
def admin():
    user = get_user_model().objects.create_superuser("root", password="x")
    client = Client()
    client.force_login(user)
    return client


def form(project, **fields):
    stated = {"project": project.pk, "name": "gpus", "enabled": "on", "discovery": "url", "interval_s": 15,
              "address": "http://127.0.0.1:9400/metrics", "timeout_s": 10, "auth": "none", "labels": "{}"}  # fmt: skip
    return stated | fields


def test_a_target_is_listed_and_audited(admin, project):
    assert admin.post(f"{LISTS}add/", form(project, labels='{"node": "rack-4"}')).status_code == 302
    target = ScrapeTarget.objects.get()
    assert (target.project, target.labels, target.secret) == (project, {"node": "rack-4"}, b"")
    assert "not scraped yet" in admin.get(LISTS).content.decode()
    assert AuditEntry.objects.filter(project=project).exists()


def test_how_it_is_doing_is_shown(admin, project):
    admin.post(f"{LISTS}add/", form(project))
    ScrapeTarget.objects.update(up=3, down=1, samples=812, detail="gpu-4:9400: It answered 500.",
                                last_at="2026-11-21T10:00:00Z")  # fmt: skip
    for path in (LISTS, f"{LISTS}{ScrapeTarget.objects.get().pk}/change/"):
        text = admin.get(path).content.decode()
        for words in ("3 up, 1 down", "812", "gpu-4:9400: It answered 500."):
            assert words in text, (path, words)


def test_a_password_is_kept_sealed_and_never_shown(admin, project):
    answer = admin.post(f"{LISTS}add/", form(project, auth="basic", username="u", password="geheim-123"))
    assert answer.status_code == 302
    target = ScrapeTarget.objects.get()
    assert b"geheim" not in bytes(target.secret)
    path = f"{LISTS}{target.pk}/change/"
    assert "geheim" not in admin.get(path).content.decode()
    assert admin.post(path, form(project, auth="basic", username="u2", password="")).status_code == 302
    target.refresh_from_db()
    assert target.username == "u2"
    assert sealed.unseal(target.key_id, bytes(target.secret), str(target.seal_id)) == {"secret": "geheim-123"}
    assert not AuditEntry.objects.filter(changes__icontains="geheim").exists()
    admin.post(path, form(project))
    target.refresh_from_db()
    assert target.secret == b""


def test_a_new_field_key_seals_it_anew(admin, project, settings):
    admin.post(f"{LISTS}add/", form(project, auth="bearer", password="token"))
    settings.FIELD_KEYS = KEYS[::-1]
    assert rotate().resealed == 1
    settings.FIELD_KEYS = KEYS[1:]
    target = ScrapeTarget.objects.get()
    assert sealed.unseal(target.key_id, bytes(target.secret), str(target.seal_id)) == {"secret": "token"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"address": "http://127.0.0.1:9401/metrics"}, "COSTAPP_SCRAPE_ALLOW"),
        ({"address": "http://169.254.169.254:9400/latest"}, "COSTAPP_SCRAPE_ALLOW"),
        ({"address": "http://u:p@127.0.0.1:9400/"}, "user name or password"),
        ({"address": "file:///etc/passwd"}, "must begin with"),
        ({"discovery": "file", "address": "../../etc/passwd"}, "in the folder"),
        ({"discovery": "file", "address": "/etc/gpus.yml"}, "in the folder"),
        ({"discovery": "dns", "address": "http://no-such-host.invalid:9400/"}, "cannot be found"),
        ({"timeout_s": 11}, "less than or equal to 10"),
        ({"interval_s": 5, "timeout_s": 6}, "before the next one begins"),
        ({"auth": "basic", "password": "x"}, "Enter the user name"),
        ({"auth": "bearer"}, "Enter the password or token"),
        ({"labels": '{"a": 1}'}, "object of texts"),
    ],
)
def test_what_cannot_be_scraped_is_refused_in_words(admin, project, fields, words):
    answer = admin.post(f"{LISTS}add/", form(project, **fields))
    assert answer.status_code == 200
    assert words in answer.content.decode()
    assert not ScrapeTarget.objects.exists()


def test_without_a_field_key_no_secret_is_stored(admin, project, settings):
    settings.FIELD_KEYS = []
    answer = admin.post(f"{LISTS}add/", form(project, auth="bearer", password="token"))
    assert "COSTAPP_FIELD_KEYS" in answer.content.decode()


def test_an_owner_looks_and_cannot_list_or_change(admin, project):
    admin.post(f"{LISTS}add/", form(project))
    other = add_project()
    ScrapeTarget.objects.create(project=other, name="theirs", address="http://10.9.9.9:1/")
    user = add_member(project)
    user.is_staff = True
    user.save()
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="costapp"))
    owner = Client()
    owner.force_login(user)
    text = owner.get(LISTS).content.decode()
    assert "gpus" in text
    assert "theirs" not in text
    target = ScrapeTarget.objects.get(name="gpus")
    path = f"{LISTS}{target.pk}/change/"
    assert owner.get(path).status_code == 200
    assert owner.post(path, form(project, address="http://127.0.0.1:9400/x")).status_code == 403
    assert owner.get(f"{LISTS}add/").status_code == 403
    assert owner.post(f"{LISTS}{target.pk}/delete/", {"post": "yes"}).status_code == 403
    target.refresh_from_db()
    assert target.address == "http://127.0.0.1:9400/metrics"


def test_targets_are_switched_by_action(admin, project):
    admin.post(f"{LISTS}add/", form(project))
    target = ScrapeTarget.objects.get()
    for action, enabled in (("switch_off", False), ("switch_on", True)):
        admin.post(LISTS, {"action": action, "_selected_action": [target.pk]})
        target.refresh_from_db()
        assert target.enabled is enabled
