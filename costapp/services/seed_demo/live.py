"""Small steady traffic of the invented company, as it would arrive right now; now and then one session runs away."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from random import Random

from costapp.core.values import Span
from costapp.services.seed_demo import company
from costapp.services.seed_demo.calls import Visit, answer
from costapp.services.seed_demo.generate import hour_load, session_spans
from costapp.services.seed_demo.recorded import Turn

FIRST_RUNAWAY_S = 90.0
RUNAWAY_EVERY_S = 2_400.0
RUNAWAY_STEP_S = 0.4
RUNAWAY_MOST = 300  # calls, when nobody stops it


def live_traces(
    anchor: date, *, per_second: float, rng: Random, is_stopped: Callable[[str], bool] = lambda session: False
) -> Iterator[tuple[float, list[Span]]]:
    """Endless (seconds to wait, spans of a trace that ends now). The mix follows the hour of the day.

    ``is_stopped`` is asked before each call of a session that runs away: the app's own brake.
    """
    runs_away_at = time.monotonic() + FIRST_RUNAWAY_S
    while True:
        if time.monotonic() >= runs_away_at:
            yield from runaway_traces(anchor, rng=rng, is_stopped=is_stopped)
            runs_away_at = time.monotonic() + RUNAWAY_EVERY_S
        now = datetime.now(UTC)
        features = company.FEATURES
        weights = [feature.sessions_per_day * hour_load(feature, now, 0) for feature in features]
        feature = rng.choices(features, weights)[0]
        days_ago = (anchor - now.date()).days
        for spans in session_spans(feature, time.time_ns(), min(days_ago, 0), rng):
            wait_s = rng.expovariate(per_second)
            yield wait_s, _ending_at(spans, time.time_ns() + int(wait_s * 1e9))


def runaway_traces(
    anchor: date, *, rng: Random, is_stopped: Callable[[str], bool]
) -> Iterator[tuple[float, list[Span]]]:
    """Two agents hand one return back and forth, the prompt growing each time, until they are stopped."""
    feature = next(feature for feature in company.FEATURES if feature.name == company.RUNAWAY_LOOP.feature)
    session, user = f"s-loop{rng.getrandbits(32):08x}", f"u-{rng.randrange(company.USERS):05d}"
    days_ago = min((anchor - datetime.now(UTC).date()).days, 0)
    visit = Visit(feature, datetime.now(UTC), days_ago, user, session, "o4-mini", None, "production")
    for number in range(RUNAWAY_MOST):
        if is_stopped(session):
            return
        turn = Turn(22_000 + 310 * number, 240, 0)
        spans, _ = answer(visit, turn, first=number == 0, start_ns=time.time_ns(), rng=rng)
        yield RUNAWAY_STEP_S, _ending_at(spans, time.time_ns() + int(RUNAWAY_STEP_S * 1e9))


def _ending_at(spans: list[Span], end_ns: int) -> list[Span]:
    """The trace moved so that its root ends at ``end_ns``: apps send spans when they end."""
    root = spans[0]
    shift = end_ns - root.start_ns - (root.facts.duration_us or 0) * 1000
    return [span._replace(start_ns=span.start_ns + shift) for span in spans]
