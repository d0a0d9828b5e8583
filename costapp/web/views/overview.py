"""The first page: where the money goes, whether the figures are whole, and what needs attention."""

from typing import Any, NamedTuple

from django.http import HttpResponse
from django.urls import reverse

from costapp.core.alerts import Level
from costapp.services.channel_health import channel_matters
from costapp.storage.reports import state as states
from costapp.storage.reports.alert_lists import open_alerts
from costapp.storage.reports.cells import Scope, Unanswerable, needs_charges
from costapp.storage.reports.health import self_check
from costapp.storage.reports.state import ModelGap, State
from costapp.storage.reports.sums import Sums, ratio
from costapp.web import format as fmt
from costapp.web.access import Visit, project_page
from costapp.web.anomaly_words import mark_chart
from costapp.web.budget_parts import bars_of, budget_matters, month_outlook, pace
from costapp.web.filters import View
from costapp.web.page import default_preset, frame, project_state, show, view_of
from costapp.web.splits import (
    ROWS_EXPORTED,
    ROWS_SHOWN,
    SPLITS,
    Report,
    draw_pace,
    export,
    report,
    split_context,
    switch_context,
)
from costapp.web.views.alerts import rules_are_stale
from costapp.web.views.health import catalogue_check, ledger_check

UNATTRIBUTED_WORTH_SAYING = 0.05
ALERTS_SHOWN = 3


class Matter(NamedTuple):
    """One sentence of "Needs attention"."""

    level: str  #: warn | bad
    text: str
    link: str  #: name of the page that helps
    action: str
    href: str = ""  #: its address, where the name alone does not lead there


@project_page()
def overview(visit: Visit) -> HttpResponse:
    found = project_state(visit)
    if found.first_at is None:
        from costapp.web.views.connect import guide

        return guide(visit, first_time=True)
    view = view_of(visit, default=default_preset(found), by=SPLITS)
    by, scope = view.by or "feature", view.scope(visit.project.pk, visit.project.time_zone)
    kind = visit.request.GET.get("format")
    try:
        data = report(visit, view, scope, by, rows=ROWS_EXPORTED if kind else ROWS_SHOWN)
    except Unanswerable as problem:
        return show(visit, "overview.html", _frame(visit, view, found, by) | {"unanswerable": str(problem)})
    if kind in {"csv", "json"}:
        return export(kind, data)
    gaps = [] if needs_charges(scope) else unpriced_gaps(visit, scope, data.total.now)
    context = _frame(visit, view, found, by) | mark_chart(visit, data, split_context(visit, view, data))
    context |= {
        "matters": [
            *with_channels(visit, alert_matters(visit)),
            *(Matter(*each) for each in budget_matters(visit)),
            *matters(data, gaps),
            *machine_matters(visit),
        ],
        **_unattributed_figures(data),
    }
    draw_pace(context, data, pace(bars_of(visit), view.period, view.filters))
    return show(visit, "overview.html", context)


def _frame(visit: Visit, view: View, found: State, by: str) -> dict[str, Any]:
    outlook = month_outlook(visit, found.month_cost_nano)
    return frame(visit, view, nav="overview", title="Overview", state=found, outlook=outlook, **switch_context(by))


def _unattributed_figures(data: Report) -> dict[str, Any]:
    line = next((line for line in data.lines if line.value == ""), None)
    requests = line.now.requests if line else 0
    return {"unattributed": line, "unattributed_share": ratio(requests, data.total.now.requests)}


