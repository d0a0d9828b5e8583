"""Messages arrive: at least once, under one key, one per incident, and what cannot arrive is seen."""

import hmac
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from hashlib import sha256

import psycopg
import pytest
from django.db import connections

from costapp.core.alerts import Fact, Level, Source
from costapp.models import Channel, Project, Silence
from costapp.services import alerts
from costapp.services import deliver as service
from costapp.services.channel_health import channel_matters
from costapp.services.channels import http
from costapp.services.channels.slack import escaped
from costapp.services.deliver import Courier
from costapp.services.heartbeat import check_heartbeats, evaluation_heartbeat
from costapp.services.try_channel import send_test
from costapp.storage import notifications
from tests import pipeline
from tests.alerts.conftest import NOW, add_channel, deliver, finding, fire, rows
from tests.alerts.servers import eventually, mail_server

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def budget(project, key="budget/1/support-bot/2026-05-01/80", **changes):
    """Budgets do not wait for others of their group."""
    return finding(project, key=key, source=Source.BUDGET, group_key=key, **changes)


def log(conn):
    return rows(conn, "select state, attempts, last_error from notification order by id")


# --- Slack


def test_slack_gets_figures_driver_and_a_link_once(conn, project, receiver, courier, settings):
    settings.PUBLIC_URL = "https://costs.example"
    slack = add_channel(project, "slack_webhook", url=receiver.url("ok"))
    fire(conn, budget(project, period_start=NOW - timedelta(days=28), period_end=NOW), slack)
    assert deliver(conn, courier) == 1
    assert deliver(conn, courier) == 0
    [got] = receiver.received
    text = got.body.decode()
    for part in ("Cost of support-bot is $81.20", "*Limit*\\n$80.00", "Mostly gpt-4o", "1 May 2026, 14:00",
                 "(Europe/Berlin)", "Data complete until", "budget/1/support-bot/2026-05-01/80"):  # fmt: skip
        assert part in text
    [button] = [b for block in got.json["blocks"] if block["type"] == "actions" for b in block["elements"]][:1]
    assert button["url"] == "https://costs.example/p/acme/feature/?is=support-bot"
    assert log(conn) == [("sent", 1, "")]


def test_a_feature_name_cannot_ping_or_link_in_slack(conn, project, receiver, courier):
    evil = "<!channel> & <@U1|you> <https://evil.example|click>"
    slack = add_channel(project, "slack_webhook", url=receiver.url("ok"))
    facts = (Fact(evil, evil),)
    fire(conn, budget(project, title=evil, subject={"feature": evil}, facts=facts, driver=evil), slack)
    deliver(conn, courier)

    def texts(value):
        if isinstance(value, dict):
            return [v for k, v in value.items() if k == "text" and isinstance(v, str)] + [
                t for v in value.values() for t in texts(v)
            ]
        return [t for v in value for t in texts(v)] if isinstance(value, list) else []

    found = texts(receiver.received[0].json)
    assert len(found) > 4
    assert [text for text in found if "<!" in text or "<@" in text or "<https://evil" in text] == []
    assert any("&lt;!channel&gt; &amp; &lt;@U1|you&gt;" in text for text in found)


def test_escaping_never_cuts_an_entity_in_two():
    for length in range(20, 60):
        shown = escaped("<&>" * 50, length)
        assert len(shown) <= length
        assert shown.replace("&lt;", "").replace("&gt;", "").replace("&amp;", "").strip("…") == ""


@pytest.mark.parametrize(
    ("channel", "state", "off"),
    [("#finops", "sent", False), ("#gone", "pending", True), ("#later", "pending", False), ("#long", "failed", False)],
)
def test_a_bot_reads_the_truth_in_the_body(conn, project, receiver, courier, channel, state, off):
    bot = add_channel(project, "slack_bot", config={"channel": channel}, token="xoxb-secret-part")
    fire(conn, budget(project), bot)
    deliver(conn, courier)
    [got] = receiver.received
    assert got.path == "/chat.postMessage"
    assert got.headers["authorization"] == "Bearer xoxb-secret-part"
    assert rows(conn, "select state from notification where channel_id = %s", bot.pk) == [state]
    bot.refresh_from_db()
    assert bool(bot.disabled_reason) is off


