"""One page for one value of a dimension: the same questions for a feature, a model, a user or a team."""

from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from costapp.core.latency import quantile
from costapp.storage.reports import activity, spend
from costapp.storage.reports.calls import newest_calls
from costapp.storage.reports.cells import Grain, Scope, needs_charges
from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.sums import Sums, per, ratio
from costapp.web import charts
from costapp.web import format as fmt
from costapp.web.access import Visit, project_page
from costapp.web.anomaly_words import mark_chart
from costapp.web.budget_parts import bars_of, pace
from costapp.web.budgets import runs_out
from costapp.web.filters import MAX_VALUE_LENGTH, View
from costapp.web.links import drill_url
from costapp.web.metrics import COLUMNS, Line
from costapp.web.page import frame, show, view_of
from costapp.web.palette import palette
from costapp.web.splits import SPLITS, Report, draw_pace, export, report, split_context, switch_context, time_axis
from costapp.web.views.calls import shown

CONTRIBUTORS = (
    "feature",
    "model",
    "user",
    "team",
    "environment",
    "service",
    "workload",
    "prompt_version",
    "variant",
    "provider",
)
DEFAULT_SPLIT = {
    "model": "feature",
    "provider": "model",
    "team": "feature",
    "environment": "feature",
    "service": "feature",
}
CALLS = 15


class Tile(NamedTuple):
    label: str
    figure: object
    sub: str
    formula: str
    spark: list[str]


class Bar(NamedTuple):
    """One contributor with its share of the page's cost."""

    label: str
    href: str
    slot: str
    contributor: spend.Contributor
    share: float | None

    @property
    def width(self) -> int:
        """Of a drawing 1,000 wide."""
        return round((self.share or 0) * 1000)


@project_page()
def drill(visit: Visit, dimension: str) -> HttpResponse:
    value = visit.request.GET.get("is")
    if value is None:
        return _all_values(visit, dimension)
    if len(value) > MAX_VALUE_LENGTH or "\x00" in value or (dimension == "user" and not value):
        raise Http404
    view = view_of(visit, by=tuple(key for key in SPLITS if key != dimension))
    view = view._replace(filters={key: values for key, values in view.filters.items() if key != dimension})
    scope = view.scope(visit.project.pk, visit.project.time_zone).where(**{dimension: (value,)})
    by = view.by or DEFAULT_SPLIT.get(dimension, "model")
    by = by if _can_split(scope, by) else "model" if dimension != "model" else "feature"
    data = report(visit, view, scope, by)
    if kind := visit.request.GET.get("format"):
        return export("json" if kind == "json" else "csv", data)
    return show(visit, "drill.html", _context(visit, view, scope, data, dimension, value))


def _all_values(visit: Visit, dimension: str) -> HttpResponse:
    """An address without a value: Overview split by the dimension, the rest of the address kept."""
    query = visit.request.GET.copy()
    query["by"] = dimension
    return redirect(f"{reverse('overview', kwargs={'slug': visit.project.slug})}?{query.urlencode()}")


def _can_split(scope: Scope, by: str) -> bool:
    if DIMENSIONS[by].in_rollup or needs_charges(scope):
        return True
    return scope.grain is Grain.DAY and set(scope.filters) <= {"feature"}


def _context(visit: Visit, view: View, scope: Scope, data: Report, dimension: str, value: str) -> dict[str, Any]:
    label, fixed = value or DIMENSIONS[dimension].empty, ((dimension, value),)
    context = frame(
        visit,
        view,
        nav="overview",
        title=label,
        fixed_query=urlencode({"is": value}),
        fixed_pairs=fixed,
        fixed_pairs_for_form=(("is", value),),
        exports=True,
        dimension=DIMENSIONS[dimension],
        value=value,
        label=label,
        **switch_context(data.by),
    )
    context["split_names"] = [
        (key, name) for key, name in context["split_names"] if key != dimension and _can_split(scope, key)
    ]
    context |= mark_chart(visit, data, split_context(visit, view, data, fixed=fixed))
    groups = contributors(visit, view, scope, dimension, data, fixed)
    bars = bars_of(visit, dimension, value)
    draw_pace(context, data, pace(bars, view.period, view.filters))
    context["budget_bars"] = [(each, runs_out(each, visit.now, visit.zone)) for each in bars]
    context |= {"tiles": tiles(visit, view, scope, data), **people(visit, scope, dimension)}
    context |= {
        "groups": [group for group in groups if len(group[1]) > 1],
        "always": [group for group in groups if len(group[1]) == 1],
    }
    return context | {"calls": shown(newest_calls(visit.conn, scope, limit=CALLS).rows)}


