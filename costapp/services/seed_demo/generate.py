"""One day of the invented company as spans. The same seed and day always give the same spans."""

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from random import Random

from costapp.core.values import Span
from costapp.services.seed_demo import company, recorded
from costapp.services.seed_demo.calls import Visit, answer
from costapp.services.seed_demo.company import Feature
from costapp.services.seed_demo.recorded import Turn

SECOND_NS = 1_000_000_000
SEED = "larkfield-1"
# Recorded hour 0 is some hour of some weekday; the invented shop's load on top of it, by local hour.
_HOUR_LOAD = (
    *(0.25, 0.15, 0.1, 0.1, 0.12, 0.25, 0.5, 0.9, 1.3, 1.6, 1.7, 1.6),
    *(1.4, 1.5, 1.6, 1.6, 1.5, 1.4, 1.4, 1.5, 1.4, 1.1, 0.7, 0.45),
)
_UTC_OFFSET_HOURS = 1


def day_spans(day: date, *, anchor: date, until: datetime, scale: float = 1.0) -> Iterator[list[Span]]:
    """The traces of one UTC day that had started before ``until``, each as the list of its spans.

    ``anchor`` is the day the demo was first seeded: incidents and prompt versions count back from it.
    """
    stop_ns = int(until.timestamp()) * SECOND_NS
    for feature in company.FEATURES:
        rng = Random(f"{SEED}:{day}:{feature.name}")
        for spans in _feature_day(feature, day, (anchor - day).days, scale, rng):
            if spans[0].start_ns < stop_ns:
                yield spans


def _feature_day(feature: Feature, day: date, days_ago: int, scale: float, rng: Random) -> Iterator[list[Span]]:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if feature.name == company.RUNAWAY_LOOP.feature and days_ago == company.RUNAWAY_LOOP.from_day:
        yield from _runaway_loop(feature, midnight, days_ago, rng)
    for hour in range(24):
        at = midnight + timedelta(hours=hour)
        for _ in range(_poisson(rng, feature.sessions_per_day * scale * hour_load(feature, at, days_ago) / 24)):
            start_ns = int((at.timestamp() + rng.random() * 3600) * SECOND_NS)
            yield from session_spans(feature, start_ns, days_ago, rng)


def hour_load(feature: Feature, at: datetime, days_ago: int) -> float:
    """Sessions in this hour relative to the feature's mean: recorded bursts, shop hours, weekend, growth."""
    hours = recorded.hourly_load(feature.profile)
    burst = hours[(at.toordinal() * 24 + at.hour) % recorded.HOURS_RECORDED]
    shop = _HOUR_LOAD[(at.hour + _UTC_OFFSET_HOURS) % 24]
    weekend = feature.weekend if at.weekday() >= 5 else 1.0
    growth: float = (1 + feature.growth) ** (company.DAYS / 2 - days_ago)
    return math.sqrt(burst) * shop * weekend * growth


def session_spans(feature: Feature, start_ns: int, days_ago: int, rng: Random) -> Iterator[list[Span]]:
    """The traces of one session, one per turn, from ``start_ns`` on."""
    visit = Visit(
        feature=feature,
        at=datetime.fromtimestamp(start_ns // SECOND_NS, UTC),
        days_ago=days_ago,
        user=_pick_user(rng) if feature.signed_in else None,
        session=f"s-{rng.getrandbits(48):012x}" if feature.signed_in else None,
        model=rng.choices([key for key, _ in feature.models], [share for _, share in feature.models])[0],
        variant=rng.choice(feature.variants) if feature.variants else None,
        environment="staging" if rng.random() < 0.05 else "production",
    )
    for number, turn in enumerate(_conversation(feature, rng)):
        spans, busy_ns = answer(visit, turn, first=number == 0, start_ns=start_ns, rng=rng)
        yield spans
        start_ns += busy_ns + int(rng.expovariate(1 / 35) * SECOND_NS)  # the user reads and types


def _conversation(feature: Feature, rng: Random) -> list[Turn]:
    if feature.shape == "turns":
        return rng.choice(recorded.conversations())
    if feature.shape == "code":  # an agent works in steps; what it has read so far grows
        steps = [rng.choice(recorded.single_requests("azure-code"))[0] for _ in range(1 + int(rng.expovariate(0.2)))]
        read = list(accumulate(step.input for step in steps))
        return [Turn(total, step.output, total - step.input) for total, step in zip(read[:40], steps[:40], strict=True)]
    turns = rng.choice(recorded.single_requests("azure-conv"))
    return turns if feature.shape != "embed" else [Turn(turns[0].input, 0, 0)]


def _runaway_loop(feature: Feature, midnight: datetime, days_ago: int, rng: Random) -> Iterator[list[Span]]:
    """One session whose two agents hand a case back and forth, the prompt growing each time."""
    start_ns = int((midnight + timedelta(hours=9, minutes=12)).timestamp() * SECOND_NS)
    visit = Visit(
        feature=feature,
        at=datetime.fromtimestamp(start_ns // SECOND_NS, UTC),
        days_ago=days_ago,
        user="u-01384",
        session="s-runaway00return",
        model="o4-mini",
        variant=None,
        environment="production",
    )
    for number in range(420):
        turn = Turn(22_000 + 310 * number, 240, 0)
        spans, busy_ns = answer(visit, turn, first=number == 0, start_ns=start_ns, rng=rng)
        yield spans
        start_ns += busy_ns


def _pick_user(rng: Random) -> str:
    """A few users do most of the work: rank by a heavy tail, spread over the user numbers."""
    rank = min(int(company.USERS * rng.random() ** 2.6), company.USERS - 1)
    return f"u-{(rank * 2_741 + 17) % company.USERS:05d}"


def _poisson(rng: Random, mean: float) -> int:
    if mean > 60:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    count, product, limit = 0, rng.random(), math.exp(-mean)
    while product > limit:
        count, product = count + 1, product * rng.random()
    return count
