"""Small steady traffic of the invented company, as it would arrive right now."""

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from random import Random

from costapp.core.values import Span
from costapp.services.seed_demo import company
from costapp.services.seed_demo.generate import hour_load, session_spans


def live_traces(anchor: date, *, per_second: float, rng: Random) -> Iterator[tuple[float, list[Span]]]:
    """Endless (seconds to wait, spans of a trace that ends now). The mix follows the hour of the day."""
    while True:
        now = datetime.now(UTC)
        features = company.FEATURES
        weights = [feature.sessions_per_day * hour_load(feature, now, 0) for feature in features]
        feature = rng.choices(features, weights)[0]
        days_ago = (anchor - now.date()).days
        for spans in session_spans(feature, time.time_ns(), min(days_ago, 0), rng):
            wait_s = rng.expovariate(per_second)
            yield wait_s, _ending_at(spans, time.time_ns() + int(wait_s * 1e9))


def _ending_at(spans: list[Span], end_ns: int) -> list[Span]:
    """The trace moved so that its root ends at ``end_ns``: apps send spans when they end."""
    root = spans[0]
    shift = end_ns - root.start_ns - (root.facts.duration_us or 0) * 1000
    return [span._replace(start_ns=span.start_ns + shift) for span in spans]
