"""Channels in the admin: secrets go in and never come out, mistakes are answered with sentences, projects are apart."""

import re

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from costapp.models import AuditEntry, Channel, Membership, Project, Silence
from costapp.services import outgoing, sealed
from costapp.services.deliver import open_secret
from tests.alerts.conftest import FIELD_KEY, NOW, add_channel, deliver, finding, fire, rows

SECRET = "secret-part"
HOOK = f"https://hooks.slack.com/services/T0/B0/{SECRET}"
COMMON = {"enabled": "on", "least_level": "info", "digest": "none", "digest_hour": "8"}


@pytest.fixture
def owner(project):
    """Staff who owns the project and nothing else."""
    user = get_user_model().objects.create_user("olga", password="correct horse battery", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="costapp"))
    Membership.objects.create(project=project, user=user, role=Membership.Role.OWNER)
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture(autouse=True)
def slack_is_public(monkeypatch):
    def resolve(host, port):
        return ["93.184.216.34"] if host == "hooks.slack.com" else _real(host, port)

    _real = outgoing.resolve
    monkeypatch.setattr(outgoing, "resolve", resolve)


def add(owner, kind, project, **fields):
    data = {**COMMON, "project": project.pk, "name": "#finops", **fields}
    return owner.post(f"/admin/costapp/channel/add/?kind={kind}", data)


def errors(answer):
    return " ".join(re.findall(r'<ul class="errorlist[^"]*"[^>]*>(.*?)</ul>', answer.content.decode(), re.DOTALL))


def test_adding_begins_with_the_question_where_to(owner):
    text = owner.get("/admin/costapp/channel/add/").content.decode()
    assert re.findall(r'href="\?kind=(\w+)"', text) == [kind.value for kind in Channel.Kind]


@pytest.mark.parametrize(
    ("kind", "fields", "secret", "config"),
    [
        ("slack_webhook", {"url": HOOK}, {"url": HOOK}, {}),
        ("slack_bot", {"token": "xoxb-1-" + SECRET, "channel": "#finops"}, {"token": "xoxb-1-" + SECRET},
         {"channel": "#finops"}),
        ("email", {"to": "a@example.com, b@example.com\na@example.com"}, {},
         {"to": ["a@example.com", "b@example.com"]}),
        ("webhook", {"url": HOOK, "signing_key": SECRET * 2}, {"url": HOOK, "signing_key": SECRET * 2}, {}),
        ("apprise", {"url": f"discord://123456789/{SECRET}abc"}, {"url": f"discord://123456789/{SECRET}abc"}, {}),
    ],
)  # fmt: skip
def test_a_channel_of_each_kind_is_added_and_its_secret_never_seen_again(owner, project, kind, fields, secret, config):
    assert add(owner, kind, project, **fields).status_code == 302
    channel = Channel.objects.get()
    assert (channel.kind, channel.config, open_secret(channel)) == (kind, config, secret)
    pages = [f"/admin/costapp/channel/{channel.pk}/{page}/" for page in ("change", "history", "delete")]
    for page in [*pages, "/admin/costapp/channel/", "/admin/costapp/auditentry/"]:
        assert SECRET not in owner.get(page).content.decode(), page
    assert SECRET not in str(list(AuditEntry.objects.values()))
    # saved again with empty secrets, it keeps them
    kept = {name: value for name, value in fields.items() if name in ("channel", "to")}
    answer = owner.post(pages[0], {**COMMON, "name": "#renamed", **kept} | dict.fromkeys(secret, ""))
    assert answer.status_code == 302, errors(answer)
    channel.refresh_from_db()
    assert (channel.name, open_secret(channel), channel.config) == ("#renamed", secret, config)


