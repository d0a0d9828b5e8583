"""GPUs of one's own: what they cost, who used them, what nobody used, and whether an API would be cheaper."""

from typing import Any, NamedTuple

from django.http import HttpResponse

from costapp.core.providers import SELF_HOSTED
from costapp.models import GpuPool
from costapp.storage.reports import gpu
from costapp.storage.reports.cells import Scope, bucket_starts
from costapp.storage.reports.gpu import BUCKET_WORDS, BUCKETS, Bill, Closing, Node, Pool
from costapp.storage.reports.sums import ratio
from costapp.web import format as fmt
from costapp.web import gpu_charts, gpus
from costapp.web.access import Visit, project_page
from costapp.web.charts import TimeAxis
from costapp.web.filters import View
from costapp.web.page import frame, show, view_of
from costapp.web.tables import csv_response

DEFAULT = "24h"  #: in hours, so that an idle night is seen
HEAT_NODES = 60
#: Without API calls of the project: round figures of a small hosted model.
USUAL_PRICES = gpus.Prices(150_000_000, 75_000_000, 600_000_000)


class PoolRow(NamedTuple):
    """One pool of the table."""

    pool_id: int
    name: str
    gpus: int
    bill: Bill
    has_rate: bool
    kilograms: float | None  #: CO2e
    method_words: str

    @classmethod
    def of(cls, pool: Pool) -> "PoolRow":
        kilograms = None if pool.grams is None else pool.grams / 1000
        words = gpus.METHOD_WORDS.get(pool.method, pool.method)
        return cls(pool.pool_id, pool.name, pool.gpus, pool.bill, pool.has_rate, kilograms, words)


class Part(NamedTuple):
    """One bucket of the bill for the legend."""

    swatch: str
    words: str
    nano: int
    share: float | None


class Matter(NamedTuple):
    level: str
    text: str


@project_page()
def gpu_page(visit: Visit) -> HttpResponse:
    view = view_of(visit, default=DEFAULT)
    scope = gpus.in_hours(view.scope(visit.project.pk, visit.project.time_zone))._replace(filters={})
    pools, course = gpu.pools_and_course(visit.conn, scope)
    if not pools:
        return show(visit, "gpus.html", _frame(visit, view, None) | {"known_pools": _known_pools(visit)})
    chosen = gpus.read_pool(visit.request.GET, [pool.pool_id for pool in pools])
    axis = TimeAxis(bucket_starts(scope), scope.end, scope.grain, visit.zone, visit.now)
    bars = gpu_charts.bars([point for point in course if chosen in (None, point.pool_id)], axis)
    if visit.request.GET.get("format") == "csv":
        return _csv(visit, bars)
    bill = gpu.together(pool.bill for pool in pools if chosen in (None, pool.pool_id))
    nodes = [node for node in gpu.nodes(visit.conn, scope) if chosen in (None, node.pool_id)]
    closing = gpu.closing(visit.conn, scope)
    context = _frame(visit, view, chosen) | {
        "pools": [PoolRow.of(pool) for pool in pools], "pool": next((p for p in pools if p.pool_id == chosen), None),
        "bill": bill, "nodes": nodes,
        "parts": _parts(bill), "bars": bars, "buckets": BUCKET_WORDS, "closing": closing,
        "matters": _matters(closing, nodes),
        "figure": gpu_charts.split_over_time(bars, axis), "unfinished": axis.unfinished,
        "idle": [
            (row, fmt.change(row.idle_nano, row.before_nano))
            for row in gpu.idle(visit.conn, scope)
            if chosen in (None, row.pool_id)
        ],
    }  # fmt: skip
    context |= _heat(visit, scope, axis, nodes) | _models(visit, scope, chosen) | _uses(visit, scope, chosen, closing)
    return show(visit, "gpus.html", context)


def _frame(visit: Visit, view: View, chosen: int | None) -> dict[str, Any]:
    fixed = [] if chosen is None else [("pool", str(chosen))]
    return frame(
        visit, view, nav="gpus", title="GPUs", no_compare=True, fixed_query=f"pool={chosen}" if fixed else "",
        fixed_pairs_for_form=fixed,
    )  # fmt: skip


def _known_pools(visit: Visit) -> int:
    return GpuPool.objects.filter(project=visit.project).count()


def _parts(bill: Bill) -> list[Part]:
    return [
        Part(gpu_charts.SWATCHES[name], BUCKET_WORDS[name], nano, ratio(nano, bill.cost_nano))
        for name in BUCKETS
        for nano in (getattr(bill, f"{name}_nano"),)
    ]


