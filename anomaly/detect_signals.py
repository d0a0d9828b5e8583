"""The figures watched beside cost, and how they are computed from one row of a series.

A launch ramp and a runaway loop look the same in dollars. They differ in the *unit figures*: cost at the usual prices,
requests per user, retries per request, share of the prompt that missed the cache, tokens per request. Each is a
signal, as a logarithm, so that twice the usual is the same distance on a cheap feature and on a dear one.

A row is `value` and side columns (all optional, NaN = unknown): requests, users, input_tokens, output_tokens,
cached_tokens, retries, gpu_util. `value` is read by the series' metric: `feature_cost` (money), `cost_per_1k` (money
per 1,000 requests) or `gpu_idle_cost` (money for capacity that is paid for and not used).
"""

from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
COLUMNS = ("value", "requests", "users", "input_tokens", "output_tokens", "cached_tokens", "retries", "gpu_util")

# Below these, a share does not matter: a retry in fifty requests, a twentieth of the prompt.
RETRY_SHARE = 0.02
MISS_SHARE = 0.05
# Users grow slower than requests: busy hours are busy per user as well. One exponent for all series: learnt ones
# wander, and each change of theirs looks like a change of the series (docs/decisions/anomaly-detector.md).
USER_EXPONENT = 1.25


class Kind(StrEnum):
    """What an incident is. The words on pages are in docs/anomalies.md."""

    SPIKE = "spike"
    SLOW_LEAK = "slow_leak"
    LEVEL_SHIFT = "level_shift"
    RUNAWAY_LOOP = "runaway_loop"
    CACHE_STOPPED = "cache_stopped"
    RETRY_STORM = "retry_storm"
    IDLE_GPU = "idle_gpu"
    OVERPROVISIONED = "overprovisioned"
    SILENCE = "silence"
    BIGGER_REQUESTS = "bigger_requests"
    UNUSUAL = "unusual"


class Signal(NamedTuple):
    """One watched figure. More of it is worse; spreads are in log units."""

    name: str
    kind: Kind
    windows: tuple[int, ...]  # means over so many hours are judged
    spread: float  # the least it is believed to have
    counting: float = 1.0  # spread that one request (for load: one user) alone would give it
    sudden: bool = False  # must stand out from the last days as well, not only from the season: growth is no spike


SIGNALS = (
    Signal("price", Kind.LEVEL_SHIFT, (1, 3, 24), 0.05, 0.0),
    Signal("retries", Kind.RETRY_STORM, (1, 3, 8), 0.30, 4.0),
    Signal("load", Kind.RUNAWAY_LOOP, (1, 3, 8, 24), 0.06, USER_EXPONENT),
    Signal("misses", Kind.CACHE_STOPPED, (1, 3, 8, 24), 0.12, 0.5),
    Signal("silence", Kind.SILENCE, (1, 3), 0.40, sudden=True),
    Signal("idle", Kind.IDLE_GPU, (1, 3, 8, 24), 0.15, 0.0),
    Signal("capacity", Kind.OVERPROVISIONED, (3, 8, 24), 0.20, 0.0),
    Signal("requests", Kind.SPIKE, (1, 3), 0.30, sudden=True),
    Signal("prompt", Kind.BIGGER_REQUESTS, (3, 8, 24), 0.35),
    Signal("answer", Kind.BIGGER_REQUESTS, (3, 8, 24), 0.35),
    Signal("unit_cost", Kind.BIGGER_REQUESTS, (1, 3, 8, 24), 0.20),
    Signal("cost", Kind.SPIKE, (1, 3, 8, 24), 0.30, sudden=True),
)
NAMES = tuple(signal.name for signal in SIGNALS)
INDEX = {name: i for i, name in enumerate(NAMES)}


def log(x: Array) -> Array:
    """Natural logarithm; NaN where there is none."""
    return np.log(np.where(x > 0, x, np.nan))


def spend(rows: dict[str, Array], metric: str) -> Array:
    """Money per step, whatever the value counts."""
    return rows["value"] * rows["requests"] / 1000 if metric == "cost_per_1k" else rows["value"]


def meters(rows: dict[str, Array]) -> Array:
    """(rows, 3) uncached, cached and output tokens: what money is charged for."""
    return np.stack(
        [rows["input_tokens"] - rows["cached_tokens"], rows["cached_tokens"], rows["output_tokens"]], axis=1
    )


def signal_values(rows: dict[str, Array], metric: str, prices: Array, day: NDArray[np.int64]) -> Array:
    """(signals, rows) logarithms; NaN where a figure is unknown or has no meaning for the metric.

    `prices` is (days, 3): money per uncached, cached and output token that explained the series so far.
    """
    requests = np.where(rows["requests"] > 0, rows["requests"], np.nan)
    tokens, value, busy = rows["input_tokens"], rows["value"], rows["gpu_util"]
    money = spend(rows, metric)
    nothing = np.full(len(value), np.nan)
    idle = metric == "gpu_idle_cost"
    with np.errstate(invalid="ignore", divide="ignore"):
        usual = np.einsum("ij,ij->i", meters(rows), prices[day])
        known = {
            "price": nothing if idle else log(money) - log(usual),
            "retries": np.log(rows["retries"] / requests + RETRY_SHARE),
            "load": np.log(requests) - USER_EXPONENT * log(rows["users"]),
            "misses": np.log((tokens - rows["cached_tokens"]) / np.where(tokens > 0, tokens, np.nan) + MISS_SHARE),
            "silence": -np.log(rows["requests"] + 0.5),
            "idle": -log(busy),
            # what is paid for = idle part / (1 - busy share); without meaning when nothing was idle
            "capacity": log(value / np.where(busy < 0.98, 1 - busy, np.nan)) if idle else nothing,
            "requests": np.log(requests),
            "prompt": log(tokens) - np.log(requests),
            "answer": log(rows["output_tokens"]) - np.log(requests),
            "unit_cost": nothing if idle else log(money) - np.log(requests),
            "cost": nothing if idle else log(value),
        }
    return np.stack([known[name] for name in NAMES])
