"""What every project page shares: its view state, its frame (navigation, chips, presets), and bad ranges in words."""

from typing import Any, NamedTuple

from django.http import HttpResponse
from django.shortcuts import render
from django.utils.datastructures import MultiValueDict

from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.storage.reports.state import State, state
from costapp.web import format as fmt
from costapp.web.access import Visit
from costapp.web.filters import DEFAULT_PRESET, PRESETS, BadRange, View, month_start, read_view

YOUNG_PROJECT_S = 2 * 86400


class Chip(NamedTuple):
    label: str
    text: str
    remove: str  #: query without it


def project_state(visit: Visit) -> State:
    return state(visit.conn, visit.project.pk, month_start=month_start(visit.now, visit.zone))


def default_preset(found: State) -> str:
    """A project of today shows today: thirty days with one bar would say nothing."""
    if found.first_at and (found.checked_at - found.first_at).total_seconds() < YOUNG_PROJECT_S:
        return "today"
    return DEFAULT_PRESET


def view_of(visit: Visit, *, default: str = DEFAULT_PRESET, by: tuple[str, ...] = ()) -> View:
    """Reads the address. A range that cannot be shown falls back to the default, and the page says why."""
    query = visit.request.GET
    try:
        return read_view(query, visit.zone, now=visit.now, default=default, by=by)
    except BadRange as problem:
        visit.request.range_problem = str(problem)
        rest = MultiValueDict({key: query.getlist(key) for key in query if key not in {"range", "from", "to"}})
        kept = query.__class__("", mutable=True)
        kept.update(rest)
        return read_view(kept, visit.zone, now=visit.now, default=default, by=by)


def frame(visit: Visit, view: View | None, *, nav: str, title: str, **more: Any) -> dict[str, Any]:
    """Context of base.html."""
    context = {"visit": visit, "nav": nav, "title": title, **more}
    if view is None:
        return context
    period = view.period
    custom_end = fmt.local(period.end, visit.zone, "%Y-%m-%dT%H:%M")
    return {
        **context,
        "view": view,
        "presets": PRESETS,
        "period_words": fmt.span_of_time(period.start, period.end, visit.zone),
        "period_name": PRESETS.get(period.preset, "Custom range"),
        "custom_from": fmt.local(period.start, visit.zone, "%Y-%m-%dT%H:%M"),
        "custom_to": custom_end,
        "kept_pairs": view.pairs(drop=("from", "to", "range")),
        "chips": chips(view, more.get("fixed_query", "")),
        "range_problem": getattr(visit.request, "range_problem", ""),
    }


def chips(view: View, fixed_query: str) -> list[Chip]:
    found = []
    for key, values in view.filters.items():
        for value in values:
            query = "&".join(filter(None, [fixed_query, view.without(key, value)]))
            found.append(Chip(DIMENSIONS[key].label, value or DIMENSIONS[key].empty, query))
    return found


def show(visit: Visit, template: str, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    return render(visit.request, template, context, status=status)
