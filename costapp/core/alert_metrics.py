"""What an alert rule can watch, as data: one row per metric, one per unit, one per window.

Every reading and threshold is an integer in the base unit of its metric (nano-dollars, parts per million,
microseconds ...), so a value is beyond a threshold or not, and never nearly. The source of a metric's readings is
``costapp.storage.reports.rule_readings``: a new metric is a row here and a source there.
"""

from datetime import timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import NamedTuple

from costapp.core.money import divide_half_up, format_usd

PPM = 1_000_000


class Unit(NamedTuple):
    """How people write a figure. ``scale`` base units are one of what they type."""

    key: str
    scale: int
    sign: str  #: beside a field: "$", "%", "s"


USD = Unit("usd", 1_000_000_000, "$")
PERCENT = Unit("percent", PPM // 100, "%")
TOKENS = Unit("tokens", 1_000, "tokens")
SECONDS = Unit("seconds", 1_000_000, "s")
MINUTES = Unit("minutes", 60, "min")
REQUESTS = Unit("requests", 1, "requests")
SPREADS = Unit("spreads", PPM, "× the usual spread")


class Family(Enum):
    """Metrics of one family are read together, in one statement per window, dimension and filters."""

    SUMS = "sums"  #: the rollups
    CALLS = "calls"  #: single calls, by their time: what rollups do not keep
    SESSIONS = "sessions"  #: sessions per feature and day
    LATENCY = "latency"  #: histograms per hour
    SILENCE = "silence"  #: the last call
    GPU = "gpu"  #: hours of GPUs
    ANOMALIES = "anomalies"  #: what detection found


class Metric(NamedTuple):
    key: str
    label: str  #: "cost per 1k requests", as in the middle of a sentence
    unit: Unit
    family: Family
    formula: str  #: for the tip
    counted: str = "requests"  #: what a minimum is a minimum of


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("cost", "cost", USD, Family.SUMS, "Sum of all charges that carry a price."),
        Metric("cost_per_1k", "cost per 1k requests", USD, Family.SUMS, "Cost ÷ priced requests × 1,000."),
        Metric("cost_per_session", "cost per session", USD, Family.SESSIONS, "Cost ÷ sessions, by feature and day."),
        Metric("requests", "requests", REQUESTS, Family.SUMS, "Model calls."),
        Metric(
            "tokens_per_request", "tokens per request", TOKENS, Family.SUMS,
            "Tokens ÷ requests that stated their usage.",
        ),
        Metric("latency_p50", "p50 latency", SECONDS, Family.LATENCY, "Half of the calls were faster."),
        Metric("latency_p95", "p95 latency", SECONDS, Family.LATENCY, "95 % of the calls were faster."),
        Metric("latency_p99", "p99 latency", SECONDS, Family.LATENCY, "99 % of the calls were faster."),
        Metric("error_rate", "error rate", PERCENT, Family.SUMS, "Failed calls ÷ all calls."),
        Metric("retry_rate", "retry rate", PERCENT, Family.SUMS, "Calls that repeat a failed one ÷ all calls."),
        Metric(
            "fallback_rate", "fallback rate", PERCENT, Family.CALLS,
            "Calls to another model after a failed one ÷ all calls.",
        ),
        Metric("cache_hit", "cache hit", PERCENT, Family.SUMS, "Cached prompt tokens ÷ all prompt tokens."),
        Metric("unpriced_share", "unpriced share", PERCENT, Family.SUMS, "Requests without a price ÷ all requests."),
        Metric(
            "unattributed_share", "unattributed share", PERCENT, Family.SUMS,
            "Requests that name no feature ÷ all requests.",
        ),
        Metric(
            "silence", "time since the last call", MINUTES, Family.SILENCE,
            "Minutes since the last 5 minutes with a call. Known for a week.",
        ),
        Metric(
            "gpu_idle", "GPU idle time", PERCENT, Family.GPU,
            "Time in which GPUs did nothing ÷ time in which they were observed.", counted="GPU minutes",
        ),
        Metric(
            "anomalous", "money above expected in anomalies", USD, Family.ANOMALIES,
            "Sum of what the anomalies of the window, but dismissed ones, cost above expected.", counted="anomalies",
        ),
    )
}  # fmt: skip


class Window(NamedTuple):
    """A stretch of whole cells. It ends on an edge of its grain, as a page of the same range does."""

    key: str
    words: str
    length: timedelta
    grain: str  #: "5m" | "hour" | "day" (of the project's time zone)

    @property
    def days(self) -> int:
        return self.length.days


def _minutes(count: int) -> timedelta:
    return timedelta(minutes=count)


WINDOWS: dict[str, Window] = {
    window.key: window
    for window in (
        Window("5m", "5 minutes", _minutes(5), "5m"),
        Window("15m", "15 minutes", _minutes(15), "5m"),
        Window("30m", "30 minutes", _minutes(30), "5m"),
        Window("1h", "1 hour", _minutes(60), "5m"),
        Window("3h", "3 hours", _minutes(180), "5m"),
        Window("6h", "6 hours", _minutes(360), "5m"),
        Window("12h", "12 hours", timedelta(hours=12), "hour"),
        Window("24h", "24 hours", timedelta(hours=24), "hour"),
        Window("3d", "72 hours", timedelta(hours=72), "hour"),
        Window("1d", "1 whole day", timedelta(days=1), "day"),
        Window("7d", "7 whole days", timedelta(days=7), "day"),
        Window("30d", "30 whole days", timedelta(days=30), "day"),
    )
}


def grain_of(metric: Metric, window: Window) -> str:
    """Histograms and GPUs are kept by the hour, so their windows end on hours."""
    return "hour" if metric.family in (Family.LATENCY, Family.GPU) and window.grain == "5m" else window.grain


def parse_amount(text: str | Decimal, unit: Unit) -> int:
    """Base units of what a person typed. Raises ValueError with a sentence."""
    try:
        amount = Decimal(str(text).strip().replace(",", "").removeprefix("$").removesuffix("%").strip())
    except InvalidOperation:
        raise ValueError(f"“{text}” is not a number. Write it like 2.50.") from None
    if not amount.is_finite() or abs(amount * unit.scale) >= 2**62:
        raise ValueError(f"“{text}” is too large.")
    numerator, denominator = (amount * unit.scale).as_integer_ratio()
    return divide_half_up(numerator, denominator)


def typed_amount(value: int, unit: Unit) -> str:
    """The inverse of ``parse_amount``, without needless zeros: what stands in the field."""
    text = f"{Decimal(value) / unit.scale:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def amount_text(value: int | None, unit: Unit) -> str:
    """A figure for people: $5.00, 12.5%, 2.4 s, 45 min."""
    if value is None:
        return "unknown"
    if unit is USD:
        return format_usd(value)
    if unit is MINUTES and value >= 2 * 3600:
        hours, minutes = divmod(value // 60, 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    number = Decimal(value) / unit.scale
    digits = 0 if abs(number) >= 100 or number == int(number) else 1 if abs(number) >= 10 else 2
    shown = f"{number:,.{digits}f}"
    shown = shown.rstrip("0").rstrip(".") if "." in shown else shown
    return f"{shown}%" if unit is PERCENT else f"{shown} {unit.sign}"