def _matters(closing: Closing, nodes: list[Node]) -> list[Matter]:
    """What is missing from the money on this page."""
    found = []
    unrated = [node for node in nodes if node.bill.unrated_us]
    if unrated:
        names = ", ".join(node.node for node in unrated[:3]) + (" and others" if len(unrated) > 3 else "")
        hours = fmt.count(sum(node.bill.unrated_us for node in unrated) / gpu.HOURS_US)
        found.append(
            Matter("bad", f"{hours} GPU-hours of {names} have no rate yet: their cost is unknown and not in the bill.")
        )
    if closing.lost_calls:
        share = fmt.percent(ratio(closing.lost_calls, closing.calls))
        text = f"{fmt.count(closing.lost_calls)} self-hosted calls ({share}) could not be joined to a GPU."
        found.append(Matter("warn", f"{text} Map their host or model to a server in the admin."))
    if closing.waiting > 2:
        text = f"{fmt.count(closing.waiting)} hours wait to be worked out again; figures of those may still move."
        found.append(Matter("warn", text))
    return found


def _heat(visit: Visit, scope: Scope, axis: TimeAxis, nodes: list[Node]) -> dict[str, Any]:
    names = list(dict.fromkeys(node.node for node in nodes))[:HEAT_NODES]
    rows = gpu.heat(visit.conn, scope, names=names)
    return {"heat": gpu_charts.heat_map(rows, axis, names), "heat_nodes": len(names), "all_nodes": len(nodes)}


def _models(visit: Visit, scope: Scope, chosen: int | None) -> dict[str, Any]:
    """Unit costs of served models, and the comparison with an API."""
    models = [row for row in gpu.models(visit.conn, scope) if chosen in (None, row.pool_id)]
    served = sorted({row.model for row in models if row.model})
    paid = gpus.paid_to_apis(visit.conn, scope, SELF_HOSTED)
    assumed = gpus.read_assumptions(visit.request.GET, paid or USUAL_PRICES, served)
    found = gpu.break_even(visit.conn, scope, pool_id=chosen, model=assumed.model or None)
    verdict = gpus.compare(found, assumed)
    return {
        "units": gpus.unit_costs(models), "served": served, "assumed": assumed, "paid": paid, "verdict": verdict,
        "form": _typed(assumed), "even_words": _times(verdict.load_factor) if verdict else "",
    }  # fmt: skip


def _typed(assumed: gpus.Assumptions) -> dict[str, str]:
    """The assumptions as they stand in the fields of the form."""
    amounts = {
        "api_input": assumed.prices.input_nano, "api_cached": assumed.prices.cached_nano,
        "api_output": assumed.prices.output_nano, "gpu_hour": assumed.gpu_hour_nano,
    }  # fmt: skip
    return {name: fmt.exact_usd(nano).rstrip("0").rstrip(".") for name, nano in amounts.items()}


def _times(factor: float | None) -> str:
    """``2.4 times`` or ``40%``."""
    if factor is None:
        return ""
    return f"{factor:,.1f} times" if factor >= 2 else fmt.percent(factor)


def _uses(visit: Visit, scope: Scope, chosen: int | None, closing: Closing) -> dict[str, Any]:
    found = {
        by: [row for row in gpu.uses(visit.conn, scope, by=by) if chosen in (None, row.pool_id)]
        for by in ("feature", "team")
    }
    is_short = scope.end - scope.start <= gpus.USERS_UP_TO and closing.calls <= gpus.USERS_UP_TO_CALLS
    users = [row for row in gpu.users(visit.conn, scope) if chosen in (None, row.pool_id)] if is_short else []
    return {"features": found["feature"], "teams": found["team"], "users": users, "users_known": is_short}


def _csv(visit: Visit, bars: list[gpu_charts.Bar]) -> HttpResponse:
    """The split bucket by bucket, exact to the nano-dollar."""
    header = ("from", "to", *(f"{name}_usd" for name in BUCKETS), "bill_usd")
    rows = [
        (bar.edges[0].isoformat(), bar.edges[1].isoformat(),
         *(fmt.exact_usd(bar.amounts[name]) for name in BUCKETS), fmt.exact_usd(bar.total_nano))
        for bar in bars
    ]  # fmt: skip
    return csv_response(f"gpus-{visit.project.slug}", header, rows)
