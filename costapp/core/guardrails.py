"""Guardrails: when a session, trace or user does too much within minutes, and what an app that asks is told.

A guardrail adds up calls whose *event times* lie within its minutes, so that late and repeated deliveries change
nothing. Crossing the limit begins an incident, which lasts until nothing has crossed for as long as the guardrail
holds. Pure: the sums come from storage, the clock from the caller.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import NamedTuple, TypeVar

from costapp.core.budgets import BUDGET_DIMENSIONS
from costapp.core.money import format_usd

_Each = TypeVar("_Each")

MAX_MINUTES = 120
#: A crossing counts while its call is at most so old: delivery may take that long, history is not a runaway.
LATE = timedelta(minutes=15)
#: Clocks of apps may be ahead by so much; what lies further in the future is not looked at.
AHEAD = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Per(StrEnum):
    """Whose calls are added up."""

    SESSION = "session"
    TRACE = "trace"
    USER = "user"


class Metric(StrEnum):
    COST = "cost"
    CALLS = "calls"
    TOKENS = "tokens"


class Action(StrEnum):
    WARN = "warn"
    BLOCK = "block"


_DOES = {Metric.COST: "spends", Metric.CALLS: "makes", Metric.TOKENS: "uses"}
_DID = {Metric.COST: "spent", Metric.CALLS: "made", Metric.TOKENS: "used"}


class Guardrail(NamedTuple):
    """One rule as it is evaluated. ``limit`` is in nano-dollars, calls or tokens, as the metric says."""

    id: int
    project_id: int
    name: str
    per: Per
    metric: Metric
    limit: int
    minutes: int
    hold_minutes: int
    action: Action
    feature: str = ""  #: "" = any
    environment: str = ""

    @property
    def window(self) -> timedelta:
        return timedelta(minutes=self.minutes)

    @property
    def hold(self) -> timedelta:
        return timedelta(minutes=self.hold_minutes)

    @property
    def reach(self) -> timedelta:
        """How far back a crossing may lie to count."""
        return max(LATE, self.window)

    def figure(self, value: int) -> str:
        """A sum in words: ``212 calls``, ``$3.10``, ``1,200,000 tokens``."""
        if self.metric is Metric.COST:
            return format_usd(value)
        unit = self.metric.value if value != 1 else self.metric.value.removesuffix("s")
        return f"{value:,} {unit}"

    def told(self, subject: str, value: int) -> str:
        """A crossing as a sentence: ``Session s-1 made 212 calls within 5 minutes; the limit is 200.``"""
        whose = f"{self.per.value.capitalize()} {subject}"
        did, within = _DID[self.metric], minutes_text(self.minutes)
        return f"{whose} {did} {self.figure(value)} within {within}; the limit is {self.figure(self.limit)}."

    def sentence(self) -> str:
        """What the rule does: ``Warns when a session makes 200 calls within 5 minutes.``"""
        act = "Warns" if self.action is Action.WARN else "Blocks for " + minutes_text(self.hold_minutes)
        where = [text for text in (self.feature and f"in {self.feature}", self.environment) if text]
        place = f" ({', '.join(where)})" if where else ""
        within = minutes_text(self.minutes)
        return f"{act} when a {self.per.value} {_DOES[self.metric]} {self.figure(self.limit)} within {within}{place}."


class Crossing(NamedTuple):
    """Calls of one subject that, with those in the window before them, reached the limit."""

    subject: str
    first_at: datetime  #: start of the first such call in reach, after those of the last incident
    last_at: datetime  #: start of the last one
    value: int  #: the largest sum within the window


class Incident(NamedTuple):
    """One firing of a guardrail for one subject, from the first crossing until it has held long enough."""

    subject: str
    opened_at: datetime  #: event time of its first crossing: names it for ever
    crossed_to: datetime  #: event time of the last crossing known
    until: datetime  #: the answer holds until then
    value: int
    is_open: bool


class Change(NamedTuple):
    """What a crossing makes of the incident before it."""

    incident: Incident
    is_new: bool


def follow(guardrail: Guardrail, before: Incident | None, crossing: Crossing, now: datetime) -> Change | None:
    """The incident after a crossing; None if the crossing says nothing new.

    Data that only comes again, or late data of an incident that is over, opens nothing: only a call after the last
    known crossing does.
    """
    until = now + guardrail.hold
    fresh = Incident(crossing.subject, crossing.first_at, crossing.last_at, until, crossing.value, is_open=True)
    if before is None:
        return Change(fresh, True)
    if crossing.last_at <= before.crossed_to:
        if before.is_open and crossing.value > before.value:
            return Change(before._replace(value=crossing.value), False)
        return None
    if before.is_open:
        value = max(before.value, crossing.value)
        return Change(before._replace(crossed_to=crossing.last_at, until=until, value=value), False)
    first_at = max(crossing.first_at, before.crossed_to + timedelta(microseconds=1))
    return Change(fresh._replace(opened_at=first_at), True)


def alert_key(guardrail: Guardrail, incident: Incident) -> str:
    """The same for every sight of one incident, another one for the next."""
    window = (incident.opened_at - _EPOCH) // timedelta(microseconds=1)
    return f"guardrail/{guardrail.id}/{guardrail.per}/{incident.subject}/{window}"


def minutes_text(minutes: int) -> str:
    if minutes % 60 == 0:
        return "an hour" if minutes == 60 else f"{minutes // 60} hours"
    return "a minute" if minutes == 1 else f"{minutes} minutes"


# -- what an app that asks is told ---------------------------------------------------------------------------------


class Decision(IntEnum):
    """The stricter the larger."""

    ALLOW = 0
    WARN = 1
    BLOCK = 2

    @property
    def word(self) -> str:
        return self.name.lower()


#: What a question may name: whom guardrails are about, and what budgets can be for.
ASKABLE = frozenset({*Per, *BUDGET_DIMENSIONS})


class Stop(NamedTuple):
    """An open incident as a question meets it."""

    per: str
    subject: str
    decision: Decision
    reason: str
    until: datetime
    feature: str = ""  #: concerns only this feature; "" = any
    environment: str = ""

    def concerns(self, question: Mapping[str, str]) -> bool:
        """A question that does not say its feature is about all of them."""
        return question.get(self.per) == self.subject and all(
            not own or question.get(name, own) == own
            for name, own in (("feature", self.feature), ("environment", self.environment))
        )


class Allowance(NamedTuple):
    """A budget's standing in its current period, for one subject."""

    name: str
    scope: Mapping[str, Collection[str]]  #: dimension -> its values; {} = the whole project
    limit_nano: int
    spent_nano: int
    period_end: datetime
    decision: Decision  #: what the budget says by itself
    reason: str

    @property
    def left_nano(self) -> int:
        return max(0, self.limit_nano - self.spent_nano)

    def concerns(self, question: Mapping[str, str]) -> bool:
        return all(question.get(name) in values for name, values in self.scope.items())