# --- e-mail


@pytest.fixture
def mailbox(settings):
    with mail_server() as (box, port):
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_USE_TLS = "127.0.0.1", port, False
        yield box


def test_mail_has_text_and_html_with_the_same_figures_and_no_header_of_a_feature(conn, project, courier, mailbox):
    evil = "x\r\nBcc: spy@evil.example\r\n\r\n<script>alert(1)</script>"
    mail = add_channel(project, "email", config={"to": ["cfo@example.com", "ops@example.com"]})
    fire(conn, budget(project, title=f"Cost of {evil} is $81.20."), mail)
    deliver(conn, courier)
    [got] = mailbox.messages
    assert got.rcpt_tos == ["cfo@example.com", "ops@example.com"]
    import email

    parsed = email.message_from_bytes(got.content, policy=email.policy.default)
    text, html = (parsed.get_body((kind,)).get_content() for kind in ("plain", "html"))
    assert parsed["Bcc"] is None
    assert "\n" not in parsed["Subject"]
    for body in (text, html):
        assert "$80.00" in body
        assert "/p/acme/feature/?is=support-bot" in body
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert parsed["Message-ID"].startswith("<")


def test_a_mail_server_that_is_away_or_busy_is_tried_again(conn, project, courier, clock, mailbox, settings):
    mail = add_channel(project, "email", config={"to": ["cfo@example.com"]})
    fire(conn, budget(project), mail)
    mailbox.refuse["cfo@example.com"] = "451 try later"
    deliver(conn, courier)
    assert log(conn) == [("pending", 1, "The mail server refuses the recipients (451).")]
    settings.EMAIL_HOST = ""
    clock.move(minutes=5)
    deliver(conn, courier)
    assert "COSTAPP_EMAIL_HOST" in log(conn)[0][2]
    mailbox.refuse.clear()
    settings.EMAIL_HOST = "127.0.0.1"
    clock.move(minutes=5)
    deliver(conn, courier)
    assert [len(mailbox.messages), log(conn)] == [1, [("sent", 3, "")]]


def test_a_recipient_that_does_not_exist_switches_the_channel_off(conn, project, courier, mailbox):
    mail = add_channel(project, "email", config={"to": ["gone@example.com"]})
    mailbox.refuse["gone@example.com"] = "550 no such user"
    fire(conn, budget(project), mail)
    deliver(conn, courier)
    mail.refresh_from_db()
    assert "550" in mail.disabled_reason


def test_a_mail_that_is_refused_for_its_content_fails_alone(conn, project, courier, mailbox):
    mailbox.refuse_data = "554 looks like spam"
    mail = add_channel(project, "email", config={"to": ["cfo@example.com"]})
    fire(conn, budget(project), mail)
    deliver(conn, courier)
    mail.refresh_from_db()
    assert [log(conn)[0][0], mail.disabled_reason] == ["failed", ""]


# --- webhook


def test_a_webhook_can_be_verified_and_deduplicated(conn, project, receiver, courier):
    hook = add_channel(project, url=receiver.url("ok"), signing_key="s" * 40)
    fire(conn, budget(project), hook)
    deliver(conn, courier)
    [got] = receiver.received
    stamp = got.headers["x-costapp-timestamp"]
    expected = hmac.new(b"s" * 40, stamp.encode() + b"." + got.body, sha256).hexdigest()
    assert got.headers["x-costapp-signature"] == f"v1={expected}"
    assert got.headers["idempotency-key"] == got.json["id"]
    [item] = got.json["items"]
    assert (item["event"], item["level"], item["subject"]) == ("opened", "warning", {"feature": "support-bot"})
    assert {"label": "Cost", "text": "$81.20"} in item["facts"]


# --- when it does not work


