"""Turns transitions of the state machine into alerts: words, figures, the driver and the page behind them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import psycopg

from costapp.core.alert_metrics import USD, Family, amount_text
from costapp.core.alert_rules import Kind, Reading, Severity, State, Transition
from costapp.core.alert_sentences import alert_title, facts, over_title
from costapp.core.alerts import Change, Fact, Finding, Level, Source, bounded_key
from costapp.models import AlertRule, Project
from costapp.services import alerts
from costapp.services.rule_readings import NOTHING, Reader
from costapp.storage.reports import spend
from costapp.storage.reports.cells import needs_charges
from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.rule_readings import SUBJECTS

Connection = psycopg.Connection[Any]

LEVELS = {Severity.WARNING: Level.WARNING, Severity.CRITICAL: Level.CRITICAL}
LABELS = {key: subject.label for key, subject in SUBJECTS.items()}
#: So many openings of one evaluation get a driver: each asks the database.
MOST_DRIVERS = 20
#: What a cost is explained by: the first of these that the rule does not split or filter by.
DRIVERS = ("model", "feature", "workload")


class Telling:
    """What an evaluation has to tell about the rules of one question; ``tell`` writes it."""

    def __init__(self, conn: Connection, project: Project, reader: Reader, complete_until: datetime) -> None:
        self.conn, self.project, self.reader, self.complete_until = conn, project, reader, complete_until
        self.drivers = 0
        self._clear()

    def _clear(self) -> None:
        self.findings: list[Finding] = []
        self.channels: dict[str, list[int]] = {}
        self.changes: list[Change] = []
        self.reminders: list[str] = []
        self.over: dict[str, str] = {}

    def about(self, rule: AlertRule, started_at: datetime) -> None:
        """The rule that the next transitions belong to."""
        self.rule, self.started_at, self.wording = rule, started_at, rule.wording(LABELS)

    def add(self, subject: str, reading: Reading, state: State, transitions: Sequence[Transition]) -> int:
        """Returns how many alerts this opens."""
        name = subject_name(self.rule.by, subject)
        for transition in transitions:
            key = alert_key(self.rule, subject, transition.opened_at, self.started_at)
            if transition.kind is Kind.OPENED:
                self.findings.append(self._finding(key, subject, name, reading, transition.severity))
                self.channels[key] = [channel.pk for channel in self.rule.channels.all()]
            elif transition.kind is Kind.RESOLVED:
                self.over[key] = over_title(self.wording, name, reading)
            elif transition.kind is Kind.REMINDED:
                self.reminders.append(key)
            else:
                self.changes.append(self._change(key, name, reading, transition.severity))
        return sum(transition.kind is Kind.OPENED for transition in transitions)

    def tell(self, now: datetime) -> None:
        """Alerts, timeline and outbox, in the caller's transaction."""
        if self.findings:
            alerts.open_alerts(self.conn, self.findings, self.channels, now)
        if self.changes:
            alerts.change_levels(self.conn, self.changes, now)
        if self.reminders:
            remind_unseen(self.conn, self.project.pk, self.reminders, now)
        if self.over:
            alerts.resolve(self.conn, self.project.pk, list(self.over), self.over, now)
        self._clear()

    def _finding(self, key: str, subject: str, name: str, reading: Reading, severity: Severity) -> Finding:
        question, end = self.reader.question, self.reader.end
        return Finding(
            project_id=self.project.pk,
            source=Source.RULE,
            source_id=self.rule.pk,
            key=key,
            level=LEVELS[severity],
            title=alert_title(self.wording, name, reading, severity),
            subject={self.rule.by: subject} if self.rule.by else {},
            facts=self._facts(reading, severity),
            driver=self._driver(subject, reading),
            path=page_path(self.project.slug, self.rule, subject, question.scope(end).start, end),
            group_key=f"rule/{self.rule.pk}",
            period_start=question.scope(end).start,
            period_end=end,
            complete_until=self.complete_until,
        )

    def _facts(self, reading: Reading, severity: Severity) -> tuple[Fact, ...]:
        found = facts(self.wording, self.rule.name, reading, severity)
        return (*found, Fact("What to do", self.rule.note)) if self.rule.note else found

    def _change(self, key: str, name: str, reading: Reading, severity: Severity) -> Change:
        title = alert_title(self.wording, name, reading, severity)
        return Change(self.project.pk, key, LEVELS[severity], title, self._facts(reading, severity))

    def _driver(self, subject: str, reading: Reading) -> str:
        """What most of the money went to, for metrics of money; "" for others and beyond the first few."""
        if self.wording.metric.family is Family.ANOMALIES:
            return self.reader.answer.figures[self.reader.end].get(subject, NOTHING).why
        scope = self.reader.question.scope(self.reader.end)
        if self.rule.by:
            scope = scope.where(**{self.rule.by: (subject,)})
        by = next((key for key in DRIVERS if key not in scope.filters), "")
        if self.wording.metric.unit is not USD or not by or needs_charges(scope) or self.drivers >= MOST_DRIVERS:
            return ""
        self.drivers += 1
        top = spend.contributors(self.conn, scope, [by], limit=1)[by]
        if not top or not top[0].cost_nano:
            return ""
        whole = spend.totals(self.conn, scope).cost_nano or 0
        share = 100 * top[0].cost_nano // whole if whole else 0
        value = top[0].value or DIMENSIONS[by].empty
        return f"{share}% of its cost, {amount_text(top[0].cost_nano, USD)}, is {LABELS[by]} {value}."


def remind_unseen(conn: Connection, project_id: int, keys: Sequence[str], now: datetime) -> None:
    """Tell again, but not of what somebody has acknowledged or snoozed."""
    found = {one.key: one for one in alerts.open_of(conn, Source.RULE, [project_id])}
    unseen = [
        key
        for key in keys
        if (one := found.get(bounded_key(key))) and not one.acknowledged_at and (one.snoozed_until or now) <= now
    ]
    if unseen:
        alerts.remind(conn, project_id, unseen, now)


def alert_key(rule: AlertRule, subject: str, opened_at: datetime, started_at: datetime) -> str:
    """The same firing has the same key, and one after a change of the rule another."""
    return f"rule/{rule.pk}/{subject}/{opened_at.isoformat()}/{int(started_at.timestamp())}"


def subject_name(by: str, subject: str) -> str:
    """A subject as people know it; "" for the whole project."""
    return (subject or SUBJECTS[by].empty) if by else ""


def page_path(slug: str, rule: AlertRule, subject: str, start: datetime, end: datetime) -> str:
    """The page that shows the same number: the same cells, subject and filters."""
    pairs = [("is", subject)] if rule.by else []
    if rule.metric == "silence":
        pairs.append(("range", "7d"))
    else:
        pairs += [("from", start.isoformat(timespec="minutes")), ("to", end.isoformat(timespec="minutes"))]
    if rule.the_metric.family is Family.GPU:
        return f"/p/{slug}/gpus/?{urlencode([pair for pair in pairs if pair[0] != 'is'])}"
    if rule.the_metric.family is Family.ANOMALIES:
        return f"/p/{slug}/anomalies/?{urlencode([pair for pair in pairs if pair[0] != 'is'])}"
    pairs += [(key, value) for key, values in rule.filter_pairs for value in values]
    return f"/p/{slug}/{rule.by}/?{urlencode(pairs)}" if rule.by else f"/p/{slug}/?{urlencode(pairs)}"
