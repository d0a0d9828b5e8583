"""How many alerts a week people can read, and which rows then deserve one, over thousands of series.

One threshold per series is not enough: what is rare in one series happens every day in ten thousand. Scores are steps
beyond the worst of a usual day, and worst values have an exponential upper tail, so the chance that a quiet series-day
reaches a score is known, and with it the threshold that costs a given number of false alerts a week. Among the rows of
one run, Benjamini and Hochberg's rule (1995) keeps the expected share of false ones below a limit.
"""

from collections.abc import Sequence
from math import exp, inf, log
from typing import NamedTuple

import numpy as np

from anomaly.detect import THRESHOLD

ALERTS_PER_WEEK = 3.0
FALSE_SHARE = 0.1
# Of quiet series-days, measured on the development half of the cost benchmark (benchmarks/anomaly): a score of 5 on one
# day in 150, and e times rarer with each 0.61 beyond.
MEASURED_SCORE, MEASURED_CHANCE, MEASURED_STEP = 5.0, 1 / 150, 0.61
LEAST_DAYS = 200  # series-days before a project's own tail is believed
TAIL_SHARE = 0.05


class Tail(NamedTuple):
    """Chance that the worst score of a quiet series-day is above `score`: `chance` there, e times less per `step`."""

    score: float = MEASURED_SCORE
    chance: float = MEASURED_CHANCE
    step: float = MEASURED_STEP

    def probability(self, score: float) -> float:
        """1 below the tail: nothing is claimed about ordinary scores."""
        return self.chance * exp((self.score - score) / self.step) if score >= self.score else 1.0


def own_tail(worst_of_days: Sequence[float]) -> Tail:
    """The project's own tail from the worst score of each series-day of past weeks, incidents left out.

    Never lighter than the measured one: quiet weeks are no proof that the next is quiet.
    """
    scores = np.asarray(worst_of_days, dtype=np.float64)
    scores = scores[np.isfinite(scores)]
    if len(scores) < LEAST_DAYS:
        return Tail()
    begin = float(np.quantile(scores, 1 - TAIL_SHARE))
    beyond = scores[scores > begin] - begin
    # the median of an exponential tail is step * ln 2: a few unseen incidents do not move it
    step = float(np.median(beyond)) / log(2) if len(beyond) else 0.0
    own = Tail(begin, TAIL_SHARE, max(step, MEASURED_STEP))
    return own if own.probability(THRESHOLD) > Tail().probability(THRESHOLD) else Tail()


def threshold_for(alerts_per_week: float, series: int, tail: Tail | None = None) -> float:
    """The score at which `series` quiet series raise so many alerts a week; never below THRESHOLD."""
    if alerts_per_week <= 0:
        return inf
    tail = tail or Tail()
    expected = 7 * series * tail.chance
    return max(THRESHOLD, tail.score + tail.step * log(max(expected / alerts_per_week, 1e-9)))


def worth_telling(
    scores: Sequence[float], tested: int, tail: Tail | None = None, share: float = FALSE_SHARE
) -> list[int]:
    """Indices of the scores to tell, oddest first, of `tested` series: at most `share` of them false on average."""
    tail = tail or Tail()
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    many = 0
    for rank, i in enumerate(order, start=1):
        if scores[i] >= THRESHOLD and tail.probability(scores[i]) <= share * rank / max(tested, 1):
            many = rank
    return order[:many]


def within_budget(scores: Sequence[float], told_this_week: int, alerts_per_week: float = ALERTS_PER_WEEK) -> list[int]:
    """Indices of the oddest scores that the rest of the week's budget allows; the others are shown, not sent."""
    left = max(0, int(alerts_per_week) - told_this_week)
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:left]
