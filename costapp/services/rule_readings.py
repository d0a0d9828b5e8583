"""Readings of one question, shared by all rules that ask it, and ordered from bad to good for each way to judge."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from costapp.core.alert_bands import band_of
from costapp.core.alert_metrics import METRICS
from costapp.core.alert_rules import Condition, NoData, Reading, Rule, badness
from costapp.core.alert_windows import band_ends, previous_end, start_of
from costapp.models import AlertRule
from costapp.storage.reports.cells import Unanswerable
from costapp.storage.reports.rule_readings import VALUES, Answer, Figures, Question, read, require_readable
from costapp.storage.reports.state import first_day

Connection = psycopg.Connection[Any]

NOTHING = Figures()


class Board(NamedTuple):
    """Subjects of a question from the worst to the best, as one kind of rule sees them."""

    readings: dict[str, Reading]
    order: list[str]  #: those with a badness, worst first
    keys: list[int]  #: minus badness, in the same order
    nothing: Reading  #: of a subject without any call

    def reading(self, subject: str) -> Reading:
        return self.readings.get(subject, self.nothing)

    def beyond(self, rule: Rule) -> list[str]:
        """The subjects that are beyond the lowest threshold of a rule."""
        lowest = min(limit for limit in (rule.warning, rule.critical) if limit is not None)
        return self.order[: bisect_left(self.keys, -lowest)]

    @property
    def worst(self) -> str:
        """The worst subject; without any badness the one with most requests."""
        if self.order:
            return self.order[0]
        return max(self.readings, key=lambda name: (self.readings[name].requests, name), default="")


class Reader:
    """The answer to one question for windows that end at ``end``."""

    def __init__(
        self, question: Question, end: datetime, answer: Answer, beyond: int, first_at: datetime | None
    ) -> None:
        self.question, self.end, self.answer, self.beyond, self.first_at = question, end, answer, beyond, first_at
        self._readings: dict[tuple[str, str], dict[str, Reading]] = {}
        self._boards: dict[tuple[str, Condition, int, bool], Board] = {}

    @classmethod
    def read(
        cls,
        conn: Connection,
        question: Question,
        end: datetime,
        rules: Iterable[AlertRule],
        *,
        limit: int,
        keep: Sequence[str] = (),
    ) -> "Reader":
        """One statement for this window and, where a rule compares, for the windows it is compared with."""
        ends, first_at = {end}, first_day(conn, question.project_id)
        for condition in {rule.the_condition for rule in rules}:
            ends.update(compared_ends(question, condition, end, first_at))
        answer = read(conn, question, sorted(ends), limit=limit, keep=keep)
        return cls(question, end, answer, max(0, answer.subjects - limit), first_at)

    def board(self, rule: AlertRule) -> Board:
        machine = rule.to_rule()
        key = (rule.metric, machine.condition, machine.minimum_requests, machine.no_data is NoData.OK)
        if key not in self._boards:
            readings = self.readings(rule.metric, machine.condition)
            judged = [(-bad, name) for name, found in readings.items() if (bad := badness(found, machine)) is not None]
            judged.sort()
            nothing = Reading(self.end, VALUES[rule.metric](NOTHING), 0)
            self._boards[key] = Board(readings, [name for _, name in judged], [bad for bad, _ in judged], nothing)
        return self._boards[key]

    def readings(self, metric: str, condition: Condition) -> dict[str, Reading]:
        mode = "change" if condition.compares_periods else "band" if condition.needs_band else "plain"
        if (metric, mode) not in self._readings:
            self._readings[metric, mode] = self._made(
                metric, mode, compared_ends(self.question, condition, self.end, self.first_at)
            )
        return self._readings[metric, mode]

    def _made(self, metric: str, mode: str, ends: Sequence[datetime]) -> dict[str, Reading]:
        assert metric in METRICS
        value = VALUES[metric]
        now = self.answer.figures.get(self.end, {})
        past = [self.answer.figures.get(end, {}) for end in ends]
        subjects = set(now).union(*past) if self.question.by else {""}
        readings = {}
        for subject in subjects:
            found = now.get(subject, NOTHING)
            reading = Reading(self.end, value(found), found.requests)
            if mode != "plain":
                before = [value(each[subject]) for each in past if subject in each]
                known = [each for each in before if each is not None]
                if mode == "change":
                    reading = reading._replace(before=known[0] if known else None)
                else:
                    reading = reading._replace(band=band_of(known))
            readings[subject] = reading
        return readings


def why_unreadable(rule: AlertRule) -> str:
    """Why no table and no index answers a rule, as a sentence; "" where they do. Forms refuse such rules."""
    try:
        require_readable(rule.the_metric, rule.the_window, rule.by, [key for key, _ in rule.filter_pairs])
    except Unanswerable as problem:
        return str(problem)
    except KeyError as name:
        return f"{name} is not known to this version of Costapp."
    return ""


def compared_ends(question: Question, condition: Condition, end: datetime, first_at: datetime | None) -> list[datetime]:
    """Ends of the windows that a condition compares with. A period that began before the first call is none."""
    if condition.compares_periods:
        before = previous_end(end, question.window, question.time_zone)
        began = start_of(before, question.window, question.time_zone)
        return [before] if first_at is not None and first_at <= began else []
    return band_ends(end, question.window, question.time_zone) if condition.needs_band else []