def test_a_receiver_that_says_when_is_not_asked_before(conn, project, receiver, courier, clock):
    slack = add_channel(project, "slack_webhook", url=receiver.url("limited"))
    fire(conn, budget(project), slack)
    deliver(conn, courier)
    assert rows(conn, "select next_at from notification") == [NOW + timedelta(seconds=120)]
    clock.move(seconds=119)
    assert deliver(conn, courier) == 0
    clock.move(seconds=1)
    assert deliver(conn, courier) == 1


@pytest.mark.parametrize("answer", ["revoked", "archived", "moved"])
def test_a_permanent_error_switches_the_channel_off_and_another_channel_says_so(
    conn, project, receiver, courier, clock, answer
):
    dead = add_channel(project, "slack_webhook", "#dead", url=receiver.url(answer))
    alive = add_channel(project, "webhook", "alive", url=receiver.url("ok"))
    fire(conn, budget(project), dead)
    deliver(conn, courier)
    dead.refresh_from_db()
    assert dead.disabled_reason
    assert "secret-part" not in dead.disabled_reason
    clock.move(minutes=1)
    deliver(conn, courier)
    [told] = receiver.answered("ok")
    assert "Channel #dead is switched off" in told.json["heading"]
    [trouble] = channel_matters(conn, project.pk, clock.now)
    assert (trouble.level, trouble.title) == ("bad", "Channel #dead is switched off")
    assert len(receiver.answered(answer)) == 1
    # repaired: the message that waited is sent, and the others hear that it works again
    secret = service.sealed.seal({"url": receiver.url("ok")}, str(dead.seal_id))
    Channel.objects.filter(pk=dead.pk).update(disabled_reason="", key_id=secret[0], secret=secret[1])
    with conn.transaction():
        service.repaired(conn, dead, clock.now)
    clock.move(minutes=10)
    deliver(conn, courier)
    assert channel_matters(conn, project.pk, clock.now) == []
    assert sorted("works again" in each.body.decode() for each in receiver.answered("ok")) == [False, False, True]
    assert alive.pk


def test_a_message_that_the_receiver_refuses_fails_and_the_channel_goes_on(conn, project, receiver, courier, clock):
    slack = add_channel(project, "slack_webhook", url=receiver.url("invalid"))
    fire(conn, budget(project), slack)
    deliver(conn, courier)
    [(state, attempts, error)] = log(conn)
    assert (state, attempts) == ("failed", 1)
    assert "invalid_payload" in error
    [trouble] = channel_matters(conn, project.pk, clock.now)
    assert "lost messages" in trouble.title


def test_a_channel_that_is_down_for_an_hour_gets_everything_once_and_in_order(conn, project, receiver, courier, clock):
    hook = add_channel(project, url=receiver.url("broken"))
    for number in range(3):
        fire(conn, budget(project, key=f"budget/{number}/x"), hook)
    tries = []
    while clock.now < NOW + HOUR:
        if deliver(conn, courier):
            tries.append(clock.now - NOW)
        clock.move(seconds=10)
    assert 6 <= len(tries) <= 10  # backs off, and asks once for all that waits
    assert len(receiver.received) == len(tries)
    secret = service.sealed.seal({"url": receiver.url("ok"), "signing_key": "k" * 32}, str(hook.seal_id))
    Channel.objects.filter(pk=hook.pk).update(key_id=secret[0], secret=secret[1])
    clock.move(hours=1)
    assert deliver(conn, courier) == 3
    keys = [each.json["items"][0]["key"] for each in receiver.answered("ok")]
    assert keys == [f"budget/{number}/x" for number in range(3)]
    first = {each.headers["idempotency-key"] for each in receiver.answered("broken")}
    assert first == {receiver.answered("ok")[0].headers["idempotency-key"]}
    assert {state for state, _, _ in log(conn)} == {"sent"}


def test_after_a_day_it_is_given_up_and_said(conn, project, receiver, courier, clock):
    hook = add_channel(project, url=receiver.url("broken"))
    fire(conn, budget(project), hook)
    deliver(conn, courier)
    clock.move(hours=25)
    deliver(conn, courier)
    assert rows(conn, "select state, reason from notification") == [("failed", "Given up after 1 attempts.")]


