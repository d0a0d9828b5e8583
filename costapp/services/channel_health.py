"""What is wrong with a project's channels and evaluations, in sentences for Data health and the Overview."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg

from costapp.storage import notifications as store


class Trouble(NamedTuple):
    level: str  # warn | bad
    title: str
    words: str
    todo: str


def channel_matters(conn: psycopg.Connection[Any], project_id: int, now: datetime | None = None) -> list[Trouble]:
    """Empty when messages go out and everything is evaluated."""
    return channel_report(conn, project_id, now or datetime.now(UTC))[1]


def channel_report(conn: psycopg.Connection[Any], project_id: int, now: datetime) -> tuple[bool, list[Trouble]]:
    """Whether there are channels that are on, and what is wrong."""
    states = store.channel_states(conn, project_id, now)
    troubles = [_channel(state) for state in states if not state.works]
    return bool(states), troubles + [_stopped(beat) for beat in store.stopped(conn, now)]


def _channel(state: store.ChannelState) -> Trouble:
    if state.disabled_reason:
        waiting = f" Messages that wait: {state.waiting}." if state.waiting else ""
        return Trouble(
            "bad", f"Channel {state.name} is switched off", f"{state.disabled_reason}{waiting}",
            "Repair it in the admin under channels and switch it on again: what waits is sent for a day.",
        )  # fmt: skip
    if state.waiting and state.waiting_since:
        return Trouble(
            "warn", f"Channel {state.name} does not take messages",
            f"{state.waiting} wait since {state.waiting_since:%Y-%m-%d %H:%M} UTC. {state.last_error}",
            "They are tried again by themselves for a day.",
        )  # fmt: skip
    return Trouble(
        "warn", f"Channel {state.name} lost messages",
        f"{state.failed} were given up in the last day. {state.last_error}",
        "The delivery log in the admin says which.",
    )  # fmt: skip


def _stopped(beat: store.Heartbeat) -> Trouble:
    return Trouble(
        "bad", f"Costapp has not evaluated {beat.name}",
        f"The last run was at {beat.at:%Y-%m-%d %H:%M} UTC; it should run every {beat.interval_s} s.",
        "See that the worker and beat run.",
    )  # fmt: skip
