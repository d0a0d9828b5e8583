"""Anomalies as pages show them: words, links and marks."""

from bisect import bisect_right
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.urls import reverse

from anomaly.detect_signals import Kind
from costapp.services.anomalies.series import TOO_LITTLE
from costapp.storage import anomalies as store
from costapp.storage.anomalies import Anomaly, Mark
from costapp.storage.reports.anomaly_pools import POOL
from costapp.storage.reports.cells import Grain
from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.web.access import Visit
from costapp.web.anomaly_charts import Band, MarkedPoint, band_over_time, with_marks
from costapp.web.charts import TimeAxis
from costapp.web.splits import Report

KIND_WORDS = {
    Kind.SPIKE: "Spike",
    Kind.SLOW_LEAK: "Slow leak",
    Kind.LEVEL_SHIFT: "Level shift",
    Kind.RUNAWAY_LOOP: "Runaway loop",
    Kind.CACHE_STOPPED: "Cache stopped hitting",
    Kind.RETRY_STORM: "Retry storm",
    Kind.IDLE_GPU: "Idle GPU",
    Kind.OVERPROVISIONED: "More capacity than needed",
    Kind.SILENCE: "Sudden silence",
    Kind.BIGGER_REQUESTS: "Bigger requests",
    Kind.UNUSUAL: "Unusual",
}
SUPPRESSED_WORDS = {
    "old": "Nobody was told: it was over when it was found.",
    "budget": "Nobody was told: the alerts of the week were used up.",
    "dismissed": "Nobody was told: people dismissed one like it.",
}
PART_WORDS = {
    "volume": "Calls",
    "mix": "Model mix",
    "prompt": "Prompt size",
    "output": "Output size",
    "cache": "Cache",
    "price": "Price",
    "other": "Other charges",
}
HOUR = timedelta(hours=1)
MARKS_LISTED = 5


class DriverRow(NamedTuple):
    label: str
    href: str
    actual_nano: int
    expected_nano: int
    share_percent: int
    is_new: bool


class Card(NamedTuple):
    """One anomaly of the feed."""

    anomaly: Anomaly
    kind: str
    is_too_little: bool
    suppressed: str
    figure: dict[str, Any] | None
    drivers: list[DriverRow]
    parts: list[tuple[str, int]]
    calls_href: str
    changed_href: str
    series_href: str
    user_href: str
    user_label: str
    members: list[str]
    href: str

    @property
    def is_pool(self) -> bool:
        return self.anomaly.dimension == POOL

    @property
    def chart_id(self) -> str:
        return f"figure-anomaly-{self.anomaly.id}"


def card(visit: Visit, found: Anomaly) -> Card:
    detail = found.detail
    is_pool = found.dimension == POOL
    subject = [(found.dimension, found.value)] if found.dimension and not is_pool else []
    span = [("from", found.start_at.isoformat()), ("to", found.end_at.isoformat())]
    window, before, user = detail.get("window"), detail.get("before"), detail.get("user")
    return Card(
        found,
        KIND_WORDS[Kind(found.kind)],
        Kind(found.kind) in TOO_LITTLE,
        SUPPRESSED_WORDS.get(found.suppressed, ""),
        _figure(visit, found),
        [_driver(visit, each, subject, span) for each in detail.get("drivers", [])],
        [(PART_WORDS[part], amount) for part, amount in _parts(detail).items()],
        "" if is_pool else _page(visit, "calls", [*subject, *span]),
        _compared(visit, window, before, subject) if window and before else "",
        _series(visit, found, subject, span),
        _user_href(visit, user, span),
        (user["user"] or user["session"]) if user else "",
        [f"{DIMENSIONS[key].label.lower()} {value}" if key else "the whole project" for key, value in _members(detail)],
        _page(visit, "anomalies", [("id", str(found.id))]),
    )


def _members(detail: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key, value) for key, value in detail.get("members", [])]


