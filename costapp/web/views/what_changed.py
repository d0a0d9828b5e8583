"""Two periods compared: the difference in exact parts, and where it comes from."""

from datetime import datetime
from typing import Any, NamedTuple

from django.http import HttpResponse, QueryDict

from anomaly.decompose import Decomposition, decompose
from anomaly.sentences import percent, times
from costapp.services.anomalies.causes import usage_of
from costapp.storage.reports.anomaly_cells import LEAF_MEASURES, Leaf, usage_by
from costapp.storage.reports.cells import Scope, Unanswerable
from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.spend import split
from costapp.web import format as fmt
from costapp.web.access import Visit, project_page
from costapp.web.anomaly_charts import Step, money_waterfall
from costapp.web.anomaly_words import PART_WORDS
from costapp.web.filters import BadRange, Period, View, previous_start, read_period
from costapp.web.links import drill_url
from costapp.web.page import frame, show, view_of
from costapp.web.tables import csv_response, json_response

#: What mix is a mix of. More pairs than this are one last pair.
MIX = ("feature", "model")
MOST_PAIRS = 2000
MOVERS = ("feature", "model", "prompt_version", "team", "environment", "user")
MOST_MOVERS = 6
MOVERS_READ = 5000
EXPLAINED = {
    "volume": "As many calls as now, in the mix of then.",
    "mix": "Calls moved to other models or features. What is new is here with all it costs per call.",
    "prompt": "Prompt tokens per call: uncached, read from and written to a cache.",
    "output": "Output tokens per call, reasoning included.",
    "cache": "How the prompt splits between uncached, cache read and cache write.",
    "price": "Price per token.",
    "other": "What is not charged by token, per call: images, tool calls, GPU time.",
}


class PartRow(NamedTuple):
    key: str
    name: str
    amount_nano: int
    figure: str  # the quantity behind it, then and now
    explained: str


class Mover(NamedTuple):
    label: str
    href: str
    before_nano: int
    after_nano: int

    @property
    def change_nano(self) -> int:
        return self.after_nano - self.before_nano


@project_page()
def what_changed(visit: Visit) -> HttpResponse:
    view = view_of(visit)
    now = view.scope(visit.project.pk, visit.project.time_zone)
    earlier, problem = _earlier(visit, view)
    then = now._replace(start=earlier.start, end=earlier.end, grain=earlier.grain)
    if now.grain is not then.grain:
        now, then = _same_grain(now, then)
    try:
        parts = decompose(_usages(visit, then), _usages(visit, now))
    except Unanswerable as wrong:
        return show(visit, "what_changed.html", _frame(visit, view, then, problem) | {"unanswerable": str(wrong)})
    rows = part_rows(parts)
    if (kind := visit.request.GET.get("format")) in {"csv", "json"}:
        return _export(kind, parts, rows, now, then)
    context = _frame(visit, view, then, problem) | {
        "parts": parts,
        "rows": rows,
        "figure": money_waterfall(_steps(parts, rows)),
        "groups": [(DIMENSIONS[key], found) for key in MOVERS if (found := movers(visit, view, now, then, key))],
        "change_words": fmt.change(parts.after_nano, parts.before_nano),
        "empty": not (parts.before_nano or parts.after_nano or parts.unpriced_before or parts.unpriced_after),
    }
    return show(visit, "what_changed.html", context)


# --- the earlier period


def _earlier(visit: Visit, view: View) -> tuple[Period, str]:
    """As ``vs_from`` and ``vs_to`` say, else the period before; and what was wrong with them, in words."""
    query = visit.request.GET
    asked = {"from": query.get("vs_from", "").strip(), "to": query.get("vs_to", "").strip()}
    problem = ""
    if asked["from"] or asked["to"]:
        given = QueryDict(mutable=True)
        given.update({key: value for key, value in asked.items() if value})
        try:
            return read_period(given, visit.zone, now=visit.now), ""
        except BadRange as wrong:
            problem = str(wrong)
    start = previous_start(view.period, visit.zone)
    length = view.period.end - view.period.start if view.period.preset not in {"month", "last-month"} else None
    end = min(view.period.start, start + length) if length else view.period.start
    return Period(start, end, view.period.grain, ""), problem


def _same_grain(now: Scope, then: Scope) -> tuple[Scope, Scope]:
    """Periods of different lengths, read from the same kind of cells where both begin on its edges."""
    finest = min((now.grain, then.grain), key=lambda grain: grain.step)
    return now._replace(grain=finest), then._replace(grain=finest)


