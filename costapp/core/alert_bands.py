"""What is usual at this hour of the week: a robust band from the same windows of past weeks.

The centre is the median of past readings, the spread their median distance from it (times 1.4826: for normal
noise one standard deviation), and never below a twentieth of the centre, so that a flat line does not cry wolf.
"""

from collections.abc import Sequence
from statistics import median_high

from costapp.core.alert_rules import Band

LEAST_READINGS = 4  #: fewer say nothing about what is usual
LEAST_SPREAD_PPM = 50_000


def band_of(past: Sequence[int]) -> Band | None:
    """The band of past readings; None when there are too few."""
    if len(past) < LEAST_READINGS:
        return None
    centre = median_high(past)
    distance = median_high([abs(value - centre) for value in past])
    floor = abs(centre) * LEAST_SPREAD_PPM // 1_000_000
    return Band(centre, max(distance * 14826 // 10000, floor, 1))