def tiles(visit: Visit, view: View, scope: Scope, data: Report) -> list[Tile]:
    """Figures of the whole range, each with its course."""
    axis = time_axis(visit, view, scope)
    course = dict(spend.trend(visit.conn, scope))
    cells = [course.get(start, Sums()) for start in axis.starts]
    total, line = data.total.now, data.total
    latency = _latency(visit, scope, data)
    return [
        Tile(
            "Per 1k requests",
            fmt.usd(total.cost_per_1k_nano),
            f"{fmt.count(total.requests)} requests",
            COLUMNS["per-1k"].formula,
            charts.sparkline([charts.dollars(c.cost_per_1k_nano) for c in cells]),
        ),
        _session_tile(visit, scope, line),
        Tile(
            latency[0],
            latency[1],
            latency[2],
            COLUMNS["p95"].formula,
            charts.sparkline([ratio(c.duration_us, c.requests) for c in cells]),
        ),
        Tile(
            "Prompt size",
            fmt.compact(ratio(_prompt(total), total.requests)),
            "tokens per request",
            "Input tokens, cached ones included ÷ requests.",
            charts.sparkline([ratio(_prompt(c), c.requests) for c in cells]),
        ),
        Tile(
            "Output size",
            fmt.compact(ratio(_output(total), total.requests)),
            "tokens per request",
            "Output and reasoning tokens ÷ requests.",
            charts.sparkline([ratio(_output(c), c.requests) for c in cells]),
        ),
        Tile(
            "Cache hit",
            fmt.percent(total.cache_hit),
            f"{fmt.compact(total.cache_read_tokens)} tokens read",
            COLUMNS["cache"].formula,
            charts.sparkline([c.cache_hit for c in cells]),
        ),
        Tile(
            "Errors",
            fmt.percent(total.error_rate),
            f"{fmt.count(total.errors)} failed, {fmt.count(total.retries)} retries",
            COLUMNS["errors"].formula,
            charts.sparkline([c.error_rate for c in cells]),
        ),
    ]


def _prompt(cells: Sums) -> int:
    return (cells.input_tokens or 0) + (cells.cache_read_tokens or 0) + (cells.cache_write_tokens or 0)


def _output(cells: Sums) -> int:
    return (cells.output_tokens or 0) + (cells.reasoning_tokens or 0)


def _latency(visit: Visit, scope: Scope, data: Report) -> tuple[str, str, str]:
    """Label, figure and what stands below it: p50 and p95, which the report may have read already; else the mean."""
    total = data.total
    if total.p50_us is None and activity.keeps_latency(scope):
        by = next(iter(scope.filters))  # the page's own dimension: the narrowest histograms, if it is the only filter
        slots = activity.latency_slots(visit.conn, scope, by, values=[]).get(None, {})
        total = total._replace(p50_us=quantile(slots, 0.5), p95_us=quantile(slots, 0.95))
    if total.p50_us is None:
        mean = ratio(total.now.duration_us, total.now.requests)
        return "Mean latency", fmt.duration(mean), "percentiles are not kept for this filter"
    return "Latency p50", fmt.duration(total.p50_us), f"p95 {fmt.duration(total.p95_us)}"


def _session_tile(visit: Visit, scope: Scope, line: Line) -> Tile:
    sessions = sum(activity.sessions_by_feature(visit.conn, scope).values())
    if needs_charges(scope):
        sessions = len(activity.top_sessions_of_user(visit.conn, scope, limit=10_000))
    return Tile(
        "Per session",
        fmt.usd(per(line.now.known_cost_nano, sessions)),
        f"{fmt.count(sessions) if sessions else fmt.GAP} sessions",
        COLUMNS["per-session"].formula,
        [],
    )


def contributors(
    visit: Visit, view: View, scope: Scope, dimension: str, data: Report, fixed: tuple[tuple[str, str], ...]
) -> list[tuple[Any, list[Bar], int]]:
    """Where the page's cost comes from, by every other dimension that tells anything apart."""
    wanted = [key for key in CONTRIBUTORS if key != dimension and (DIMENSIONS[key].in_rollup or needs_charges(scope))]
    found = spend.contributors(visit.conn, scope, wanted)
    total, groups = data.total.now.cost_nano, []
    for key in wanted:
        rows = found[key]
        if not rows or (len(rows) == 1 and not rows[0].value):
            continue
        colours = palette(visit.conn, visit.project.pk, key) if key == data.by else None
        bars = [
            Bar(
                row.value or DIMENSIONS[key].empty,
                drill_url(visit, view, key, row.value, fixed) if row.value or key != "user" else "",
                colours.css(row.value) if colours else "",
                row,
                ratio(row.cost_nano, total),
            )
            for row in rows
        ]
        groups.append((DIMENSIONS[key], bars, max(0, rows[0].distinct - len(rows))))
    return groups


def people(visit: Visit, scope: Scope, dimension: str) -> dict[str, Any]:
    """Most expensive users and sessions, where sums for them are kept."""
    if dimension == "user":
        return {"sessions": activity.top_sessions_of_user(visit.conn, scope)}
    if activity.keeps_sessions(scope):
        return {"sessions": activity.top_sessions(visit.conn, scope), "users": activity.top_users(visit.conn, scope)}
    return {}