def alert_matters(visit: Visit) -> list[Matter]:
    """The worst open alerts that nobody looks after yet, and whether rules are judged at all."""
    found = []
    if rules_are_stale(visit):
        found.append(Matter("bad", "Alert rules are not being judged: no alert is no news.", "alerts", "See Alerts"))
    rows, count = open_alerts(visit.conn, visit.project.pk, limit=ALERTS_SHOWN + 1)
    unseen = [
        row for row in rows if not row.acknowledged_at and not (row.snoozed_until and row.snoozed_until > visit.now)
    ]
    for row in unseen[:ALERTS_SHOWN]:
        level = "bad" if row.level == Level.CRITICAL else "warn"
        href = reverse("alert", kwargs={"slug": visit.project.slug, "alert_id": row.id})
        found.append(Matter(level, row.title, "alerts", "See the alert", href))
    if len(unseen) > ALERTS_SHOWN:
        found.append(Matter("warn", f"{fmt.count(count)} alerts are open in all.", "alerts", "See all alerts"))
    return found


def with_channels(visit: Visit, found: list[Matter]) -> list[Matter]:
    """Channels that do not work, unless an open alert says so already."""
    troubles = [
        Matter(trouble.level, f"{trouble.title}. {trouble.words}", "health", "See Data health")
        for trouble in channel_matters(visit.conn, visit.project.pk, visit.now)
        if not any(matter.text.startswith(trouble.title) for matter in found)
    ]
    return found + troubles


def unpriced_gaps(visit: Visit, scope: Scope, total: Sums) -> list[ModelGap]:
    """Asked only when tokens are unpriced: most pages of a healthy project save the statement."""
    return states.unpriced_models(visit.conn, scope) if _tokens_are_unpriced(total) else []


def _tokens_are_unpriced(total: Sums) -> bool:
    return (total.tokens or 0) > total.priced_tokens if total.priced_tokens is not None else bool(total.unpriced)


def matters(data: Report, gaps: list[ModelGap]) -> list[Matter]:
    """Only what is true of the figures on the page."""
    total, found = data.total.now, []
    if missing := [gap for gap in gaps if not gap.is_own]:
        found.append(Matter("bad", _unpriced_words(missing), "health", "See unpriced models"))
    if own := [gap for gap in gaps if gap.is_own]:
        found.append(Matter("warn", _own_gpu_words(own), "health", "See Data health"))
    if total.usage_unknown:
        share = fmt.percent(ratio(total.usage_unknown, total.requests))
        text = (
            f"{fmt.count(total.usage_unknown)} requests ({share}) came without token counts: failed, or not reported."
        )
        found.append(Matter("warn", text, "health", "See which"))
    if data.by == "feature":
        found += _unattributed(data)
    return found


def _own_gpu_words(gaps: list[ModelGap]) -> str:
    """Calls to servers of one's own get their cost when the GPU hour is closed."""
    return (
        f"{_requests_to(gaps)} on your own GPUs have no cost yet: their hour is still open, or no engine or rate is"
        " known for it."
    )


def _requests_to(gaps: list[ModelGap]) -> str:
    names = ", ".join(gap.model or "(model not stated)" for gap in gaps[:3]) + (" and others" if len(gaps) > 3 else "")
    return f"{fmt.count(sum(gap.requests for gap in gaps))} requests to {names}"


def _unpriced_words(gaps: list[ModelGap]) -> str:
    return f"{_requests_to(gaps)} carry no price: their cost is missing from every total here."


def machine_matters(visit: Visit) -> list[Matter]:
    """What Costapp itself must own up to."""
    checks = (ledger_check(visit, self_check(visit.conn, visit.project.pk)), catalogue_check(visit))
    return [Matter(c.level, f"{c.title}. {c.words}", "health", "See Data health") for c in checks if c.level == "bad"]


def _unattributed(data: Report) -> list[Matter]:
    line = next((line for line in data.lines if line.value == ""), None)
    share = ratio(line.now.requests, data.total.now.requests) if line else None
    if line is None or share is None or share < UNATTRIBUTED_WORTH_SAYING:
        return []
    text = f"{fmt.percent(share)} of requests ({fmt.usd(line.now.known_cost_nano, 'unpriced')}) name no feature."
    return [Matter("warn", text, "connect", "How to name features")]
