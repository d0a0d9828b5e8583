"""The chart of a rule's preview: what it watches over time, its thresholds, and where it would have told."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from costapp.core.alert_metrics import amount_text
from costapp.core.alert_rules import Condition, Severity, threshold_unit
from costapp.core.alert_sentences import Wording
from costapp.models import AlertRule
from costapp.services.preview_rule import Point, Preview
from costapp.services.rule_telling import subject_name
from costapp.web import charts
from costapp.web import format as fmt

MOST_POINTS = 1000
TICKS = 6


def rule_figure(rule: AlertRule, wording: Wording, found: Preview, zone: ZoneInfo) -> dict[str, Any]:
    unit = threshold_unit(rule.the_metric, rule.the_condition)
    points = _thinned(found.lines[found.now], rule.the_condition)
    name = charts.label(subject_name(rule.by, found.now) or rule.the_metric.label)
    moments = [fmt.local(point.end, zone, "%a %-d %b, %H:%M") for point in points]
    traces = [
        {
            "type": "scatter", "mode": "lines", "name": name, "x": list(range(len(points))),
            "y": [None if p.measure is None else p.measure / unit.scale for p in points], "connectgaps": False,
            "line": {"color": "--accent", "width": 1.6},
            "hovertext": [
                f"<b>{name}</b><br>{moment}<br>{amount_text(point.measure, unit)}"
                for point, moment in zip(points, moments, strict=True)
            ],
            "hoverinfo": "text", "meta": {"value": None},
        }
    ]  # fmt: skip
    for level, typed in (("Warning", wording.warning), ("Critical", wording.critical)):
        if typed is not None:
            traces.append(_threshold(level, typed / unit.scale, amount_text(typed, unit), len(points)))
    traces.append(_marks(found, points, unit.scale))
    layout = {
        "xaxis": _axis(points, zone),
        "yaxis": {"fixedrange": True, "zeroline": True, "nticks": 5, "automargin": True, "rangemode": "tozero"},
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8}, "hovermode": "closest", "showlegend": False, "dragmode": False,
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def _thinned(points: list[Point], condition: Condition) -> list[Point]:
    """At most MOST_POINTS, each the worst of its stretch: no peak is lost."""
    stretch = -(-len(points) // MOST_POINTS)
    worst = min if condition is Condition.BELOW else max
    thin = []
    for first in range(0, len(points), stretch or 1):
        known = [point for point in points[first : first + stretch] if point.measure is not None]
        thin.append(worst(known, key=lambda point: point.measure or 0) if known else points[first])
    return thin


def _threshold(level: str, height: float, text: str, width: int) -> dict[str, Any]:
    colour = "--bad" if level == "Critical" else "--series-1"
    return {
        "type": "scatter", "mode": "lines", "name": level, "x": [0, max(1, width - 1)], "y": [height, height],
        "line": {"color": colour, "width": 1.5, "dash": "dash"}, "hovertext": [f"{level}: {text}"] * 2,
        "hoverinfo": "text", "meta": {"value": None},
    }  # fmt: skip


def _marks(found: Preview, points: list[Point], scale: int) -> dict[str, Any]:
    """A mark where each alert of the drawn subject would have opened."""
    ends = [point.end for point in points]
    places, heights, colours, words = [], [], [], []
    for firing in found.firings:
        if firing.subject != found.now:
            continue
        place = _place(ends, firing.opened_at)
        measure = points[place].measure
        places.append(place)
        heights.append(None if measure is None else measure / scale)
        colours.append("--bad" if firing.severity is Severity.CRITICAL else "--series-1")
        words.append(f"{firing.severity.name.capitalize()} would have been told here")
    marker = {"size": 11, "symbol": "triangle-down", "color": colours, "line": {"width": 0}}
    return {
        "type": "scatter", "mode": "markers", "name": "Alert", "x": places, "y": heights, "marker": marker,
        "hovertext": words, "hoverinfo": "text", "meta": {"value": None},
    }  # fmt: skip


def _place(ends: list[datetime], at: datetime) -> int:
    return min(range(len(ends)), key=lambda place: abs(ends[place] - at))


def _axis(points: list[Point], zone: ZoneInfo) -> dict[str, Any]:
    step = max(1, -(-len(points) // TICKS))
    places = list(range(0, len(points), step))
    texts = [fmt.local(points[place].end, zone, "%-d %b") for place in places]
    return {
        "tickvals": places, "ticktext": texts, "fixedrange": True, "showgrid": False, "zeroline": False,
        "ticks": "outside", "ticklen": 4,
    }  # fmt: skip
