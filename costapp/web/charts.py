"""Rows to Plotly figures, as plain dicts: no figure library in the web process.

Colours are names of CSS custom properties that charts.js fills in, so one figure serves both themes.
Positions on the time axis are bucket numbers with local labels: empty buckets keep their place, and an
hour that a clock change repeats has a place of its own. All text is escaped: Plotly reads labels as HTML.
"""

from collections import defaultdict
from datetime import datetime
from html import escape
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from costapp.storage.reports.cells import Grain
from costapp.storage.reports.spend import Point
from costapp.web import format as fmt
from costapp.web.palette import Palette

NANO = 1_000_000_000
MAX_POINTS = 10_000
MAX_LABEL = 48


class TimeAxis(NamedTuple):
    """The buckets of a chart, and how to name them."""

    starts: list[datetime]  #: UTC
    end: datetime
    grain: Grain
    zone: ZoneInfo
    now: datetime

    @property
    def unfinished(self) -> int | None:
        """Number of the bucket that is still filling."""
        edges = [*self.starts[1:], self.end]
        return next((i for i, (a, b) in enumerate(zip(self.starts, edges, strict=True)) if a <= self.now < b), None)

    def names(self) -> list[str]:
        pattern = {Grain.DAY: "%a %-d %b", Grain.HOUR: "%a %-d %b, %H:%M", Grain.FIVE_MINUTES: "%H:%M"}[self.grain]
        return [start.astimezone(self.zone).strftime(pattern) for start in self.starts]

    def ticks(self, most: int = 10) -> tuple[list[int], list[str]]:
        step = max(1, -(-len(self.starts) // most))
        places = list(range(0, len(self.starts), step))
        pattern = {Grain.DAY: "%-d %b", Grain.HOUR: "%H:%M", Grain.FIVE_MINUTES: "%H:%M"}[self.grain]
        texts = [self.starts[i].astimezone(self.zone).strftime(pattern) for i in places]
        if self.grain is Grain.HOUR:
            self._name_days(places, texts)
        return places, texts

    def _name_days(self, places: list[int], texts: list[str]) -> None:
        last = None
        for i, place in enumerate(places):
            day = self.starts[place].astimezone(self.zone).date()
            if day != last:
                texts[i] += day.strftime("<br>%-d %b")
            last = day

    def edges(self) -> list[list[str]]:
        """From and to of each bucket, for the address of the list behind a point."""
        ends = [*self.starts[1:], self.end]
        return [[a.isoformat(), b.isoformat()] for a, b in zip(self.starts, ends, strict=True)]


def dollars(nano: int | None) -> float | None:
    """A length on the screen, not money: figures in words always come from the integer."""
    return None if nano is None else nano / NANO


def money_ticks(highest_nano: int) -> dict[str, str]:
    """$1.2k above a thousand dollars, plain digits below: an SI prefix would call thousandths "m", like millions."""
    return {"tickprefix": "$", "tickformat": "~s" if highest_nano >= 1000 * NANO else ",.9~f"}


def label(text: str) -> str:
    short = text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 1]}…"
    return escape(short)


def axis_layout(axis: TimeAxis) -> dict[str, Any]:
    places, texts = axis.ticks()
    return {
        "tickvals": places,
        "ticktext": texts,
        "range": [-0.6, len(axis.starts) - 0.4],
        "fixedrange": True,
        "showgrid": False,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
    }


def base_layout(axis: TimeAxis, **more: Any) -> dict[str, Any]:
    return {
        "xaxis": axis_layout(axis),
        "yaxis": {
            "rangemode": "tozero",
            "fixedrange": True,
            "zeroline": True,
            "nticks": 5,
            "side": "left",
            "automargin": True,
        },
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "hovermode": "closest",
        "showlegend": False,
        "dragmode": False,
        **more,
    }


class Stack(NamedTuple):
    """Cost by value and bucket, ready for the chart and for the table that says the same."""

    order: list[str | None]  #: values, dearest first; None = all others
    cells: dict[str | None, list[Point | None]]
    previous_nano: list[int | None]  #: the period before, bucket by bucket; empty = not compared

    @property
    def has_previous(self) -> bool:
        return any(self.previous_nano)


