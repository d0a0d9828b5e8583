"""Hosted services through apprise: what is sent, and what its failures mean."""

import pytest

from costapp.core.alerts import Source
from costapp.models import Channel
from costapp.services.channels import apprise_channel
from tests.alerts.conftest import add_channel, deliver, finding, fire, rows

TOKEN = "secretpartsecretpartsecretpart"


@pytest.fixture
def discord(project, receiver, monkeypatch):
    """The real plugin, with its fixed host replaced by the receiver."""
    apprise_channel._library()
    from apprise.plugins.discord import NotifyDiscord

    def point_to(answer):
        url = f"http://127.0.0.1:{receiver.port}/{answer}?"  # it adds its id and token at the end
        monkeypatch.setattr(NotifyDiscord, "notify_url", url)
        return add_channel(project, "apprise", "discord", url=f"discord://123456789/{TOKEN}")

    return point_to


def test_a_hosted_service_gets_title_figures_and_link(conn, project, receiver, courier, discord):
    fire(conn, finding(project, source=Source.BUDGET), discord("ok"))
    deliver(conn, courier)
    [got] = receiver.received
    text = got.body.decode()
    for part in ("Cost of support-bot is $81.20", "Limit: $80.00", "Mostly gpt-4o", "/p/acme/feature/?is=support-bot"):
        assert part in text
    assert rows(conn, "select state, answer from notification") == [("sent", "Discord took it.")]


@pytest.mark.parametrize(
    ("answer", "state", "off"),
    [("revoked", "pending", True), ("broken", "pending", False), ("invalid", "failed", False)],
)
def test_its_failures_mean_what_they_say(conn, project, receiver, courier, discord, capfd, answer, state, off):
    channel = discord(answer)
    fire(conn, finding(project, source=Source.BUDGET), channel)
    deliver(conn, courier)
    assert rows(conn, "select state from notification where channel_id = %s", channel.pk) == [state]
    channel = Channel.objects.get(pk=channel.pk)
    assert bool(channel.disabled_reason) is off
    said = "".join(capfd.readouterr()) + str(rows(conn, "select notification::text from notification"))
    assert TOKEN not in said


def test_a_redirect_of_a_hosted_service_is_not_followed(conn, project, receiver, courier, discord):
    fire(conn, finding(project, source=Source.BUDGET), discord("moved"))
    deliver(conn, courier)
    assert [each.path for each in receiver.received if "elsewhere" in each.path] == []


def test_what_cannot_be_allowed_any_more_switches_the_channel_off(conn, project, receiver, courier):
    channel = add_channel(project, "apprise", url=f"json://127.0.0.1:{receiver.port}/ok")
    fire(conn, finding(project, source=Source.BUDGET), channel)
    deliver(conn, courier)
    assert receiver.received == []
    channel.refresh_from_db()
    assert "not among the services" in channel.disabled_reason


@pytest.mark.parametrize("schema", sorted(apprise_channel.SERVICES))
def test_every_allowed_service_is_one_that_apprise_knows(schema):
    from apprise.manager_plugins import NotificationManager

    apprise_channel._library()
    assert schema in NotificationManager()
