"""Data health and the Overview own up to channels that do not work; the delivery log is on Data health."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils.html import escape

from costapp.core.alerts import Fact, Finding, Level, Source
from costapp.models import Channel
from costapp.services import alerts
from costapp.services.channels.message import broken, later
from costapp.services.deliver import claim, settle
from costapp.storage.notifications import beat
from tests.web.conftest import EVIL, add_member

pytestmark = pytest.mark.django_db


@pytest.fixture
def channel(world):
    return Channel.objects.create(project=world.project, name=f"#finops {EVIL}", kind="webhook")


def fire(world, channel):
    key = "budget/1/checkout/2026-05"
    found = Finding(
        world.project.pk, Source.BUDGET, 1, key, Level.CRITICAL, f"{EVIL} is over its budget.", {"feature": EVIL},
        (Fact("Spent", "$1"),), "", "/p/acme/", key, None, None, None,
    )  # fmt: skip
    alerts.open_alerts(connection.connection, [found], {key: [channel.pk]}, world.now)
    [post] = claim(connection.connection, world.now)
    return post


def pages(world):
    client = world.client()
    return client.get("/p/acme/health/").content.decode(), client.get("/p/acme/").content.decode()


def test_without_channels_nothing_is_said_and_with_them_that_messages_go_out(world, channel):
    health, overview = pages(world)
    assert "Messages go out" in health
    assert "Channel" not in overview


def test_a_channel_that_switched_itself_off_is_on_both_pages_once(world, channel):
    post = fire(world, channel)
    settle(connection.connection, post, broken("Slack answered 404: the address was revoked."), world.now, 0.5)
    health, overview = pages(world)
    assert f"Channel {escape(channel.name)} is switched off" in health
    assert "the address was revoked" in health
    assert overview.count("is switched off") == 1
    assert EVIL not in health + overview


def test_a_message_that_waits_is_said_with_the_reason_and_logged(world, channel):
    post = fire(world, channel)
    settle(connection.connection, post, later("hooks.example.com: no answer in time."), world.now, 0.5)
    health, overview = pages(world)
    assert "does not take messages" in health
    assert "does not take messages" in overview
    assert health.count("no answer in time") == 2
    assert '<span class="badge warn">pending</span>' in health


def test_a_stopped_evaluation_is_said_even_when_no_worker_runs(world, channel):
    beat(connection.connection, "budgets", world.now - timedelta(minutes=10), 60)
    health, overview = pages(world)
    assert "Costapp has not evaluated budgets" in health
    assert "Costapp has not evaluated budgets" in overview


def test_another_project_does_not_see_the_log(world, channel):
    from tests.web.conftest import add_project

    fire(world, channel)
    other = add_project()
    client = world.client(add_member(other))
    assert "over its budget" not in client.get(f"/p/{other.slug}/health/").content.decode()
    assert client.get("/p/acme/health/").status_code == 404
