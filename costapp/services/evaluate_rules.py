"""Judge the windows that ended, for all rules of all projects, and tell what changed.

Rules that read the same share one statement, and only subjects that are beyond a threshold, or of which something is
remembered, go through the state machine. State, alerts and their messages change in one transaction, under the
project's lock: two workers, a crash or a repeated bell open an alert once.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from django.conf import settings

from costapp.core.alert_metrics import Family, grain_of
from costapp.core.alert_rules import NoData, Reading, State, step
from costapp.core.alert_windows import last_edge
from costapp.core.alerts import Source
from costapp.models import AlertRule, Project
from costapp.services import alerts
from costapp.services.rule_readings import Board, Reader, why_unreadable
from costapp.services.rule_telling import Telling, alert_key, remind_unseen
from costapp.storage import rule_states as store
from costapp.storage.connection import RETRYABLE, require_autocommit
from costapp.storage.reports.rule_readings import SILENCE_KNOWN, Question, complete_until
from costapp.storage.rule_states import Pulse, Status

Connection = psycopg.Connection[Any]
log = logging.getLogger(__name__)

#: A window is judged this long after it ended: exporters batch for seconds.
SETTLE = timedelta(seconds=60)
#: Hours of GPUs are split once their calls have ended and been attributed.
GPU_SETTLE = timedelta(minutes=30)
#: Data that waits longer than this to be summed no longer holds evaluation back; the alert says how old it is.
MOST_LAG = timedelta(minutes=15)
#: States of so many rules are in memory at a time.
RULES_AT_ONCE = 50
RECENT = 48  #: values kept for the small chart of a rule


class Clock(NamedTuple):
    """The moment of an evaluation, and what is known at it."""

    now: datetime
    sums_until: datetime
    histograms_until: datetime

    def edge(self, rule: AlertRule, zone: str) -> datetime:
        """End of the newest window of a rule that is over and whole."""
        grain = grain_of(rule.the_metric, rule.the_window)
        if rule.the_metric.family is Family.GPU:
            return last_edge(self.now - GPU_SETTLE, grain, zone)
        until = self.histograms_until if grain != "5m" else self.sums_until
        return last_edge(max(min(until, self.now - SETTLE), self.now - MOST_LAG), grain, zone)


class Due(NamedTuple):
    """A rule and the window to judge."""

    rule: AlertRule
    end: datetime
    status: Status | None


class Tally(NamedTuple):
    """What an evaluation did."""

    rules: int = 0
    subjects: int = 0
    beyond: int = 0
    opened: int = 0

    def __add__(self, other: object) -> "Tally":
        assert isinstance(other, Tally)
        return Tally(*(a + b for a, b in zip(self, other, strict=True)))


def evaluate_rules(conn: Connection, *, now: datetime | None = None, only: int | None = None) -> Tally:
    """All projects (or ``only`` one), one after the other. A project that another worker has is left to it."""
    require_autocommit(conn)
    found = AlertRule.objects.filter(enabled=True).select_related("project").prefetch_related("channels")
    rules: dict[int, list[AlertRule]] = defaultdict(list)
    for rule in found.order_by("project_id", "id"):
        if not why_unreadable(rule):
            rules[rule.project_id].append(rule)
    total = Tally()
    for project_id in store.projects_with_rules(conn) if only is None else [only]:
        try:
            with conn.transaction():
                if store.try_lock_project(conn, project_id):
                    total += _evaluate_project(conn, project_id, rules.get(project_id, []), now)
        except RETRYABLE:
            continue  # the next bell finds the same windows
        except psycopg.OperationalError:
            raise
        except Exception:  # of one project, whose page then says that its rules are not judged
            log.exception("The alert rules of project %s cannot be judged.", project_id)
    return total


def _evaluate_project(conn: Connection, project_id: int, rules: list[AlertRule], now: datetime | None) -> Tally:
    began = time.perf_counter_ns()
    clock = _clock(conn, project_id, now)
    statuses = _forget_what_is_gone(conn, project_id, rules, clock.now)
    due, waiting = _due(rules, statuses, clock)
    tally = Tally()
    for question, asked in _by_question(due):
        tally += _evaluate_question(conn, question, asked[0].rule.project, asked, clock)
    if waiting:
        _remind(conn, waiting, clock.now)
    took_us = (time.perf_counter_ns() - began) // 1000
    if tally.rules or not rules:
        store.write_pulse(conn, project_id, Pulse(clock.now, took_us, len(rules), tally.subjects, tally.beyond))
    else:
        store.touch_pulse(conn, project_id, clock.now)
    return tally


def _clock(conn: Connection, project_id: int, now: datetime | None) -> Clock:
    clock, sums = complete_until(conn, project_id, with_histograms=False)
    _, histograms = complete_until(conn, project_id, with_histograms=True)
    return Clock(now or clock, sums, histograms)


def _forget_what_is_gone(
    conn: Connection, project_id: int, rules: Sequence[AlertRule], now: datetime
) -> dict[int, Status]:
    """Rules that were deleted, switched off or now watch something else: their alerts end without a message."""
    statuses = store.statuses(conn, project_id)
    watched = {rule.pk: rule.fingerprint for rule in rules}
    gone = {rule_id for rule_id, status in statuses.items() if watched.get(rule_id) != status.fingerprint}
    if gone:
        keys = [one.key for one in alerts.open_of(conn, Source.RULE, [project_id]) if one.source_id in gone]
        titles = dict.fromkeys(keys, "Resolved. The rule was changed or switched off.")
        alerts.resolve(conn, project_id, keys, titles, now, tell=False)
        store.forget_rules(conn, project_id, sorted(gone))
    return {rule_id: status for rule_id, status in statuses.items() if rule_id not in gone}


def _due(
    rules: Iterable[AlertRule], statuses: dict[int, Status], clock: Clock
) -> tuple[list[Due], list[tuple[AlertRule, Status]]]:
    """Rules with a window that was not judged yet, and others with alerts that may want a reminder."""
    due, waiting = [], []
    for rule in rules:
        status = statuses.get(rule.pk)
        end = clock.edge(rule, rule.project.time_zone)
        if status is None or end > status.evaluated_end:
            due.append(Due(rule, end, status))
        elif rule.remind_minutes and status.open_alerts:
            waiting.append((rule, status))
    return due, waiting


def _remind(conn: Connection, waiting: Sequence[tuple[AlertRule, Status]], now: datetime) -> None:
    """Reminders between windows: nothing is read but what is remembered."""
    project = waiting[0][0].project
    remembered = store.states(conn, project.pk, {rule.pk: status.evaluated_end for rule, status in waiting})
    changed: list[tuple[int, str, State]] = []
    keys: list[str] = []
    for rule, status in waiting:
        machine = rule.to_rule()
        for subject, state in remembered.get(rule.pk, {}).items():
            new, transitions = step(state, Reading(status.evaluated_end, None), machine, now)
            keys += [alert_key(rule, subject, told.opened_at, status.started_at) for told in transitions]
            if transitions:
                changed.append((rule.pk, subject, new))
    if keys:
        store.write_states(conn, project.pk, changed, [])
        remind_unseen(conn, project.pk, keys, now)


def _by_question(due: Iterable[Due]) -> list[tuple[Question, list[Due]]]:
    groups: dict[tuple[Question, datetime], list[Due]] = defaultdict(list)
    for one in due:
        rule, project = one.rule, one.rule.project
        question = Question(
            project.pk, project.time_zone, rule.the_metric.family, rule.the_window, rule.by, rule.filter_pairs
        )
        groups[question, one.end].append(one)
    return [(question, asked) for (question, _), asked in groups.items()]


def _evaluate_question(conn: Connection, question: Question, project: Project, asked: list[Due], clock: Clock) -> Tally:
    """All rules that read the same cells up to the same end."""
    limit = settings.RULE_SUBJECTS
    ids = [due.rule.pk for due in asked]
    keep = store.remembered_subjects(conn, question.project_id, ids, limit=limit)
    reader = Reader.read(conn, question, asked[0].end, [due.rule for due in asked], limit=limit, keep=keep)
    until = clock.histograms_until if question.window.grain != "5m" else clock.sums_until
    telling = Telling(conn, project, reader, until)
    tally = Tally()
    for first in range(0, len(asked), RULES_AT_ONCE):
        tally += _evaluate_some(conn, reader, telling, asked[first : first + RULES_AT_ONCE], clock.now)
    return tally


def _evaluate_some(conn: Connection, reader: Reader, telling: Telling, asked: list[Due], now: datetime) -> Tally:
    project_id = reader.question.project_id
    judged_until = {due.rule.pk: due.status.evaluated_end for due in asked if due.status}
    remembered = store.states(conn, project_id, judged_until)
    changed: list[tuple[int, str, State]] = []
    gone: list[tuple[int, str]] = []
    statuses, tally = [], Tally()
    for due in asked:
        judging = _Judging(due, reader.board(due.rule), remembered.get(due.rule.pk, {}), telling, now)
        judging.judge_all()
        changed += judging.changed
        gone += judging.gone
        statuses.append(judging.status(reader.beyond))
        tally += Tally(1, judging.subjects, reader.beyond, judging.opened)
    store.write_states(conn, project_id, changed, gone)
    store.write_statuses(conn, project_id, statuses)
    telling.tell(now)
    return tally


class _Judging:
    """One rule, one window, all subjects."""

    def __init__(self, due: Due, board: Board, states: dict[str, State], telling: Telling, now: datetime) -> None:
        self.due, self.board, self.states, self.telling, self.now = due, board, states, telling, now
        self.rule = due.rule.to_rule()
        self.changed: list[tuple[int, str, State]] = []
        self.gone: list[tuple[int, str]] = []
        self.open_alerts = self.opened = 0
        self.silent = self._silent() if self.rule.no_data is NoData.ALERT else set()

    @property
    def started_at(self) -> datetime:
        return self.due.status.started_at if self.due.status else self.now

    @property
    def subjects(self) -> int:
        return len(self.board.readings)

    def judge_all(self) -> None:
        beyond = self.board.beyond(self.rule)
        self.telling.about(self.due.rule, self.started_at)
        for subject in beyond:
            self._judge(subject)
        for subject in (self.states.keys() | self.silent) - set(beyond):
            self._judge(subject)

    def _judge(self, subject: str) -> None:
        known = self.states.get(subject)
        state = known or State(end=self.due.status.evaluated_end if self.due.status else None)
        reading = self.board.reading(subject)
        new, transitions = step(state, reading, self.rule, self.now)
        if transitions:
            self.opened += self.telling.add(subject, reading, new, transitions)
        if new.opened_at is not None:
            self.open_alerts += 1
        elif not new.worse:  # rests again
            if known is not None:
                self.gone.append((self.due.rule.pk, subject))
            return
        if known is None or new != known._replace(end=new.end):
            self.changed.append((self.due.rule.pk, subject, new))

    def _silent(self) -> set[str]:
        """Subjects that were seen lately, and now made no request; the whole project always counts as seen."""
        seen = set(self.due.status.known) if self.due.status else set()
        if not self.due.rule.by:
            seen.add("")
        return {subject for subject in seen if not self.board.reading(subject).requests} - self._forgotten(seen)

    def _forgotten(self, seen: set[str]) -> set[str]:
        """Silent for longer than silence is known: no longer part of what is watched."""
        limit = self.due.end - SILENCE_KNOWN
        old = {name for name in seen if (state := self.states.get(name)) and (state.opened_at or limit) < limit}
        return old if self.due.rule.by else set()

    def status(self, beyond: int) -> Status:
        due, before, worst = self.due, self.due.status, self.board.worst
        reading = self.board.reading(worst)
        recent = before.recent if before else []
        if (before is None or due.end > before.evaluated_end) and reading.value is not None:
            recent = [*recent, reading.value][-RECENT:]
        present = {name for name, found in self.board.readings.items() if found.requests}
        known = sorted(present | self.silent)[: settings.RULE_SUBJECTS] if self.rule.no_data is NoData.ALERT else []
        return Status(
            due.rule.pk, due.end, self.now, self.started_at, reading.value, worst, reading.requests, self.subjects,
            beyond, self.open_alerts, due.rule.fingerprint, recent, known,
        )  # fmt: skip