def test_waits_grow_and_differ():
    waits = [service.back_off(attempt, 0.5).total_seconds() for attempt in range(1, 12)]
    assert waits[:4] == [30, 60, 120, 240]
    assert max(waits) == 3600
    assert service.back_off(3, 0.0) < service.back_off(3, 0.9)


def test_one_hanging_channel_delays_no_other(conn, project, receiver, courier):
    slow = add_channel(project, "webhook", "slow", url=receiver.url("hold"))
    fast = add_channel(project, "webhook", "fast", url=receiver.url("ok"))
    fire(conn, budget(project), slow, fast)
    courier.deliver_due(conn, budget_s=5, patience_s=0.1)
    assert len(receiver.answered("ok")) == 1
    fire(conn, budget(project, key="budget/2/x"), fast)
    courier.deliver_due(conn, budget_s=5, patience_s=0.1)
    assert len(receiver.answered("ok")) == 2
    receiver.hold.set()
    eventually(lambda: {state for state, _, _ in log(conn)} == {"sent"})


def test_an_error_inside_a_sender_is_an_outcome_without_secrets(conn, project, clock, caplog):
    def fails(config, secret, message):
        raise ValueError(f"cannot use {secret['url']}")

    hook = add_channel(project, url="https://hooks.example.com/secret-part")
    fire(conn, budget(project), hook)
    courier = Courier(pipeline.open_connection, clock, senders={"webhook": fails})
    deliver(conn, courier)
    courier.pool.shutdown()
    assert log(conn) == [("pending", 1, "Sending failed inside Costapp (ValueError).")]
    assert "ValueError" in caplog.text
    assert "secret-part" not in caplog.text


# --- once


def test_two_workers_at_once_send_each_message_once(conn, project, receiver, clock):
    hooks = [add_channel(project, "webhook", f"hook {number}", url=receiver.url("ok")) for number in range(5)]
    for number in range(8):
        fire(conn, budget(project, key=f"budget/{number}/x"), *hooks)
    barrier = threading.Barrier(3)

    def work():
        courier = Courier(pipeline.open_connection, clock)
        with pipeline.open_connection() as own:
            barrier.wait()
            while rows(own, "select count(*) from notification where state = 'pending'") != [0]:
                courier.deliver_due(own, budget_s=10)
        courier.pool.shutdown()
        connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [each.headers["idempotency-key"] for each in receiver.received]
    assert (len(keys), len(set(keys))) == (40, 40)


WORKER = """
import os, sys, django
os.environ["DJANGO_SETTINGS_MODULE"] = "costapp.settings"
django.setup()
from datetime import datetime
from django.conf import settings
from costapp.services.deliver import Courier
from costapp.storage.connection import connect
courier = Courier(lambda: connect(settings.DATABASE_URL), lambda: datetime.fromisoformat(sys.argv[1]))
with connect(settings.DATABASE_URL) as conn:
    courier.deliver_due(conn, budget_s=60, patience_s=60)
"""


def test_a_worker_killed_between_sending_and_writing_is_made_good_under_the_same_key(
    conn, project, receiver, courier, clock, settings
):
    """A real process, really killed: the receiver has the message, the database does not know."""
    hook = add_channel(project, url=receiver.url("hold"))
    fire(conn, budget(project), hook)
    info = conn.info
    url = f"postgresql://{info.user}:{info.password}@/{info.dbname}?host={info.host}&port={info.port}"
    environment = {
        **os.environ, "DATABASE_URL": url, "COSTAPP_FIELD_KEYS": settings.FIELD_KEYS[0],
        "COSTAPP_ALLOW_PRIVATE_TARGETS": settings.ALLOW_PRIVATE_TARGETS[0],
    }  # fmt: skip
    worker = subprocess.Popen([sys.executable, "-c", WORKER, NOW.isoformat()], env=environment)
    assert receiver.begun.wait(60)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    receiver.hold.set()
    assert log(conn) == [("pending", 1, "")]
    clock.move(seconds=30)
    assert deliver(conn, courier) == 0  # the claim still holds: nobody sends it twice while it might be under way
    clock.move(seconds=61)
    assert deliver(conn, courier) == 1
    first, second = receiver.received
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.json == second.json
    assert log(conn) == [("sent", 2, "")]


