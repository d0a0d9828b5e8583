"""Who sees what: a walk over every address as nobody, a stranger, a viewer and an owner."""

from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import URLPattern, reverse

from costapp.core.ids import span_id_text
from costapp.models import AlertRule, IngestKey, Membership
from costapp.web import urls
from tests.web.conftest import add_member, add_project

pytestmark = pytest.mark.django_db

OPEN = {"sign-in", "sign-out", "home"}
OWNER_ONLY = {"new-key", "revoke-key", "new-rule", "edit-rule", "rule-preview", "switch-rule", "delete-rule"}
EDITOR_ONLY = {"acknowledge", "snooze", "lift-block", "judge-anomaly"}
POSTED = (OWNER_ONLY | EDITOR_ONLY) - {"new-rule", "edit-rule"}
PROJECT_PAGES = [
    pattern for pattern in urls.urlpatterns if isinstance(pattern, URLPattern) and pattern.name not in OPEN
]


def address(world, pattern, *, project=None):
    trace, span = world.conn.execute("select trace_id, span_id from charge order by start_at limit 1").fetchone()
    key, _ = IngestKey.issue(world.project, "k")
    rule, _ = AlertRule.objects.get_or_create(project=world.project, name="r", warning=1)
    values = {
        "slug": (project or world.project).slug,
        "trace": UUID(str(trace)).hex,
        "span": span_id_text(span),
        "key_id": key.pk,
        "dimension": "feature",
        "alert_id": alert_id(world),
        "rule_id": rule.pk,
        "anomaly_id": anomaly_id(world),
    }
    kwargs = {
        name: value
        for name, value in values.items()
        if name in pattern.pattern.regex.groupindex or f":{name}>" in str(pattern.pattern)
    }
    return reverse(pattern.name, kwargs=kwargs) + "?is=" + ("s-1" if pattern.name == "session" else "checkout")


def alert_id(world):
    """An alert of the project, committed, as every client sees it."""
    world.conn.execute(
        "insert into alert (project_id, key, source, source_id, subject, level, state, title, detail, path, group_key,"
        " parent_key, channel_ids, opened_at, changed_at)"
        " values (%s, 'k', 'system', 0, '{}', 'info', 'open', 't', '{}', '/', 'g', '', '{}', now(), now())"
        " on conflict do nothing",
        (world.project.pk,),
    )
    return world.conn.execute("select id from alert where project_id = %s", (world.project.pk,)).fetchone()[0]


def anomaly_id(world):
    """An anomaly of the project, committed, as every client sees it."""
    found = world.conn.execute("select id from anomaly where project_id = %s", (world.project.pk,)).fetchone()
    if found:
        return found[0]
    return world.conn.execute(
        "insert into anomaly (project_id, dimension, value, kind, state, start_at, odd_at, peak_at, end_at,"
        " score_milli, above_nano, above_band_nano, actual_nano, new_normal, title, detail, suppressed, found_at,"
        " changed_at) values (%s, 'feature', 'checkout', 'spike', 'open', now() - interval '2 hours',"
        " now() - interval '2 hours', now() - interval '2 hours', now() - interval '1 hour', 7000, 5, 4, 9, false,"
        " 'Checkout costs more.', '{}', '', now(), now()) returning id",
        (world.project.pk,),
    ).fetchone()[0]


def ask(client, pattern, url):
    return client.post(url) if pattern.name in POSTED else client.get(url)


@pytest.mark.parametrize("pattern", PROJECT_PAGES, ids=lambda pattern: pattern.name)
def test_nobody_is_sent_to_sign_in(world, pattern):
    answer = ask(Client(), pattern, address(world, pattern))
    assert answer.status_code == 302
    assert answer["Location"].startswith("/sign-in/")


@pytest.mark.parametrize("pattern", PROJECT_PAGES, ids=lambda pattern: pattern.name)
def test_a_member_of_another_project_finds_nothing(world, pattern):
    other = add_project()
    stranger = add_member(other)
    assert ask(world.client(stranger), pattern, address(world, pattern)).status_code == 404


@pytest.mark.parametrize("pattern", PROJECT_PAGES, ids=lambda pattern: pattern.name)
def test_a_superuser_without_membership_finds_nothing(world, pattern):
    boss = get_user_model().objects.create_superuser(f"boss-{pattern.name}")
    assert ask(world.client(boss), pattern, address(world, pattern)).status_code == 404


@pytest.mark.parametrize("pattern", PROJECT_PAGES, ids=lambda pattern: pattern.name)
def test_a_viewer_reads_everything_and_changes_nothing(world, pattern):
    viewer = add_member(world.project, Membership.Role.VIEWER)
    expected = 404 if pattern.name in OWNER_ONLY | EDITOR_ONLY else 200
    assert ask(world.client(viewer), pattern, address(world, pattern)).status_code == expected


@pytest.mark.parametrize("pattern", PROJECT_PAGES, ids=lambda pattern: pattern.name)
def test_an_owner_may_do_everything(world, pattern):
    assert ask(world.client(), pattern, address(world, pattern)).status_code in {200, 302}


def test_objects_of_another_project_are_not_found_under_ones_own(world):
    other = add_project()
    stranger = add_member(other)
    client = world.client(stranger)
    for pattern in PROJECT_PAGES:
        if pattern.name in {"trace", "call", "session", "revoke-key", "alert"} | EDITOR_ONLY | OWNER_ONLY - {
            "new-key",
            "new-rule",
            "rule-preview",
        }:
            assert ask(client, pattern, address(world, pattern, project=other)).status_code == 404, pattern.name
    assert IngestKey.objects.filter(revoked_at=None).exists()


def test_every_address_outside_the_admin_is_on_one_of_the_lists():
    names = {p.name for p in urls.urlpatterns}
    assert names == OPEN | {p.name for p in PROJECT_PAGES}


def test_a_project_of_another_shows_none_of_our_numbers(world):
    other = add_project()
    stranger = add_member(other)
    page = world.client(stranger).get(f"/p/{other.slug}/").content.decode()
    assert "nobody-knows-1" not in page
    assert "Acme" not in page
    assert "Waiting for the first span" in page


def test_every_answer_carries_the_content_policy(world):
    for url in ("/sign-in/", "/p/acme/", "/nothing-here/", "/admin/login/"):
        policy = world.client().get(url)["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