#: A budget without a threshold of its own below 100 % warns from here.
WARNS_AT_PERCENT = 80


def budget_says(
    name: str, subject: str, *, spent_nano: int, limit_nano: int, thresholds: Iterable[int], blocks: bool
) -> tuple[Decision, str]:
    """What a budget tells apps: nothing, from its highest threshold below 100 % of spend on *warn*, spent *block*.

    ``thresholds`` are the percentages of actual spend at which people are told.
    """
    percent = max((each for each in thresholds if each < 100), default=WARNS_AT_PERCENT)
    if spent_nano * 100 < percent * limit_nano:
        return Decision.ALLOW, ""
    whose = f"{name} ({subject})" if subject else name
    figures = f"{format_usd(spent_nano)} of {format_usd(limit_nano)}"
    if spent_nano < limit_nano:
        return Decision.WARN, f"Budget {whose} is nearly spent: {figures}."
    return Decision.BLOCK if blocks else Decision.WARN, f"Budget {whose} is spent: {figures}."


class Answer(NamedTuple):
    decision: Decision
    reason: str
    until: datetime | None = None  #: of a block: when asking again may help
    budget: Allowance | None = None  #: the one with the smallest share left
    known: bool = True  #: False: nothing could be looked up, the project's default speaks


class Standing:
    """Everything that questions about one project are answered from. Made anew when something changed."""

    def __init__(self, stops: Iterable[Stop] = (), allowances: Iterable[Allowance] = ()) -> None:
        self._stops: dict[tuple[str, str], list[Stop]] = {}
        for stop in stops:
            self._stops.setdefault((stop.per, stop.subject), []).append(stop)
        self._allowances: dict[tuple[str, str], list[Allowance]] = {}
        for allowance in allowances:
            name = min(allowance.scope, default="")
            for value in allowance.scope.get(name, ("",)):
                self._allowances.setdefault((name, value), []).append(allowance)

    def answer(self, question: Mapping[str, str], now: datetime) -> Answer:
        """The strictest of what concerns the question; of equal ones the one that lasts longest."""
        stops = [stop for stop in self._met(self._stops, question) if stop.until > now and stop.concerns(question)]
        budgets = [
            allowance
            for allowance in (*self._allowances.get(("", ""), ()), *self._met(self._allowances, question))
            if allowance.period_end > now and allowance.concerns(question)
        ]
        tightest = min(budgets, key=_share_left, default=None)
        reasons = [(stop.decision, stop.until, stop.reason) for stop in stops]
        reasons += [(budget.decision, budget.period_end, budget.reason) for budget in budgets if budget.decision]
        if not reasons:
            return Answer(Decision.ALLOW, "", None, tightest)
        decision, until, reason = max(reasons)
        return Answer(decision, reason, until if decision is Decision.BLOCK else None, tightest)

    @staticmethod
    def _met(index: Mapping[tuple[str, str], Sequence[_Each]], question: Mapping[str, str]) -> list[_Each]:
        return [each for place in question.items() for each in index.get(place, ())]


def _share_left(allowance: Allowance) -> tuple[int, int]:
    """Orders by the share left without dividing: parts per million, then the amount."""
    limit = max(1, allowance.limit_nano)
    return (allowance.left_nano * 1_000_000 // limit, allowance.left_nano)


def unknown(reason: str, *, closed: bool) -> Answer:
    """The answer when nothing can be looked up: the project says whether its apps go on."""
    return Answer(Decision.BLOCK if closed else Decision.ALLOW, f"unknown: {reason}", known=False)