def test_what_joins_the_group_after_a_claim_is_another_message(conn, project, receiver, courier, clock):
    hook = add_channel(project, url=receiver.url("broken"))
    fire(conn, finding(project), hook)
    clock.move(seconds=30)
    deliver(conn, courier)
    fire(conn, finding(project, key="rule/1/other/x"), hook, now=clock.now)
    clock.move(minutes=10)
    deliver(conn, courier)
    first, again = receiver.received
    assert first.body == again.body


# --- storms


def test_one_incident_is_one_message_per_channel(conn, project, receiver, courier, clock):
    hooks = [add_channel(project, "webhook", name, url=receiver.url("ok")) for name in ("a", "b")]
    for number in range(200):
        level = Level.CRITICAL if number == 137 else Level.WARNING
        fire(conn, finding(project, key=f"rule/1/f{number}/x", level=level, title=f"f{number} is dear."), *hooks,
             now=NOW + number * SECOND / 10)  # fmt: skip
    clock.move(seconds=29)
    assert deliver(conn, courier) == 0
    clock.move(seconds=1)
    assert deliver(conn, courier) == 2
    for got in receiver.received:
        assert got.json["heading"] == "200 alerts. f137 is dear."
        assert (len(got.json["items"]), got.json["more"]) == (10, 190)
    clock.move(hours=1)
    assert deliver(conn, courier) == 0


def test_an_alert_that_opens_and_ends_before_it_is_told_is_one_line(conn, project, receiver, courier, clock):
    hook = add_channel(project, url=receiver.url("ok"))
    fire(conn, finding(project), hook)
    with conn.transaction():
        alerts.resolve(conn, project.pk, [finding(project).key], {finding(project).key: "Back to $2."}, NOW + SECOND)
    clock.move(minutes=10)
    assert deliver(conn, courier) == 1
    [item] = receiver.received[0].json["items"]
    assert (item["event"], item["title"]) == ("resolved", "Back to $2.")


def test_a_channel_gets_so_many_messages_an_hour_and_then_one_for_everything(
    conn, project, receiver, courier, clock, settings
):
    settings.ALERT_MESSAGES_PER_HOUR = 5
    hook = add_channel(project, url=receiver.url("ok"))
    for number in range(60):
        fire(conn, budget(project, key=f"budget/{number}/x"), hook, now=clock.now)
        deliver(conn, courier)
        clock.move(seconds=10)
    clock.move(minutes=5)
    deliver(conn, courier)
    counts = [len(got.json["items"]) + got.json["more"] for got in receiver.received]
    assert counts[:5] == [1] * 5
    assert sum(counts) == 60
    assert len(counts) <= 8
    assert receiver.received[-1].json["heading"].endswith("is $81.20, above $80.00.")


def test_a_silence_made_while_a_message_waits_holds_it_back(conn, project, receiver, courier, clock):
    hook = add_channel(project, url=receiver.url("ok"))
    fire(conn, finding(project), hook)
    Silence.objects.create(project=project, starts_at=NOW, ends_at=NOW + HOUR, reason="deploy")
    clock.move(minutes=1)
    assert deliver(conn, courier) == 0
    assert rows(conn, "select state, held_by from notification") == [("suppressed", "silence")]
    clock.move(hours=1)
    assert deliver(conn, courier) == 1


def test_a_channel_that_is_switched_off_by_hand_keeps_its_messages_for_a_day(conn, project, receiver, courier, clock):
    hook = add_channel(project, url=receiver.url("ok"), enabled=False)
    fire(conn, budget(project), hook)
    assert deliver(conn, courier) == 0
    Channel.objects.filter(pk=hook.pk).update(enabled=True)
    clock.move(hours=1)
    assert deliver(conn, courier) == 1