def test_one_of_two_secrets_can_be_replaced(owner, project):
    add(owner, "webhook", project, url=HOOK, signing_key="k" * 20)
    channel = Channel.objects.get()
    owner.post(
        f"/admin/costapp/channel/{channel.pk}/change/", {**COMMON, "name": "x", "url": "", "signing_key": "n" * 20}
    )
    channel.refresh_from_db()
    assert open_secret(channel) == {"url": HOOK, "signing_key": "n" * 20}


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        ("slack_webhook", {"url": "http://127.0.0.1/x"}, "is not public"),
        ("slack_webhook", {"url": "https://169.254.169.254/latest"}, "is not public"),
        ("slack_webhook", {"url": "https://[::ffff:10.0.0.1]/"}, "is not public"),
        ("slack_webhook", {"url": "http://hooks.slack.com/x"}, "https on port 443"),
        ("slack_webhook", {"url": "hooks.slack.com/x"}, "must begin with https"),
        ("slack_webhook", {"url": ""}, "required"),
        ("slack_bot", {"token": "xoxp-1", "channel": "#a"}, "begins with xoxb-"),
        ("email", {"to": "nobody"}, "is not an e-mail address"),
        ("email", {"to": ",".join(f"a{n}@example.com" for n in range(21))}, "20 recipients at most"),
        ("email", {"to": "a@example.com\r\nBcc:spy@example.com"}, "is not an e-mail address"),
        ("webhook", {"url": HOOK, "signing_key": "short"}, "at least 16"),
        ("apprise", {"url": "json://10.0.0.1/x"}, "not among the services"),
        ("apprise", {"url": "file:///etc/passwd"}, "not among the services"),
        ("apprise", {"url": "discord://1/abcdefghij?verify=no"}, "option verify is not allowed"),
        ("apprise", {"url": "workflow://10.0.0.1/abc/def"}, "must end in"),
        ("apprise", {"url": "workflow://evil.example/abc/def?template=/etc/passwd"}, "template is not allowed"),
        ("apprise", {"url": "discord://"}, "cannot read this"),
        ("slack_webhook", {"url": HOOK, "digest_hour": "24"}, "less than or equal to 23"),
    ],
)
def test_mistakes_are_answered_with_a_sentence_and_nothing_is_stored(owner, project, kind, fields, sentence):
    answer = add(owner, kind, project, **fields)
    assert answer.status_code == 200
    assert sentence in errors(answer)
    assert not Channel.objects.exists()


def test_a_name_is_taken_once_per_project(owner, project):
    add(owner, "slack_webhook", project, url=HOOK)
    assert "channel of that name already" in errors(add(owner, "slack_webhook", project, url=HOOK))


def test_without_a_key_no_secret_is_stored(owner, project, settings):
    settings.FIELD_KEYS = []
    assert "COSTAPP_FIELD_KEYS" in errors(add(owner, "slack_webhook", project, url=HOOK))
    assert not Channel.objects.exists()


@pytest.fixture
def foreign(conn):
    other = Project.objects.create(slug="other", name="Other")
    return add_channel(other, url="https://hooks.example.com/x", name="their-channel")


def test_staff_of_one_project_see_and_use_nothing_of_another(owner, project, foreign, conn, receiver):
    fire(conn, finding(foreign.project, title="their alert"), foreign)
    Silence.objects.create(project=foreign.project, starts_at=NOW, ends_at=NOW.replace(hour=20), reason="their-reason")
    for page in ("channel", "notification", "silence"):
        text = owner.get(f"/admin/costapp/{page}/").content.decode()
        for theirs in ("their-channel", "their-reason", "support-bot", "other"):
            assert theirs not in text.lower().replace("another", ""), (page, theirs)
    for action in ("test", "switch-on"):
        assert owner.post(f"/admin/costapp/channel/{foreign.pk}/{action}/").status_code == 404
    answer = add(owner, "slack_webhook", foreign.project, url=HOOK)
    assert answer.status_code == 200
    assert Channel.objects.count() == 1


def test_the_test_button_says_in_words_what_happened(owner, project, receiver):
    good, bad = (add_channel(project, "slack_webhook", name, url=receiver.url(name)) for name in ("ok", "revoked"))
    assert owner.get(f"/admin/costapp/channel/{good.pk}/test/").status_code == 405
    text = owner.post(f"/admin/costapp/channel/{good.pk}/test/", follow=True).content.decode()
    assert "The test message was sent." in text
    text = owner.post(f"/admin/costapp/channel/{bad.pk}/test/", follow=True).content.decode()
    assert "The test message was not sent. Slack answered 404" in text
    assert SECRET not in text
    assert len(receiver.received) == 2
    log = owner.get("/admin/costapp/notification/").content.decode()
    assert log.count("Slack answered") == 2
    assert owner.get("/admin/costapp/notification/add/").status_code == 403


def test_a_channel_that_switched_itself_off_says_so_and_is_switched_on_by_a_button(
    owner, project, receiver, conn, courier, clock
):
    channel = add_channel(project, "slack_webhook", "#dead", url=receiver.url("revoked"))
    fire(conn, finding(project, source="budget"), channel)
    deliver(conn, courier)
    for page in ("/admin/costapp/channel/", f"/admin/costapp/channel/{channel.pk}/change/"):
        assert "Slack answered 404" in owner.get(page).content.decode()
    owner.post(f"/admin/costapp/channel/{channel.pk}/switch-on/")
    channel.refresh_from_db()
    assert (channel.disabled_reason, channel.enabled) == ("", True)
    assert rows(conn, "select state from alert where source = 'system'") == ["resolved"]
    assert AuditEntry.objects.filter(object_type="channel", action="changed").exists()


