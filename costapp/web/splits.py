"""The table and chart "cost by something over time": on Overview and on every drill-down page."""

from collections import Counter
from datetime import datetime
from typing import Any, NamedTuple

from django.http import HttpResponse
from django.utils.html import format_html

from costapp.core.latency import quantile
from costapp.storage.reports import activity, spend
from costapp.storage.reports.cells import Scope, bucket_starts
from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.sql import Connection
from costapp.storage.reports.state import first_day
from costapp.storage.reports.sums import Sums
from costapp.web import charts
from costapp.web import format as fmt
from costapp.web.access import Visit
from costapp.web.budget_parts import Pace
from costapp.web.filters import View, previous_start
from costapp.web.links import drill_url
from costapp.web.metrics import COLUMNS, Column, Line, ordered
from costapp.web.palette import Palette, palette
from costapp.web.tables import csv_response, json_response

SPLITS = (
    "feature",
    "model",
    "provider",
    "user",
    "team",
    "environment",
    "service",
    "workload",
    "variant",
    "prompt_version",
)
TABLE = (
    "cost",
    "change",
    "share",
    "requests",
    "per-1k",
    "per-session",
    "p50",
    "p95",
    "tokens",
    "cache",
    "errors",
    "coverage",
)
TOP_IN_CHART = 8
PACE_WITHIN = 2  #: times the tallest bar
FEW_VALUES = 100  #: so many are asked for without naming them, values that only the previous period has included
ROWS_SHOWN = 50
ROWS_EXPORTED = 5000


class Report(NamedTuple):
    """Everything about one split of one scope."""

    by: str
    scope: Scope
    total: Line
    lines: list[Line]  #: in the asked order
    hidden: int  #: values beyond `lines`
    palette: Palette
    axis: charts.TimeAxis
    data: charts.Stack
    points: list[spend.Point]
    comparable: bool  #: the previous period has data from its first day on

    @property
    def figure(self) -> dict[str, Any]:
        return charts.cost_over_time(self.data, self.axis, self.palette, names=self.names)

    @property
    def all(self) -> int:
        """How many values there are, the hidden ones included."""
        return len(self.lines) + self.hidden

    @property
    def change_words(self) -> str:
        """Change of the total for the state line; "" where nothing is compared."""
        if not self.data.previous_nano:
            return ""
        if not self.comparable:
            return "no full previous period"
        return f"{fmt.change(self.total.now.cost_nano, self.total.before_cost_nano)} on the previous period"

    @property
    def names(self) -> dict[str | None, str]:
        dimension = DIMENSIONS[self.by]
        named: dict[str | None, str] = {
            value: value or dimension.empty for value in self.data.order if value is not None
        }
        return named | {None: self.other_name}

    @property
    def others(self) -> int:
        """How many values the chart sums up as "other"."""
        return max(0, self.all - sum(value is not None for value in self.data.order))

    @property
    def other_name(self) -> str:
        dimension = DIMENSIONS[self.by]
        return f"{self.others} other {dimension.plural if self.others != 1 else dimension.label.lower()}"

    @property
    def chart_words(self) -> str:
        shown, dimension = len(self.data.order) - (None in self.data.order), DIMENSIONS[self.by]
        if self.others:
            return f"top {shown} of {shown + self.others} {dimension.plural}, the rest as other"
        return f"one {dimension.label.lower()}" if shown == 1 else f"all {shown} {dimension.plural}"


def time_axis(visit: Visit, view: View, scope: Scope) -> charts.TimeAxis:
    return charts.TimeAxis(bucket_starts(scope), view.period.end, scope.grain, visit.zone, visit.now)


