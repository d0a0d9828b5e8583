"""Figures of anomalies: a series in its band, marks on cost charts, and the waterfall between two periods."""

from html import escape
from textwrap import wrap
from typing import Any, NamedTuple

from costapp.web import format as fmt
from costapp.web.charts import TimeAxis, base_layout, dollars, money_ticks


class Band(NamedTuple):
    """A series with the band in which it usually lies. None = unknown."""

    cost_nano: list[int | None]
    expected_nano: list[int | None]
    low_nano: list[int | None]
    high_nano: list[int | None]
    odd: list[bool]


def band_over_time(band: Band, axis: TimeAxis) -> dict[str, Any]:
    """Cost against what was expected: a pale band, a dotted line in it, and the odd hours in the colour of trouble."""
    when, places = axis.names(), list(range(len(axis.starts)))
    hover = [
        f"<b>{moment}</b><br>{fmt.usd(cost, 'unpriced')}<br>expected {fmt.usd(expected)}"
        f"<br>usually {fmt.usd(low)} to {fmt.usd(high)}"
        for moment, cost, expected, low, high in zip(
            when, band.cost_nano, band.expected_nano, band.low_nano, band.high_nano, strict=True
        )
    ]
    # a fill between lines with gaps would join what is far apart: where no band is known it has no width
    low = [_first_known(*pair) for pair in zip(band.low_nano, band.expected_nano, band.cost_nano, strict=True)]
    high = [_first_known(*pair) for pair in zip(band.high_nano, band.expected_nano, band.cost_nano, strict=True)]
    edge = {"type": "scatter", "mode": "lines", "x": places, "line": {"width": 0}, "hoverinfo": "skip"}
    traces = [
        edge | {"name": "Usual, low", "y": [dollars(nano) for nano in low]},
        edge
        | {
            "name": "Usual band",
            "y": [dollars(nano) for nano in high],
            "fill": "tonexty",
            "fillcolor": "--accent-soft",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Expected",
            "x": places,
            "y": [dollars(nano) for nano in band.expected_nano],
            "line": {"color": "--text-muted", "width": 1.5, "dash": "dot"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "Cost",
            "x": places,
            "y": [dollars(nano) for nano in band.cost_nano],
            "line": {"color": "--accent", "width": 2},
            "marker": {
                "size": [7 if odd else 3 for odd in band.odd],
                "color": ["--bad" if odd else "--accent" for odd in band.odd],
            },
            "hovertext": hover,
            "hoverinfo": "text",
            "meta": {"value": None},
        },
    ]
    layout = base_layout(axis, meta={"edges": axis.edges()})
    known = [nano for nano in (*band.cost_nano, *band.high_nano) if nano is not None]
    layout["yaxis"] = layout["yaxis"] | money_ticks(max(known, default=0))
    return {"data": traces, "layout": layout}


def _first_known(*amounts: int | None) -> int:
    return next((amount for amount in amounts if amount is not None), 0)


class MarkedPoint(NamedTuple):
    """A mark on a cost chart: at a bucket, with its words and where it leads."""

    place: int
    text: str
    href: str


def with_marks(figure: dict[str, Any], points: list[MarkedPoint], heights_nano: list[int]) -> dict[str, Any]:
    """A small triangle above the bars of each marked bucket; it leads to what it stands for."""
    if not points:
        return figure
    top = max(heights_nano, default=0)
    trace = {
        "type": "scatter",
        "mode": "markers",
        "name": "Anomalies",
        "x": [point.place for point in points],
        "y": [dollars(heights_nano[point.place] + top // 25) for point in points],
        "marker": {"symbol": "triangle-down", "size": 11, "color": "--bad", "line": {"color": "--surface", "width": 1}},
        "hovertext": [f"<b>Anomaly</b><br>{escape(_folded(point.text))}".replace("\n", "<br>") for point in points],
        "hoverinfo": "text",
        "meta": {"hrefs": [point.href for point in points]},
    }
    return figure | {"data": [*figure["data"], trace]}


def _folded(text: str, width: int = 60) -> str:
    return "\n".join(wrap(text, width))


class Step(NamedTuple):
    """One bar of a waterfall."""

    name: str
    amount_nano: int
    is_total: bool


def money_waterfall(steps: list[Step]) -> dict[str, Any]:
    """From one total to another: each part begins where the one before it ended."""
    bases, lengths, level = [], [], 0
    for step in steps:
        base = 0 if step.is_total else min(level, level + step.amount_nano)
        bases.append(dollars(base))
        lengths.append(dollars(abs(step.amount_nano)))
        level = step.amount_nano if step.is_total else level + step.amount_nano
    colours = ["--series-other" if s.is_total else "--bad" if s.amount_nano > 0 else "--good" for s in steps]
    trace = {
        "type": "bar",
        "x": list(range(len(steps))),
        "y": lengths,
        "base": bases,
        "marker": {"color": colours, "line": {"width": 0}},
        "text": [_signed(step) for step in steps],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertext": [f"<b>{escape(s.name)}</b><br>${fmt.exact_usd(s.amount_nano)}" for s in steps],
        "hoverinfo": "text",
    }
    highest = max((abs(s.amount_nano) for s in steps), default=0)
    return {
        "data": [trace],
        "layout": {
            "xaxis": {
                "tickvals": list(range(len(steps))),
                "ticktext": [escape(step.name).replace(" ", "<br>") for step in steps],
                "range": [-0.6, len(steps) - 0.4],
                "fixedrange": True,
                "showgrid": False,
                "zeroline": False,
            },
            "yaxis": {"fixedrange": True, "nticks": 5, "automargin": True, **money_ticks(highest)},
            "margin": {"l": 8, "r": 8, "t": 24, "b": 8},
            "hovermode": "closest",
            "showlegend": False,
            "dragmode": False,
            "bargap": 0.35,
        },
    }


def _signed(step: Step) -> str:
    text = fmt.usd(step.amount_nano)
    return text if step.is_total or step.amount_nano <= 0 else f"+{text}"