def stack(points: list[Point], axis: TimeAxis, *, before: list[datetime], order: list[str], has_other: bool) -> Stack:
    """Sorts points into buckets. ``before`` are the previous period's buckets, laid under this one's."""
    place = {start: i for i, start in enumerate(axis.starts)}
    earlier = {start: i for i, start in enumerate(before)}
    keys: list[str | None] = [*order, None] if has_other else list(order)
    cells: dict[str | None, list[Point | None]] = {key: [None] * len(axis.starts) for key in keys}
    previous: dict[int, int] = defaultdict(int)
    for point in points:
        if (i := place.get(point.bucket_at)) is not None and point.value in cells:
            cells[point.value][i] = point
        elif (i := earlier.get(point.bucket_at)) is not None:
            previous[i] += point.cost_nano
    line = [previous.get(i, 0) if i < len(before) else None for i in range(len(axis.starts))] if before else []
    return Stack(keys, cells, line)


def highest(data: Stack) -> int:
    """The tallest bar of the stack, or the top of the previous period's line."""
    bars = [sum(cell.cost_nano for cell in cells if cell) for cells in zip(*data.cells.values(), strict=True)]
    return max([*bars, *(nano or 0 for nano in data.previous_nano)], default=0)


def cost_over_time(data: Stack, axis: TimeAxis, palette: Palette, *, names: dict[str | None, str]) -> dict[str, Any]:
    """Stacked bars by value, the unfinished bucket pale, the previous period dotted."""
    when, pale = axis.names(), axis.unfinished
    opacity = [0.45 if i == pale else 1.0 for i in range(len(axis.starts))]
    traces = [_bars(key, data.cells[key], when, opacity, palette, names[key]) for key in data.order]
    if data.previous_nano:
        traces.append(_previous(data.previous_nano, when))
    _within_limit(traces)
    return {
        "data": traces,
        "layout": base_layout(axis, barmode="stack", bargap=0.18, meta={"edges": axis.edges()})
        | {"yaxis": base_layout(axis)["yaxis"] | money_ticks(highest(data))},
    }


def _bars(
    key: str | None, cells: list[Point | None], when: list[str], opacity: list[float], palette: Palette, name: str
) -> dict[str, Any]:
    hover = [_hover(cell, moment, name, pale=o < 1) for cell, moment, o in zip(cells, when, opacity, strict=True)]
    marker: dict[str, Any] = {"color": f"--series-{palette.slot(key)}", "opacity": opacity, "line": {"width": 0}}
    if shape := palette.pattern(key):
        marker["pattern"] = {
            "shape": shape,
            "size": 6,
            "solidity": 0.22,
            "fillmode": "overlay",
            "fgcolor": "--surface",
            "fgopacity": 0.55,
        }
    return {
        "type": "bar",
        "name": label(name),
        "x": list(range(len(cells))),
        "y": [dollars(cell.cost_nano) if cell else 0 for cell in cells],
        "marker": marker,
        "hovertext": hover,
        "hoverinfo": "text",
        "meta": {"value": key},
    }


def _hover(cell: Point | None, moment: str, name: str, *, pale: bool) -> str:
    head = f"<b>{label(name)}</b><br>{moment}" + (" · still filling" if pale else "")
    if cell is None:
        return f"{head}<br>no requests"
    unpriced = f"<br>{fmt.count(cell.unpriced)} unpriced" if cell.unpriced else ""
    cost = "unpriced" if cell.known_cost_nano is None else f"${fmt.exact_usd(cell.cost_nano)}"
    return f"{head}<br>{cost}<br>{fmt.count(cell.requests)} requests{unpriced}"


def budget_line(name: str, day_nano: int, days: int) -> dict[str, Any]:
    """What a budget leaves for a day, if each had the same."""
    text = f"<b>Budget {label(name)}</b><br>${fmt.exact_usd(day_nano)} a day on average"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Budget per day",
        "x": [-0.5, days - 0.5],
        "y": [dollars(day_nano)] * 2,
        "line": {"color": "--text", "width": 1.5, "dash": "dash"},
        "hovertext": [text, text],
        "hoverinfo": "text",
    }


def _previous(line: list[int | None], when: list[str]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Previous period",
        "x": list(range(len(line))),
        "y": [dollars(nano) for nano in line],
        "line": {"color": "--text-muted", "width": 1.75, "dash": "dot"},
        "hovertext": [
            f"<b>Previous period, all</b><br>place of {moment}<br>${fmt.exact_usd(nano or 0)}"
            for nano, moment in zip(line, when, strict=True)
        ],
        "hoverinfo": "text",
    }