def test_messages_of_a_deleted_channel_are_closed(conn, project, receiver, courier, clock):
    hook = add_channel(project, url=receiver.url("ok"))
    fire(conn, budget(project), hook)
    hook.delete()
    deliver(conn, courier)
    assert rows(conn, "select state, reason from notification") == [("failed", "The channel was deleted.")]


def test_projects_do_not_mix_in_a_message(conn, project, receiver, courier, clock):
    other = Project.objects.create(slug="other", name="Other")
    here, there = add_channel(project, url=receiver.url("ok")), add_channel(other, url=receiver.url("ok"))
    fire(conn, budget(project, title="ours"), here)
    fire(conn, budget(other, title="theirs"), there)
    deliver(conn, courier)
    assert sorted((got.json["project"], got.json["items"][0]["title"]) for got in receiver.received) == [
        ("acme", "ours"), ("other", "theirs"),
    ]  # fmt: skip


# --- heartbeats


def test_an_evaluation_that_stops_is_told_once_and_its_return_too(conn, project, receiver, courier, clock):
    hook = add_channel(project, url=receiver.url("ok"))
    evaluation_heartbeat(conn, "budgets", NOW, interval_s=60)
    clock.move(seconds=119)
    assert check_heartbeats(conn, clock.now) == []
    clock.move(seconds=2)
    for _ in range(3):
        assert [beat.name for beat in check_heartbeats(conn, clock.now)] == ["budgets"]
        clock.move(seconds=30)
        deliver(conn, courier)
    [told] = receiver.received
    assert "has not evaluated budgets since 2026-05-29 12:00 UTC" in told.json["heading"]
    assert [trouble.level for trouble in channel_matters(conn, project.pk, clock.now)] == ["bad"]
    evaluation_heartbeat(conn, "budgets", clock.now, interval_s=60)
    assert check_heartbeats(conn, clock.now) == []
    clock.move(minutes=10)
    deliver(conn, courier)
    assert "evaluates budgets again" in receiver.received[-1].json["heading"]
    assert hook.pk


# --- test message


def test_a_test_message_is_sent_at_once_and_logged(conn, project, receiver):
    slack = add_channel(project, "slack_webhook", url=receiver.url("ok"))
    outcome = send_test(conn, slack, "mia", NOW)
    assert outcome.words == "Slack answered 200."
    assert "Test message" in receiver.received[0].body.decode()
    revoked = add_channel(project, "slack_webhook", "old", url=receiver.url("revoked"))
    assert "revoked" in send_test(conn, revoked, "mia", NOW).words
    assert rows(conn, "select state from notification order by id") == ["sent", "failed"]


def test_old_alerts_and_messages_are_deleted_and_open_ones_kept(conn, project, receiver, courier):
    hook = add_channel(project, url=receiver.url("ok"))
    for key in ("open", "over"):
        fire(conn, budget(project, key=key), hook)
    with conn.transaction():
        alerts.resolve(conn, project.pk, ["over"], {}, NOW)
    deliver(conn, courier)
    notifications.prune(conn, NOW + SECOND)
    assert rows(conn, "select key from alert") == ["open"]
    assert rows(conn, "select count(*) from notification where state <> 'pending'") == [0]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("0", 0), ("", None), ("soon", None), ("-5", None), ("9" * 30, 86400),
     ("Fri, 29 May 2026 12:01:00 GMT", 60), ("Fri, 29 May 2020 12:01:00 GMT", 0)],
)  # fmt: skip
def test_retry_after_is_read_as_seconds_or_a_date(value, seconds):
    found = http.retry_after(value, NOW)
    assert found == (None if seconds is None else timedelta(seconds=seconds))


def test_a_result_that_cannot_be_written_leads_to_a_repetition(conn, project, receiver, clock, caplog):
    hook = add_channel(project, url=receiver.url("ok"))
    fire(conn, budget(project), hook)

    def no_connection():
        raise psycopg.OperationalError("gone")

    courier = Courier(no_connection, clock)
    deliver(conn, courier)
    clock.move(minutes=2)
    courier.open_connection = pipeline.open_connection
    deliver(conn, courier)
    courier.pool.shutdown()
    first, second = receiver.received
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