def report(visit: Visit, view: View, scope: Scope, by: str, *, rows: int = ROWS_SHOWN) -> Report:
    """Four statements: sums, series, latency, sessions (the last two where they are kept)."""
    conn, before = visit.conn, previous_start(view.period, visit.zone) if view.compare else None
    table = spend.split(conn, scope, by, limit=rows)
    values = [row.value for row in table.rows]
    top = [value for value in values if value or by != "user"][:TOP_IN_CHART]
    few = table.distinct <= len(values) <= FEW_VALUES and by != "user"
    points = spend.series(conn, scope, by, values=None if few else values, before=before)
    axis = time_axis(visit, view, scope)
    earlier = bucket_starts(scope.between(before, scope.start)) if before else []
    data = charts.stack(_merged(points, set(top)), axis, before=earlier, order=top, has_other=table.distinct > len(top))
    comparable = bool(before and _has_data_since(visit, before))
    lines, total = _lines(conn, scope, by, table, previous_costs(points, scope.start) if comparable else None)
    lines = ordered(lines, view.sort)
    colours = palette(conn, visit.project.pk, by)
    hidden = table.distinct - len(lines)
    return Report(by, scope, total, lines, hidden, colours, axis, data, points, comparable)


def previous_costs(points: list[spend.Point], start: datetime) -> Counter[str | None]:
    """Cost of the period before by value, and of everything under None."""
    costs: Counter[str | None] = Counter()
    for point in points:
        if point.bucket_at < start:
            costs[None] += point.cost_nano
            if point.value is not None:
                costs[point.value] += point.cost_nano
    return costs


def _lines(
    conn: Connection, scope: Scope, by: str, table: spend.SplitTable, before: Counter[str | None] | None
) -> tuple[list[Line], Line]:
    slots = activity.latency_slots(conn, scope, by, values=[row.value for row in table.rows])
    sessions = activity.sessions_by_feature(conn, scope) if by == "feature" else {}

    def line(value: str | None, label: str, sums: Sums) -> Line:
        return Line(
            value or "",
            label,
            sums,
            before[value] if before is not None else None,
            table.total.cost_nano or 0,
            sessions.get(value or "") if value is not None else None,
            _quantile(slots, value, 0.5),
            _quantile(slots, value, 0.95),
        )

    lines = [line(row.value, row.value or DIMENSIONS[by].empty, row.sums) for row in table.rows]
    return lines, line(None, "Total", table.total)


def _has_data_since(visit: Visit, before: datetime) -> bool:
    """A previous period that began before the project did is drawn, but not compared with."""
    first = first_day(visit.conn, visit.project.pk)
    return first is not None and first <= before


def _quantile(slots: activity.Slots, value: str | None, q: float) -> float | None:
    return quantile(slots[value], q) if value in slots else None


def _merged(points: list[spend.Point], top: set[str]) -> list[spend.Point]:
    """Everything outside ``top`` becomes one "other" point per bucket."""
    kept = [point for point in points if point.value in top]
    sums: dict[Any, list[int]] = {}
    for point in points:
        if point.value not in top:
            sums.setdefault(point.bucket_at, [0, 0, 0])
            for i, amount in enumerate(point[2:]):
                sums[point.bucket_at][i] += amount
    return kept + [spend.Point(at, None, *amounts) for at, amounts in sums.items()]


def sparklines(found: Report) -> dict[str, list[str]]:
    """Cost per bucket of each line; a bucket without requests is 0, as in the chart; nothing priced is no line."""
    place = {start: i for i, start in enumerate(found.axis.starts)}
    rows: dict[str, list[float | None]] = {line.value: [0.0] * len(place) for line in found.lines}
    for point in found.points:
        if point.value in rows and point.bucket_at in place and point.requests > point.unpriced:
            rows[point.value][place[point.bucket_at]] = charts.dollars(point.cost_nano)
    unpriced = {line.value for line in found.lines if line.now.known_cost_nano is None}
    return {value: [] if value in unpriced else charts.sparkline(values) for value, values in rows.items()}


EXPORT_HEADER = (
    "value",
    "cost_usd",
    "cost_nano",
    "previous_cost_nano",
    "requests",
    "unpriced",
    "estimated",
    "errors",
    "retries",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "sessions",
    "p50_us",
    "p95_us",
)


