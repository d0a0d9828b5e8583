"""When an alert opens, changes and ends: a pure state machine, one state per rule and subject.

A *reading* is what a metric was in one window. ``badness`` turns it into one integer in which more is worse, whatever
the condition, so the machine below knows only thresholds:

    badness >  critical   critical              both for as long as the rule asks
    badness >  warning    warning
    between clear and the lowest threshold      nothing changes: no flapping
    badness <= clear      calm; enough calm readings in a row end the alert

A reading is judged once: its end is remembered, so a repeated, late or recomputed reading changes nothing.
"""

from datetime import datetime, timedelta
from enum import Enum, IntEnum
from typing import NamedTuple

from costapp.core.alert_metrics import PERCENT, PPM, SPREADS, Metric, Unit


class Condition(Enum):
    ABOVE = "above"
    BELOW = "below"
    RISES = "rises"  #: against the period before, by so many percent
    FALLS = "falls"
    OUTSIDE = "outside"  #: the expected band of this hour of the week, by so many usual spreads
    OVER_BAND = "over_band"

    @property
    def compares_periods(self) -> bool:
        return self in (Condition.RISES, Condition.FALLS)

    @property
    def needs_band(self) -> bool:
        return self in (Condition.OUTSIDE, Condition.OVER_BAND)


class NoData(Enum):
    """What a window without any request means."""

    OK = "ok"  #: nothing wrong; an open alert may end
    ALERT = "alert"  #: a problem of its own
    KEEP = "keep"  #: as before, until there is something to judge


class Severity(IntEnum):
    OK = 0
    WARNING = 1
    CRITICAL = 2


class Rule(NamedTuple):
    """What the machine needs of a rule. Thresholds are of ``badness``; at least one is set."""

    metric: str
    condition: Condition
    warning: int | None
    critical: int | None
    clear: int  #: at most the lowest threshold
    minimum_requests: int = 0
    no_data: NoData = NoData.OK
    lasting: timedelta = timedelta()  #: beyond a threshold for this long before it counts
    calm_readings: int = 1  #: so many in a row at or below ``clear`` end an alert
    remind_every: timedelta | None = None


class Band(NamedTuple):
    """What was usual at this hour of the week: the centre of past readings, and how far they lay from it."""

    centre: int
    spread: int  #: > 0


class Reading(NamedTuple):
    """One metric of one subject in the window that ends at ``end``."""

    end: datetime
    value: int | None  #: None = unknown: unpriced, or nothing to divide by
    requests: int = 0
    before: int | None = None  #: the same of the period before
    band: Band | None = None


class State(NamedTuple):
    """All that is remembered of one subject between readings."""

    severity: Severity = Severity.OK  #: of the open alert; OK = none is open
    opened_at: datetime | None = None
    worse: Severity = Severity.OK  #: a higher severity that has not lasted long enough yet
    worse_since: datetime | None = None
    calm: int = 0  #: readings in a row at or below clear
    lower: int = 0  #: readings in a row that would be of a lower severity
    told_at: datetime | None = None
    end: datetime | None = None  #: the last window judged


class Kind(Enum):
    OPENED = "opened"
    ESCALATED = "escalated"
    DEESCALATED = "deescalated"
    REMINDED = "reminded"
    RESOLVED = "resolved"


class Transition(NamedTuple):
    kind: Kind
    severity: Severity  #: afterwards; for RESOLVED the one that ended
    opened_at: datetime  #: with rule and subject the identity of the alert
    at: datetime


def threshold_unit(metric: Metric, condition: Condition) -> Unit:
    """In what thresholds are written: changes in percent, bands in spreads, the rest as the metric itself."""
    if condition.compares_periods:
        return PERCENT
    return SPREADS if condition.needs_band else metric.unit


def badness(reading: Reading, rule: Rule) -> int | None:
    """How bad a reading is; None when it says nothing: unknown, of too few requests, or without any that count."""
    value, condition = reading.value, rule.condition
    if value is None or reading.requests < rule.minimum_requests or _is_missing(reading, rule):
        return None
    if condition is Condition.ABOVE:
        return value
    if condition is Condition.BELOW:
        return -value
    if condition.compares_periods:
        if not reading.before:
            return None
        change = (value - reading.before) * PPM // reading.before
        return change if condition is Condition.RISES else -change
    if reading.band is None:
        return None
    distance = (value - reading.band.centre) * PPM // reading.band.spread
    return abs(distance) if condition is Condition.OUTSIDE else distance