def test_entering_a_new_address_switches_it_on_too(owner, project, conn, receiver, courier):
    channel = add_channel(project, "slack_webhook", "#dead", url=receiver.url("revoked"))
    fire(conn, finding(project, source="budget"), channel)
    deliver(conn, courier)
    owner.post(f"/admin/costapp/channel/{channel.pk}/change/", {**COMMON, "name": "#dead", "url": HOOK})
    channel.refresh_from_db()
    assert channel.disabled_reason == ""


def test_a_silence_is_made_by_somebody_ends_after_it_starts_and_lets_go_when_deleted(
    owner, project, conn, receiver, courier, clock
):
    fields = {"project": project.pk, "reason": "deploy", "starts_at_0": "2026-05-29", "starts_at_1": "11:00",
              "ends_at_0": "2026-05-29", "ends_at_1": "10:00", "about": "feature", "value": "support-bot"}  # fmt: skip
    assert "must end after it starts" in errors(owner.post("/admin/costapp/silence/add/", fields))
    assert "or leave both empty" in errors(owner.post("/admin/costapp/silence/add/", fields | {"value": ""}))
    owner.post("/admin/costapp/silence/add/", fields | {"ends_at_1": "20:00"})
    silence = Silence.objects.get()
    assert (silence.created_by, silence.subject) == ("olga", {"feature": "support-bot"})
    assert 'value="support-bot"' in owner.get(f"/admin/costapp/silence/{silence.pk}/change/").content.decode()
    channel = add_channel(project, url=receiver.url("ok"))
    fire(conn, finding(project), channel)
    clock.move(minutes=1)
    assert deliver(conn, courier) == 0
    owner.post(f"/admin/costapp/silence/{silence.pk}/delete/", {"post": "yes"})
    conn.execute("update notification set next_at = %s where state = 'suppressed'", [NOW])  # the test's clock, not ours
    assert deliver(conn, courier) == 1


# --- at rest


def test_the_database_alone_gives_no_secret_away(owner, project):
    add(owner, "slack_webhook", project, url=HOOK)
    with connection.cursor() as cursor:
        for table in ("costapp_channel", "costapp_auditentry", "django_admin_log", "notification"):
            cursor.execute(f"select coalesce(string_agg({table}::text, ' '), '') from {table}")
            text = cursor.fetchone()[0]
            for form in (SECRET, SECRET.encode().hex()):
                assert form not in text


def test_a_secret_cannot_be_moved_to_another_row_or_changed():
    key_id, secret = sealed.seal({"url": HOOK}, "row 1")
    assert sealed.unseal(key_id, secret, "row 1") == {"url": HOOK}
    for wrong in ((secret, "row 2"), (secret[:-1] + bytes([secret[-1] ^ 1]), "row 1")):
        with pytest.raises(sealed.CannotOpen, match="changed"):
            sealed.unseal(key_id, *wrong)
    assert sealed.seal({"url": HOOK}, "row 1")[1] != secret


def test_keys_are_rotated_by_a_command_and_old_ones_can_go(project, settings, capsys):
    channel = add_channel(project, "slack_webhook", url=HOOK)
    settings.FIELD_KEYS = ["second-key-" + "y" * 40, FIELD_KEY]
    assert open_secret(channel) == {"url": HOOK}
    call_command("rotate_field_keys")
    call_command("rotate_field_keys")
    assert capsys.readouterr().out.splitlines() == [
        "1 secrets sealed anew, 0 were already.", "0 secrets sealed anew, 1 were already.",
    ]  # fmt: skip
    settings.FIELD_KEYS = settings.FIELD_KEYS[:1]
    channel.refresh_from_db()
    assert open_secret(channel) == {"url": HOOK}
    settings.FIELD_KEYS = ["third-key-" + "z" * 40]
    with pytest.raises(sealed.CannotOpen, match="Enter the secret again"):
        open_secret(channel)
    with pytest.raises(CommandError, match="could not be opened"):
        call_command("rotate_field_keys")


def test_a_short_key_is_refused(settings):
    settings.FIELD_KEYS = ["short"]
    with pytest.raises(sealed.CannotSeal, match="shorter than 32"):
        sealed.seal({"a": "b"}, "row")