def export(kind: str, found: Report) -> HttpResponse:
    """What the table shows, as CSV or JSON, with a total row over all values."""
    header = (found.by, *EXPORT_HEADER[1:])
    rows = [_export_row(line) for line in found.lines]
    start, end = found.scope.start.isoformat(), found.scope.end.isoformat()
    if kind == "json":
        return json_response(
            header, rows, start=start, end=end, total=dict(zip(header[1:], _export_row(found.total)[1:], strict=True))
        )
    return csv_response(f"costapp-{found.by}-{start[:10]}-{end[:10]}", header, [*rows, _export_row(found.total)])


def _export_row(line: Line) -> list[object]:
    now = line.now
    return [
        line.value if line.label != "Total" else "Total",
        fmt.exact_usd(now.known_cost_nano),
        now.known_cost_nano,
        line.before_cost_nano,
        now.requests,
        now.unpriced,
        now.estimated,
        now.errors,
        now.retries,
        now.input_tokens,
        now.cache_read_tokens,
        now.cache_write_tokens,
        now.output_tokens,
        now.reasoning_tokens,
        line.sessions,
        line.p50_us,
        line.p95_us,
    ]


class TableRow(NamedTuple):
    line: Line
    css: str  #: classes of its swatch and its small chart
    cells: list[object]
    spark: list[str]


def switch_context(by: str) -> dict[str, Any]:
    return {
        "by": by,
        "by_label": DIMENSIONS[by].label,
        "by_plural": DIMENSIONS[by].plural,
        "split_names": [(key, DIMENSIONS[key].label) for key in SPLITS],
    }


def split_context(
    visit: Visit, view: View, found: Report, *, fixed: tuple[tuple[str, str], ...] = ()
) -> dict[str, Any]:
    """What the chart and the table of a split need."""
    columns, lines = shown_columns(found, TABLE), sparklines(found)
    order = found.data.order
    names = found.names
    return {
        "report": found,
        "gpu_switch": not view.gpu or bool(found.total.now.gpu_nano),
        "figure": found.figure,
        "legend": [
            (found.palette.css(v), names[v], drill_url(visit, view, found.by, v, fixed) if v is not None else "")
            for v in order
        ],
        "columns": columns,
        "rows": [
            TableRow(line, found.palette.css(line.value), _cells(line, columns), lines[line.value])
            for line in found.lines
        ],
        "total_cells": _cells(found.total, columns),
        "chart_rows": [
            (name, edges, [found.data.cells[value][i] for value in order])
            for i, (name, edges) in enumerate(zip(found.axis.names(), found.axis.edges(), strict=True))
        ],
    }


def draw_pace(context: dict[str, Any], found: Report, pace: Pace | None) -> None:
    """The budget's share of a day as a line across the chart; not one so far above that it would flatten the bars."""
    if pace is not None and pace.day_nano <= PACE_WITHIN * charts.highest(found.data):
        context["figure"]["data"].append(charts.budget_line(pace.name, pace.day_nano, len(found.axis.starts)))
        context["pace"] = pace


def _cells(line: Line, columns: list[Column]) -> list[object]:
    """Texts of a row; amounts carry their exact value in the tooltip."""
    return [_cell(line, column) for column in columns]


def _cell(line: Line, column: Column) -> object:
    value = column.value(line)
    if column.money and isinstance(value, int):
        return format_html('<span class="money" title="${}">{}</span>', fmt.exact_usd(value), column.show(line))
    if column.key == "cost":
        return format_html('<span class="unpriced">{}</span>', column.show(line))
    return column.show(line)


def shown_columns(found: Report, keys: tuple[str, ...]) -> list[Column]:
    """The columns that this split can fill at all."""
    columns = [COLUMNS[key] for key in keys]
    return [
        column
        for column in columns
        if any(column.value(line) is not None for line in found.lines) or column.key == "cost"
    ]