def line_over_time(
    values: list[float | None],
    texts: list[str],
    axis: TimeAxis,
    *,
    name: str,
    colour: str = "--accent",
    tick: dict[str, Any] | None = None,
    kind: str = "scatter",
) -> dict[str, Any]:
    """One figure over time: bars for counts, a line with gaps for averages."""
    when, pale = axis.names(), axis.unfinished
    hover = [
        f"<b>{label(name)}</b><br>{moment}{' · still filling' if i == pale else ''}<br>{text}"
        for i, (moment, text) in enumerate(zip(when, texts, strict=True))
    ]
    trace: dict[str, Any] = {
        "type": kind,
        "x": list(range(len(values))),
        "y": values,
        "hovertext": hover,
        "hoverinfo": "text",
        "name": label(name),
        "meta": {"value": None},
    }
    if kind == "bar":
        trace["marker"] = {
            "color": colour,
            "opacity": [0.45 if i == pale else 1.0 for i in range(len(values))],
            "line": {"width": 0},
        }
    else:
        trace |= {
            "mode": "lines+markers",
            "connectgaps": False,
            "line": {"color": colour, "width": 2},
            "marker": {"size": 4, "color": colour},
        }
    layout = base_layout(axis, bargap=0.18, meta={"edges": axis.edges()})
    layout["yaxis"] = layout["yaxis"] | (tick or {})
    return {"data": [trace], "layout": layout}


def cumulative(timeline: list[Any], zone: ZoneInfo) -> dict[str, Any]:
    """Cost of a session so far, call by call; each point leads to its call."""
    hover = [
        f"<b>{fmt.local(call.row.start_at, zone, '%-d %b, %H:%M:%S')}</b>"
        f"<br>{label(call.row.model or 'model not stated')}"
        f"<br>this call {fmt.usd(call.row.cost_nano, 'unpriced')}<br>so far ${fmt.exact_usd(call.cumulative_nano)}"
        for call in timeline
    ]
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "line": {"shape": "hv", "width": 2, "color": "--accent"},
        "marker": {"size": 7, "color": ["--bad" if call.row.error else "--accent" for call in timeline]},
        "x": list(range(1, len(timeline) + 1)),
        "y": [dollars(call.cumulative_nano) for call in timeline],
        "hovertext": hover,
        "hoverinfo": "text",
        "meta": {"links": [[call.trace, call.span] for call in timeline]},
    }
    return {
        "data": [trace],
        "layout": {
            "xaxis": {
                "title": {"text": "call"},
                "fixedrange": True,
                "showgrid": False,
                "zeroline": False,
                "tickformat": "d",
                "nticks": 8,
            },
            "yaxis": {
                "rangemode": "tozero",
                "fixedrange": True,
                **money_ticks(max((call.cumulative_nano for call in timeline), default=0)),
                "nticks": 5,
                "automargin": True,
            },
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "hovermode": "closest",
            "showlegend": False,
            "dragmode": False,
        },
    }


class Counted(NamedTuple):
    """One kind of a count per bucket."""

    name: str
    colour: str
    values: list[int]


def counts_over_time(kinds: list[Counted], axis: TimeAxis) -> dict[str, Any]:
    """Stacked counts; a bucket without any is 0."""
    when = axis.names()
    traces = [
        {
            "type": "bar",
            "name": kind.name,
            "x": list(range(len(when))),
            "y": kind.values,
            "marker": {"color": kind.colour, "line": {"width": 0}},
            "hovertext": [
                f"<b>{kind.name}</b><br>{moment}<br>{fmt.count(value)}"
                for moment, value in zip(when, kind.values, strict=True)
            ],
            "hoverinfo": "text",
            "meta": {"value": None},
        }
        for kind in kinds
    ]
    _within_limit(traces)
    return {"data": traces, "layout": base_layout(axis, barmode="stack", bargap=0.18)}


def _within_limit(traces: list[dict[str, Any]]) -> None:
    assert sum(len(trace["x"]) for trace in traces) <= MAX_POINTS, "ranges and top N keep charts below the limit"


def sparkline(values: list[float | None], *, width: int = 96, height: int = 24) -> list[str]:
    """Polyline points of an inline SVG, one text per unbroken run of known values."""
    known = [value for value in values if value is not None]
    top = max(known, default=0) or 1
    step = width / max(1, len(values) - 1)
    runs: list[list[str]] = [[]]
    for i, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{i * step:.1f},{height - 2 - value / top * (height - 4):.1f}")
    return [" ".join(run) for run in runs if run]
