"""Sends what is due: claims messages, sends each in a thread of its own, writes down what became of it.

At least once: a worker that dies between sending and writing leaves the claim to run out, and the next one sends the
same message under the same key. One channel that hangs holds one thread, nothing else.
"""

import logging
import random
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from django.conf import settings
from django.urls import reverse

from costapp.core.alerts import Fact, Finding, Level, Source
from costapp.models import Channel
from costapp.services import alerts, sealed
from costapp.services.channels import SENDERS, Sender
from costapp.services.channels.message import ITEMS_SHOWN, Message, Outcome, Result, broken, later
from costapp.services.compose import message_of
from costapp.storage import notifications as outbox
from costapp.storage.alerts import be_durable
from costapp.storage.notifications import Claimed, Limits

logger = logging.getLogger(__name__)

THREADS = 8
LEASE = timedelta(seconds=90)
FIRST_WAIT_S, LONGEST_WAIT_S = 30, 3600
#: Slack takes about one message a second from one sender.
PACE = {Channel.Kind.SLACK_WEBHOOK: timedelta(seconds=1), Channel.Kind.SLACK_BOT: timedelta(seconds=1)}

Connection = psycopg.Connection[Any]


class Post(NamedTuple):
    """A claimed message with all that is needed to send it without the database."""

    claimed: Claimed
    message: Message
    channel: Channel


def limits() -> Limits:
    return Limits(
        lease=LEASE,
        give_up=timedelta(hours=settings.ALERT_RETRY_HOURS),
        per_hour=settings.ALERT_MESSAGES_PER_HOUR,
        interval=timedelta(seconds=settings.ALERT_GROUP_INTERVAL_S),
        channels=THREADS,
        items=ITEMS_SHOWN,
    )


class Courier:
    """Keeps the threads of a process. ``open_connection`` is for writing results: threads share no connection."""

    def __init__(
        self,
        open_connection: Callable[[], Connection],
        clock: Callable[[], datetime],
        *,
        senders: Mapping[str, Sender] = SENDERS,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.open_connection = open_connection
        self.clock = clock
        self.senders = senders
        self.chance = chance
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="courier")
        self.running: set[Future[None]] = set()

    def deliver_due(self, conn: Connection, *, budget_s: float, patience_s: float = 0.5) -> int:
        """Send until nothing is due or the time is up. Returns how many messages were begun.

        Who still sends when nothing else is left for ``patience_s`` goes on by itself, and writes its own result.
        """
        until, count = time.monotonic() + budget_s, 0
        while (left := until - time.monotonic()) > 0:
            self.running = {future for future in self.running if not future.done()}
            free = THREADS - len(self.running)
            posts = claim(conn, self.clock(), free) if free else []
            self.running |= {self.pool.submit(self._work, post) for post in posts}
            count += len(posts)
            if not self.running:
                break
            done, _ = wait(self.running, timeout=min(left, patience_s), return_when="FIRST_COMPLETED")
            if not done and not posts:
                break
        return count

    def _work(self, post: Post) -> None:
        try:
            outcome = send(post.channel, post.message, self.senders)
            with self.open_connection() as conn:
                settle(conn, post, outcome, self.clock(), self.chance())
        except psycopg.Error as error:
            # The claim runs out and the message is sent again, under the same key.
            logger.warning("A result of sending could not be written (%s).", type(error).__name__)


def claim(conn: Connection, now: datetime, channels: int = THREADS) -> list[Post]:
    claimed = outbox.claim(conn, now, limits()._replace(channels=channels))
    found = Channel.objects.select_related("project").in_bulk([each.channel_id for each in claimed])
    posts = []
    for each in claimed:
        channel = found.get(each.channel_id)
        if channel is not None:  # deleted a moment ago: its rows expire
            posts.append(Post(each, message_of(each, channel.project), channel))
    return posts


def send(channel: Channel, message: Message, senders: Mapping[str, Sender] = SENDERS) -> Outcome:
    """Never raises: whatever goes wrong is an outcome. Nothing of the secret gets into log or words."""
    try:
        secret = open_secret(channel)
    except sealed.CannotOpen as problem:
        return broken(str(problem))
    try:
        return senders[channel.kind](channel.config, secret, message)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        logger.error("Sending failed: %s at %s:%s", type(error).__name__, where.filename, where.lineno)
        return later(f"Sending failed inside Costapp ({type(error).__name__}).")


def open_secret(channel: Channel) -> dict[str, str]:
    if not channel.secret:
        return {}
    return sealed.unseal(channel.key_id, bytes(channel.secret), str(channel.seal_id))


def settle(conn: Connection, post: Post, outcome: Outcome, now: datetime, chance: float) -> None:
    """Write down what became of it, and everything that follows from it, in one transaction."""
    claimed, channel = post.claimed, post.channel
    with conn.transaction():
        be_durable(conn)
        if outcome.result is Result.SENT:
            outbox.mark_sent(conn, claimed, outcome.words, now, PACE.get(Channel.Kind(channel.kind), timedelta()))
        elif outcome.result is Result.REJECTED:
            outbox.mark_failed(conn, claimed, outcome.words)
        elif outcome.result is Result.LATER:
            until = now + max(outcome.after or timedelta(), back_off(claimed.attempts, chance))
            outbox.mark_again(conn, claimed, outcome.words, until)
        elif name := outbox.switch_off(conn, claimed, outcome.words, now):
            tell_others(conn, channel, name, outcome.words, now)


def back_off(attempts: int, chance: float) -> timedelta:
    """30 s, 1 min, 2 min ... 1 h, each a fifth more or less, so that many do not come back together."""
    seconds = min(FIRST_WAIT_S * 2 ** min(attempts - 1, 20), LONGEST_WAIT_S)
    return timedelta(seconds=seconds * (0.8 + 0.4 * chance))


def tell_others(conn: Connection, channel: Channel, name: str, words: str, now: datetime) -> None:
    """The owner must hear of it, and not by the channel that is broken."""
    key = f"{trouble_key(channel.pk)}{now.isoformat()}"
    finding = Finding(
        project_id=channel.project_id, source=Source.SYSTEM, source_id=channel.pk, key=key, level=Level.CRITICAL,
        title=f"Channel {name} is switched off: {words}", subject={}, driver="",
        facts=(Fact("Kind", channel.get_kind_display()), Fact("What to do", "Repair it in the admin.")),
        path=reverse("health", kwargs={"slug": channel.project.slug}), group_key=key, period_start=None,
        period_end=None, complete_until=None,
    )  # fmt: skip
    alerts.open_alerts(conn, [finding], {key: outbox.other_channels(conn, channel.project_id, channel.pk)}, now)


def trouble_key(channel_id: int) -> str:
    return f"system/channel/{channel_id}/"


def repaired(conn: Connection, channel: Channel, now: datetime) -> None:
    """Somebody switched the channel on again: what waits goes now, and the alert about it is over."""
    outbox.wake(conn, channel.project_id, channel.pk, now)
    prefix = trouble_key(channel.pk)
    found = alerts.open_of(conn, Source.SYSTEM, [channel.project_id])
    keys = [alert.key for alert in found if alert.key.startswith(prefix)]
    alerts.resolve(conn, channel.project_id, keys, dict.fromkeys(keys, f"Channel {channel.name} works again."), now)