def _usages(visit: Visit, scope: Scope) -> dict[str, Any]:
    found: list[Leaf] = usage_by(visit.conn, scope, MIX, limit=MOST_PAIRS)
    return {"\x1f".join(leaf.values): usage_of(dict(zip(LEAF_MEASURES, leaf.amounts, strict=True))) for leaf in found}


# --- what is shown


def part_rows(parts: Decomposition) -> list[PartRow]:
    return [
        PartRow(key, PART_WORDS[key], amount, _figure(parts, key), EXPLAINED[key])
        for key, amount in parts.amounts.items()
        if amount or key != "other"
    ]


def _figure(parts: Decomposition, key: str) -> str:
    change = parts.quantities.get(key)
    if change is None or (change.before is None and change.after is None):
        return ""
    if key == "price":
        return f"{times(change.factor)} at the same tokens" if change.factor else ""
    show_one = {
        "volume": lambda value: fmt.count(int(value)),
        "cache": lambda value: f"{percent(value)} of the prompt",
    }.get(key, lambda value: f"{fmt.compact(round(float(value)))} tokens")
    before, after = (fmt.GAP if value is None else show_one(value) for value in change)
    factor = change.factor
    worth_saying = factor is not None and key != "cache" and times(factor) != "1.0x"
    return f"{before} → {after}" + (f" ({times(factor)})" if factor and worth_saying else "")


def _steps(parts: Decomposition, rows: list[PartRow]) -> list[Step]:
    middle = [Step(row.name, row.amount_nano, False) for row in rows]
    return [Step("Then", parts.before_nano, True), *middle, Step("Now", parts.after_nano, True)]


def movers(visit: Visit, view: View, now: Scope, then: Scope, by: str) -> list[Mover]:
    """The values whose cost moved most; none where the dimension cannot be split or has one value."""
    if by in now.filters and len(now.filters[by]) == 1:
        return []
    try:
        after = {row.value: row.sums.cost_nano or 0 for row in split(visit.conn, now, by, limit=MOVERS_READ).rows}
        before = {row.value: row.sums.cost_nano or 0 for row in split(visit.conn, then, by, limit=MOVERS_READ).rows}
    except Unanswerable:
        return []
    values = after.keys() | before.keys()
    found = [
        Mover(
            value or DIMENSIONS[by].empty,
            drill_url(visit, view, by, value) if value or by != "user" else "",
            before.get(value, 0),
            after.get(value, 0),
        )
        for value in values
    ]
    moved = sorted((each for each in found if each.change_nano), key=lambda each: (-abs(each.change_nano), each.label))
    return moved[:MOST_MOVERS] if len(values) > 1 else []


def _frame(visit: Visit, view: View, then: Scope, problem: str) -> dict[str, Any]:
    versus = [(key, value) for key in ("vs_from", "vs_to") if (value := visit.request.GET.get(key, "").strip()[:40])]
    return frame(
        visit,
        view,
        nav="what-changed",
        title="What changed",
        then_words=fmt.span_of_time(then.start, then.end, visit.zone),
        then_from=_local(visit, then.start),
        then_to=_local(visit, then.end),
        then_problem=problem,
        versus=versus,
        fixed_pairs_for_form=versus,
        no_compare=True,
        exports=True,
    )


def _local(visit: Visit, moment: datetime) -> str:
    return fmt.local(moment, visit.zone, "%Y-%m-%dT%H:%M")


def _export(kind: str, parts: Decomposition, rows: list[PartRow], now: Scope, then: Scope) -> HttpResponse:
    header = ("part", "amount_usd", "amount_nano", "figure")
    lines: list[list[object]] = [["then", fmt.exact_usd(parts.before_nano), parts.before_nano, ""]]
    lines += [[row.key, fmt.exact_usd(row.amount_nano), row.amount_nano, row.figure] for row in rows]
    lines.append(["now", fmt.exact_usd(parts.after_nano), parts.after_nano, ""])
    if kind == "json":
        return json_response(
            header,
            lines,
            start=now.start.isoformat(),
            end=now.end.isoformat(),
            then_start=then.start.isoformat(),
            then_end=then.end.isoformat(),
            unpriced_then=parts.unpriced_before,
            unpriced_now=parts.unpriced_after,
        )
    return csv_response(f"costapp-what-changed-{now.start:%Y-%m-%d}", header, lines)
