"""Send recorded OTLP bodies through the running collectors and report what was understood.

Nothing but the collectors' own doors is used to send; the database is only read, for the result.
"""

import secrets
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from random import Random
from typing import Any, NamedTuple

import psycopg

from costapp.services.replay.recording import Recording
from costapp.services.replay.rewrite import Identities, rewrite
from costapp.services.replay.send import Outcome, Sender
from costapp.services.replay.understood import added, call_of, differences, sums_of
from costapp.storage import understood as stored

POLL_S = 0.25


class NotUnderstoodInTime(Exception):
    """The pipeline did not work off the replayed traces in the time given."""


class Order(NamedTuple):
    """How often and in which order the bodies are sent."""

    repeat: int = 1
    reverse: bool = False
    shuffle: int | None = None  # seed


class _Sent(NamedTuple):
    recording: Recording
    identities: Identities
    bodies: list[bytes]
    remarks: list[str]


def replay(
    conn: psycopg.Connection[Any],
    recordings: Sequence[Recording],
    sender: Sender,
    *,
    project_id: int,
    order: Order,
    keep_ids: bool,
    wait_s: float,
) -> dict[str, Any]:
    """Send the recordings and return what was understood, as `manage.py replay --json` prints it.

    Raises SendError when nothing can be delivered, NotUnderstoodInTime when ``wait_s`` was too short.
    """
    secret = None if keep_ids else secrets.token_bytes(16)
    sent = [_prepared(recording, secret) for recording in recordings]
    parts = [(recorded, number) for recorded in sent for number in range(len(recorded.bodies))]
    for one, number in schedule(parts, order):
        _note(one, number, sender.send(one.recording.bodies[number], one.bodies[number]))
    traces = _settled_traces(conn, sent, project_id, wait_s)
    return _report(conn, sent, traces, project_id)


def _prepared(recording: Recording, secret: bytes | None) -> _Sent:
    bodies, identities = rewrite(recording, secret)
    return _Sent(recording, identities, bodies, remarks=[])


def schedule(bodies: Sequence[Any], order: Order) -> list[Any]:
    """Everything that is to be sent, in the order in which it is to be sent."""
    scheduled = list(bodies) * order.repeat
    if order.reverse:
        scheduled.reverse()
    if order.shuffle is not None:
        Random(order.shuffle).shuffle(scheduled)
    return scheduled


def _note(one: _Sent, number: int, outcome: Outcome) -> None:
    if outcome.says and (remark := f"{one.recording.bodies[number].file}: {outcome.says}") not in one.remarks:
        one.remarks.append(remark)


# -- results -----------------------------------------------------------------------------------


def _settled_traces(
    conn: psycopg.Connection[Any], sent: list[_Sent], project_id: int, wait_s: float
) -> list[set[bytes]]:
    """The traces of each recording, once none of them waits for attribution."""
    deadline = time.monotonic() + wait_s
    while True:
        traces = [one.identities.traces | _event_traces(conn, one, project_id) for one in sent]
        left = stored.marks_left(conn, project_id, set().union(*traces))
        conn.rollback()  # each reading sees what is committed now
        if not left or not wait_s:
            return traces
        if time.monotonic() >= deadline:
            raise NotUnderstoodInTime(
                f"{left} traces were stored but are not attributed after {wait_s:g} s. Is a worker running"
                " (`make run`)? Wait longer with --wait."
            )
        time.sleep(POLL_S)


def _event_traces(conn: psycopg.Connection[Any], one: _Sent, project_id: int) -> set[bytes]:
    times = one.identities.event_times_ns
    return set(stored.event_traces(conn, project_id, _days(times), times)) if times else set()


def _report(
    conn: psycopg.Connection[Any], sent: list[_Sent], traces: list[set[bytes]], project_id: int
) -> dict[str, Any]:
    recordings = [_recording_report(conn, *pair, project_id) for pair in zip(sent, traces, strict=True)]
    return {"recordings": recordings, "totals": added(recordings)}


def _recording_report(conn: psycopg.Connection[Any], one: _Sent, traces: set[bytes], project_id: int) -> dict[str, Any]:
    times = chain(one.identities.event_times_ns, one.identities.span_times_ns)
    calls = [call_of(charge) for charge in stored.charges_of(conn, project_id, _days(times), traces)]
    sums = sums_of(calls)
    report: dict[str, Any] = {"id": one.recording.id, **sums, "calls": calls, "remarks": one.remarks}
    if one.recording.expected:
        report["differences"] = differences(one.recording.expected, sums)
    return report


def _days(times_ns: Iterable[int]) -> tuple[date, date]:
    """The days that charges with these times may lie on, both included."""
    days = sorted(_day(time_ns) for time_ns in times_ns) or [datetime.now(UTC).date()]
    return days[0] - timedelta(days=1), days[-1] + timedelta(days=1)


def _day(time_ns: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=min(time_ns // 1_000_000_000, 253_000_000_000))).date()


__all__ = ["NotUnderstoodInTime", "Order", "replay", "schedule"]