def _parts(detail: dict[str, Any]) -> dict[str, int]:
    """Parts in their order, nothing where all are nothing."""
    amounts = detail.get("parts") or {}
    return {part: amounts[part] for part in PART_WORDS if amounts.get(part)}


def _page(visit: Visit, name: str, query: list[tuple[str, str]]) -> str:
    return f"{reverse(name, kwargs={'slug': visit.project.slug})}?{urlencode(query)}"


def _drill(visit: Visit, subject: tuple[str, str], query: list[tuple[str, str]]) -> str:
    address = reverse("drill", kwargs={"slug": visit.project.slug, "dimension": subject[0]})
    return f"{address}?{urlencode([('is', subject[1]), *query])}"


def _series(visit: Visit, found: Anomaly, subject: list[tuple[str, str]], span: list[tuple[str, str]]) -> str:
    if found.dimension == POOL:
        return _page(visit, "gpus", [("pool", found.value), *span])
    return _drill(visit, subject[0], span) if subject else _page(visit, "overview", span)


def _user_href(visit: Visit, user: dict[str, Any] | None, span: list[tuple[str, str]]) -> str:
    if not user:
        return ""
    if user["session"]:
        return _page(visit, "session", [("is", user["session"])])
    return _drill(visit, ("user", user["user"]), span)


def _compared(visit: Visit, window: list[str], before: list[str], subject: list[tuple[str, str]]) -> str:
    query = [("from", window[0]), ("to", window[1]), ("vs_from", before[0]), ("vs_to", before[1])]
    return _page(visit, "what-changed", [*query, *subject])


def _driver(
    visit: Visit, each: dict[str, Any], subject: list[tuple[str, str]], span: list[tuple[str, str]]
) -> DriverRow:
    where = each["where"]
    label = " · ".join(f"{DIMENSIONS[key].label} {value or DIMENSIONS[key].empty}" for key, value in where.items())
    href = _page(visit, "calls", [*subject, *where.items(), *span])
    return DriverRow(label, href, each["actual_nano"], each["expected_nano"], each["share_percent"], each["new"])


def _figure(visit: Visit, found: Anomaly) -> dict[str, Any] | None:
    course = found.detail.get("course")
    if not course or not course["at"]:
        return None
    starts = [datetime.fromisoformat(at) for at in course["at"]]
    axis = TimeAxis(starts, starts[-1] + HOUR, Grain.HOUR, visit.zone, visit.now)
    odd = [found.start_at <= at < found.end_at for at in starts]
    band = Band(course["cost_nano"], course["expected_nano"], course["low_nano"], course["high_nano"], odd)
    return band_over_time(band, axis)


# --- marks on cost charts


class ShownMark(NamedTuple):
    mark: Mark
    href: str


def mark_chart(visit: Visit, found: Report, context: dict[str, Any]) -> dict[str, Any]:
    """The context of a cost chart with its anomalies marked, in the figure and as a list below it."""
    axis, filters = found.axis, found.scope.filters
    marks: list[Mark] = []
    if axis.starts and sum(len(values) for values in filters.values()) <= 1:
        subject = next(((key, values[0]) for key, values in filters.items()), None)
        marks = store.marks(visit.conn, visit.project.pk, axis.starts[0], axis.end, subject)
    if not marks:
        return context
    heights = [
        sum(cell.cost_nano for cells in found.data.cells.values() if (cell := cells[i]))
        for i in range(len(axis.starts))
    ]
    shown = [ShownMark(mark, _page(visit, "anomalies", [("id", str(mark.id))])) for mark in marks]
    points = [
        MarkedPoint(max(0, bisect_right(axis.starts, each.mark.start_at) - 1), each.mark.title, each.href)
        for each in shown
    ]
    figure = with_marks(context["figure"], points, heights)
    return context | {"figure": figure, "marks": shown[:MARKS_LISTED], "more_marks": len(shown) - MARKS_LISTED}