def _is_missing(reading: Reading, rule: Rule) -> bool:
    """Nothing arrived, and the rule has its own answer to that. (Else no request is a cost of 0.)"""
    return reading.requests == 0 and rule.no_data is not NoData.OK


def of_threshold(typed: int, condition: Condition) -> int:
    """A threshold as typed, on the scale of ``badness`` (and back)."""
    return -typed if condition is Condition.BELOW else typed


def usual_clear(lowest: int) -> int:
    """Where an alert ends unless the rule says otherwise: a tenth of the threshold away from it."""
    return lowest - abs(lowest) // 10


def severity_of(bad: int, rule: Rule) -> Severity:
    if rule.critical is not None and bad > rule.critical:
        return Severity.CRITICAL
    if rule.warning is not None and bad > rule.warning:
        return Severity.WARNING
    return Severity.OK


def mildest(rule: Rule) -> Severity:
    return Severity.CRITICAL if rule.warning is None else Severity.WARNING


def is_quiet(reading: Reading, rule: Rule) -> bool:
    """Whether a subject without any remembered state stays without: what most subjects do, most of the time."""
    bad = badness(reading, rule)
    if bad is None:
        return not (rule.no_data is NoData.ALERT and reading.requests == 0)
    return severity_of(bad, rule) is Severity.OK


def step(state: State, reading: Reading, rule: Rule, now: datetime) -> tuple[State, list[Transition]]:
    """The state after a reading, and what people must be told. Judges each window once."""
    transitions: list[Transition] = []
    if state.end is None or reading.end > state.end:
        state = _judged(state, reading, rule, transitions)
        state = state._replace(end=reading.end)
    if transitions:
        return state._replace(told_at=now if state.opened_at else None), transitions
    return _reminded(state, rule, now)


def _judged(state: State, reading: Reading, rule: Rule, out: list[Transition]) -> State:
    bad = badness(reading, rule)
    if bad is not None:
        return _settled(state, reading.end, rule, severity_of(bad, rule), bad <= rule.clear, out)
    if rule.no_data is NoData.OK:  # nothing, or too little to say: as if nothing were wrong
        return _settled(state, reading.end, rule, Severity.OK, True, out)
    if rule.no_data is NoData.ALERT and reading.requests == 0:
        return _settled(state, reading.end, rule, max(mildest(rule), state.severity), False, out)
    return state


def _settled(state: State, end: datetime, rule: Rule, found: Severity, is_calm: bool, out: list[Transition]) -> State:
    state = _raised(state, end, rule, found, out)
    if state.severity is Severity.OK or state.opened_at is None:
        return state
    calm = state.calm + 1 if is_calm else 0
    lower = state.lower + 1 if found < state.severity else 0
    if calm >= rule.calm_readings:
        out.append(Transition(Kind.RESOLVED, state.severity, state.opened_at, end))
        return State()
    if lower >= rule.calm_readings and rule.warning is not None and state.severity is Severity.CRITICAL:
        out.append(Transition(Kind.DEESCALATED, Severity.WARNING, state.opened_at, end))
        return state._replace(severity=Severity.WARNING, calm=calm, lower=0)
    return state._replace(calm=calm, lower=lower)


def _raised(state: State, end: datetime, rule: Rule, found: Severity, out: list[Transition]) -> State:
    """Opens or escalates once ``found`` has lasted; forgets a worse severity that did not."""
    if found <= state.severity:
        return state._replace(worse=Severity.OK, worse_since=None)
    since = state.worse_since or end
    worse = min(found, state.worse) if state.worse else found  # what has lasted since then
    if end - since < rule.lasting:
        return state._replace(worse=worse, worse_since=since)
    opened_at = state.opened_at or end
    kind = Kind.ESCALATED if state.opened_at else Kind.OPENED
    out.append(Transition(kind, worse, opened_at, end))
    rest = found if found > worse else Severity.OK  # a severity above it has only just begun
    return state._replace(
        severity=worse, opened_at=opened_at, worse=rest, worse_since=end if rest else None, calm=0, lower=0
    )


def _reminded(state: State, rule: Rule, now: datetime) -> tuple[State, list[Transition]]:
    if state.opened_at is None or state.end is None or rule.remind_every is None or state.told_at is None:
        return state, []
    if now - state.told_at < rule.remind_every:
        return state, []
    return state._replace(told_at=now), [Transition(Kind.REMINDED, state.severity, state.opened_at, state.end)]
