"""GPU rows to Plotly figures: the hour's split as stacked bars, and utilisation of nodes as a heat map."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from costapp.storage.reports.gpu import BUCKET_WORDS, BUCKETS, Bill, NodeHour, Point
from costapp.web import format as fmt
from costapp.web.charts import TimeAxis, base_layout, dollars, label, money_ticks

#: Colour and pattern of a bucket: what calls caused is plain, what nobody used is hatched.
LOOKS = {
    "attributed": ("--series-0", ""),
    "busy": ("--series-6", ""),
    "held": ("--series-4", "/"),
    "free": ("--series-1", "x"),
    "unobserved": ("--series-other", "."),
}
#: The same as CSS classes of a swatch.
SWATCHES = {"attributed": "series-0", "busy": "series-6", "held": "series-4 p1", "free": "series-1 p4",
            "unobserved": "series-other p2"}  # fmt: skip
_HEAT = [[0, "--surface-sunk"], [0.02, "--heat-low"], [1, "--heat-high"]]
_ROW_PX = 22


class Bar(NamedTuple):
    """One bucket of the chart, all pools together."""

    name: str
    edges: tuple[datetime, datetime]
    amounts: dict[str, int]  #: nano-dollars by GPU bucket
    total_nano: int
    is_unrated: bool


def bars(points: Iterable[Point], axis: TimeAxis) -> list[Bar]:
    """The bill of each bucket of the axis and its five parts; they sum to it."""
    amounts: dict[datetime, dict[str, int]] = defaultdict(lambda: dict.fromkeys(BUCKETS, 0))
    totals: dict[datetime, int] = defaultdict(int)
    unrated: set[datetime] = set()
    for point in points:
        for bucket in BUCKETS:
            amounts[point.bucket_at][bucket] += getattr(point.bill, f"{bucket}_nano")
        totals[point.bucket_at] += point.bill.cost_nano
        if point.bill.unrated_us:
            unrated.add(point.bucket_at)
    ends = [*axis.starts[1:], axis.end]
    return [
        Bar(name, (start, end), amounts[start], totals[start], start in unrated)
        for name, start, end in zip(axis.names(), axis.starts, ends, strict=True)
    ]


def split_over_time(found: Sequence[Bar], axis: TimeAxis) -> dict[str, Any]:
    """Stacked bars that add up to the bill."""
    traces = [_bucket(bucket, found, axis) for bucket in BUCKETS]
    layout = base_layout(axis, barmode="stack", bargap=0.12)
    layout["yaxis"] |= money_ticks(max((bar.total_nano for bar in found), default=0))
    return {"data": traces, "layout": layout}


def _bucket(bucket: str, found: Sequence[Bar], axis: TimeAxis) -> dict[str, Any]:
    colour, shape = LOOKS[bucket]
    marker: dict[str, Any] = {
        "color": colour, "line": {"width": 0},
        "opacity": [0.45 if i == axis.unfinished else 1.0 for i in range(len(found))],
    }  # fmt: skip
    if shape:
        marker["pattern"] = {
            "shape": shape, "size": 6, "solidity": 0.22, "fillmode": "overlay", "fgcolor": "--surface",
            "fgopacity": 0.55,
        }  # fmt: skip
    return {
        "type": "bar",
        "name": BUCKET_WORDS[bucket],
        "x": list(range(len(found))),
        "y": [dollars(bar.amounts[bucket]) for bar in found],
        "marker": marker,
        "hovertext": [_hover(bucket, bar) for bar in found],
        "hoverinfo": "text",
        "meta": {"value": None},
    }


def _hover(bucket: str, bar: Bar) -> str:
    unrated = "<br>some GPUs have no rate yet" if bar.is_unrated else ""
    return (
        f"<b>{BUCKET_WORDS[bucket]}</b><br>{bar.name}<br>${fmt.exact_usd(bar.amounts[bucket])}"
        f"<br>of ${fmt.exact_usd(bar.total_nano)}{unrated}"
    )


def heat_map(rows: Sequence[NodeHour], axis: TimeAxis, nodes: Sequence[str]) -> dict[str, Any]:
    """Node x bucket, the colour is the mean utilisation; a gap is no telemetry, never 0."""
    place = {start: i for i, start in enumerate(axis.starts)}
    row_of = {node: i for i, node in enumerate(nodes)}
    values: list[list[float | None]] = [[None] * len(axis.starts) for _ in nodes]
    texts = [[f"<b>{label(node)}</b><br>{moment}<br>no telemetry" for moment in axis.names()] for node in nodes]
    moments = axis.names()
    for row in rows:
        if row.node in row_of and (i := place.get(row.bucket_at)) is not None:
            values[row_of[row.node]][i] = row.bill.utilisation
            texts[row_of[row.node]][i] = _field(row.node, moments[i], row.bill)
    trace = {
        "type": "heatmap", "z": values, "x": list(range(len(axis.starts))), "y": [label(node) for node in nodes],
        "text": texts, "hoverinfo": "text", "zmin": 0, "zmax": 1, "colorscale": _HEAT, "showscale": False,
        "xgap": 1, "ygap": 2, "hoverongaps": True, "meta": {"value": None},
    }  # fmt: skip
    layout = base_layout(axis, height=70 + _ROW_PX * len(nodes))
    layout["yaxis"] = {"automargin": True, "fixedrange": True, "type": "category", "showgrid": False,
                       "autorange": "reversed", "ticks": "", "zeroline": False}  # fmt: skip
    return {"data": [trace], "layout": layout}


def _field(node: str, moment: str, bill: Bill) -> str:
    cost = "no rate yet" if bill.known_cost_nano is None else f"${fmt.exact_usd(bill.cost_nano)}"
    return (
        f"<b>{label(node)}</b><br>{moment}<br>{fmt.percent(bill.utilisation)} utilisation"
        f"<br>{fmt.percent(bill.efficiency)} of the time at work<br>{cost}"
    )
