"""Budgets as arithmetic: limit with carry-over, thresholds, and what of them is new or over. Pure, integers only."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from costapp.core.alerts import Level

#: A threshold that fired is over when the figure is this far below it (percent of the threshold): no flapping.
RECOVERED_BELOW_PERCENT = {"actual": 98, "forecast": 95}
LEAST_PERCENT, MOST_PERCENT = 1, 1000


class Basis(StrEnum):
    ACTUAL = "actual"
    FORECAST = "forecast"


class Threshold(NamedTuple):
    """Percent of the limit, reached by the spend so far or by the forecast of the period."""

    basis: Basis
    percent: int

    @property
    def key(self) -> str:
        return f"{self.basis}-{self.percent}"

    @property
    def level(self) -> Level:
        """From 100 % of actual spend the money is gone; a forecast and the last fifth are a warning."""
        if self.basis is Basis.FORECAST:
            return Level.WARNING if self.percent >= 100 else Level.INFO
        return Level.CRITICAL if self.percent >= 100 else Level.WARNING if self.percent >= 80 else Level.INFO


DEFAULT_THRESHOLDS = (
    Threshold(Basis.ACTUAL, 50), Threshold(Basis.ACTUAL, 80), Threshold(Basis.ACTUAL, 100),
    Threshold(Basis.FORECAST, 100),
)  # fmt: skip


class CarryOver(StrEnum):
    NONE = "none"
    UNSPENT = "unspent"
    BOTH = "both"  # unspent money is added, overspent money is taken away


def carried_nano(mode: CarryOver, *, amount_nano: int, previous_limit_nano: int, previous_spent_nano: int) -> int:
    """What the period before leaves to this one: at most one more amount, and at least none of it."""
    if mode is CarryOver.NONE:
        return 0
    left = previous_limit_nano - previous_spent_nano
    least = -amount_nano if mode is CarryOver.BOTH else 0
    return min(max(left, least), amount_nano)


def reached(value_nano: int | None, limit_nano: int, percent: int) -> bool:
    """Whether an amount is at ``percent`` of the limit, to the nano-dollar. Nothing never reaches anything."""
    return value_nano is not None and value_nano > 0 and value_nano * 100 >= limit_nano * percent


def recovered(value_nano: int | None, limit_nano: int, threshold: Threshold) -> bool:
    """Whether a threshold that fired is over: clearly below again. An unknown value decides nothing."""
    if value_nano is None:
        return False
    return value_nano * 100 * 100 < limit_nano * threshold.percent * RECOVERED_BELOW_PERCENT[threshold.basis]


class State(StrEnum):
    """Of a threshold that was reached in a period."""

    OPEN = "open"  # its alert is open
    COVERED = "covered"  # a higher threshold says it: closed without a word
    OVER = "over"  # clearly below again


class Verdict(NamedTuple):
    """The next state of each threshold that was ever reached, and what people are told."""

    states: Mapping[str, State]
    fires: tuple[Threshold, ...]  #: reached now, and not since the period began or it was last over
    told: tuple[Threshold, ...]  #: those of ``fires`` that no higher one covers
    recovers: tuple[Threshold, ...]  #: were open, are over
    closes: tuple[Threshold, ...]  #: were open, are covered now


def judge(
    thresholds: Iterable[Threshold], *, limit_nano: int, spent_nano: int, forecast_nano: int | None,
    before: Mapping[str, State],
) -> Verdict:  # fmt: skip
    """Which thresholds are new and which are over. Each fires once; a lower one never mutes a higher one."""
    value = {Basis.ACTUAL: spent_nano, Basis.FORECAST: forecast_nano}
    ordered = sorted(set(thresholds))
    states: dict[str, State] = {}
    fires: list[Threshold] = []
    for threshold in ordered:
        known, amount = before.get(threshold.key), value[threshold.basis]
        if known in (None, State.OVER):
            if reached(amount, limit_nano, threshold.percent):
                fires.append(threshold)
                states[threshold.key] = State.OPEN
            elif known:
                states[threshold.key] = State.OVER
        elif known:
            states[threshold.key] = State.OVER if recovered(amount, limit_nano, threshold) else known
    standing = [threshold for threshold in ordered if states.get(threshold.key) in (State.OPEN, State.COVERED)]
    for threshold in standing:
        if any(_covers(other, threshold) for other in standing):
            states[threshold.key] = State.COVERED
    was_open = [threshold for threshold in ordered if before.get(threshold.key) is State.OPEN]
    return Verdict(
        states=states,
        fires=tuple(fires),
        told=tuple(threshold for threshold in fires if states[threshold.key] is State.OPEN),
        recovers=tuple(threshold for threshold in was_open if states[threshold.key] is State.OVER),
        closes=tuple(threshold for threshold in was_open if states[threshold.key] is State.COVERED),
    )


def _covers(higher: Threshold, lower: Threshold) -> bool:
    """More of the same; and money that is gone says more than a forecast that it will be."""
    if higher.basis is lower.basis:
        return higher.percent > lower.percent
    return higher.basis is Basis.ACTUAL and higher.percent >= lower.percent


#: What a budget can be for, besides the whole project: the dimensions of reports but for the session.
BUDGET_DIMENSIONS: Mapping[str, str] = {
    "feature": "feature", "team": "team", "user": "user", "model": "model", "environment": "environment",
    "provider": "provider", "service": "service", "workload": "workload", "variant": "variant",
    "prompt_version": "prompt version",
}  # fmt: skip
#: Users are summed per day and feature only: a budget for each user can be narrowed by nothing else.
FILTERS_OF_EACH_USER = frozenset({"feature"})
