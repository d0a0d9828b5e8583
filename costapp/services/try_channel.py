"""Send one harmless message to a channel now, and say in words what happened. It is in the delivery log too."""

from datetime import datetime
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from costapp.core.alerts import Fact
from costapp.models import Channel
from costapp.services.channels.message import Item, Message, Outcome, Result
from costapp.services.compose import absolute, local
from costapp.services.deliver import send
from costapp.storage import notifications as store


def send_test(conn: psycopg.Connection[Any], channel: Channel, actor: str, now: datetime) -> Outcome:
    key = f"test/{now.isoformat()}"
    outcome = send(channel, message(channel, actor, key, now))
    state = "sent" if outcome.result is Result.SENT else "failed"
    store.log_test(conn, channel.project_id, channel.pk, key, state, outcome.words, now)
    return outcome


def message(channel: Channel, actor: str, key: str, now: datetime) -> Message:
    project = channel.project
    when = f"{local(now, ZoneInfo(project.time_zone))} ({project.time_zone})"
    heading = f"Test message from Costapp: {channel.name} works."
    facts = (Fact("Project", project.name), Fact("Asked for by", actor), Fact("At", when))
    url = absolute(f"/p/{project.slug}/")
    item = Item("", "", "info", heading, {}, facts, "Nothing happened: this only shows that messages arrive.", url, "")
    digest = sha256(f"{channel.project_id}/{channel.pk}/{key}".encode()).hexdigest()[:32]
    return Message(digest, key, "test", project.slug, project.name, heading, (item,), 0, "")
