"""Session, trace and call: from a conversation down to "this is why it cost $0.0123"."""

from typing import Any
from uuid import UUID

from django.http import Http404, HttpResponse

from costapp.core.ids import span_id_from_text
from costapp.core.providers import SELF_HOSTED
from costapp.storage.reports import calls as call_reports
from costapp.storage.reports.calls import Charge
from costapp.storage.reports.gpu_of_call import hours_of
from costapp.storage.reports.traces import revisions, trace_spans
from costapp.web import charts
from costapp.web.access import Visit, project_page
from costapp.web.explanation import explanation
from costapp.web.filters import MAX_VALUE_LENGTH
from costapp.web.gpus import CallHourRow, call_hour_row
from costapp.web.page import frame, show
from costapp.web.views.calls import shown
from costapp.web.waterfall import waterfall

MOST_CALLS = 500


@project_page()
def session(visit: Visit) -> HttpResponse:
    value = visit.request.GET.get("is", "")
    if not value or len(value) > MAX_VALUE_LENGTH or "\x00" in value:
        raise Http404
    totals = call_reports.session_totals(visit.conn, visit.project.pk, value)
    if not totals.requests:
        raise Http404
    rows = call_reports.session_calls(visit.conn, visit.project.pk, value, limit=MOST_CALLS)
    timeline = [
        call._replace(cumulative_nano=so_far)
        for call, (_, so_far) in zip(shown(row for row, _ in rows), rows, strict=True)
    ]
    figure = charts.cumulative(timeline, visit.zone)
    return show(
        visit,
        "session.html",
        frame(
            visit,
            None,
            nav="calls",
            title=f"Session {value}",
            value=value,
            totals=totals,
            timeline=timeline,
            figure=figure,
            others=totals.requests - len(rows),
        ),
    )


@project_page()
def trace(visit: Visit, trace: str) -> HttpResponse:
    return show(visit, "trace.html", _trace_context(visit, trace, None))


@project_page()
def call(visit: Visit, trace: str, span: str) -> HttpResponse:
    try:
        span_id = span_id_from_text(span) if len(span) == 16 else None
    except ValueError:
        span_id = None
    if span_id is None:
        raise Http404
    context = _trace_context(visit, trace, span_id)
    charge = next((found for found in context["charges"] if found.span_id == span_id), None)
    if charge is None and not any(row.span_id == span_id for row in context["rows"]):
        raise Http404
    context["row"] = next((row for row in context["rows"] if row.span_id == span_id), None)
    if charge:
        context |= {
            "charge": charge,
            "why": explanation(visit.conn, visit.project.pk, charge),
            "revisions": _revisions(visit, charge),
            "gpu_hours": _gpu_hours(visit, charge),
        }
    return show(visit, "call.html", context)


def _gpu_hours(visit: Visit, charge: Charge) -> list[CallHourRow]:
    if charge.provider != SELF_HOSTED:
        return []
    hours = hours_of(visit.conn, visit.project.pk, day=charge.day, trace_id=charge.trace_id, span_id=charge.span_id)
    return [call_hour_row(hour) for hour in hours]


def _trace_context(visit: Visit, trace: str, span_id: int | None) -> dict[str, Any]:
    try:
        trace_id = UUID(hex=trace) if len(trace) == 32 else None
    except ValueError:
        trace_id = None
    if trace_id is None:
        raise Http404
    stored = trace_spans(visit.conn, visit.project.pk, trace_id)
    charges = call_reports.trace_charges(visit.conn, visit.project.pk, trace_id)
    if not stored.spans and not charges:
        raise Http404
    rows = waterfall(stored.spans, charges)
    unpriced = sum(charge.cost_nano is None for charge in charges)
    return frame(
        visit,
        None,
        nav="calls",
        title=f"Trace {trace[:8]}",
        trace=trace_id.hex,
        stored=stored,
        charges=charges,
        rows=rows,
        selected=span_id,
        total_nano=None if charges and unpriced == len(charges) else sum(charge.cost_nano or 0 for charge in charges),
        unpriced=unpriced,
        sessions=sorted({charge.session_id for charge in charges} - {""}),
        features=sorted({charge.feature for charge in charges} - {""}),
        users=sorted({charge.user_id for charge in charges} - {""}),
        start_at=min((charge.start_at for charge in charges), default=None),
        hidden=stored.total - len(stored.spans),
    )


def _revisions(visit: Visit, charge: Charge) -> list[Any]:
    return revisions(visit.conn, visit.project.pk, day=charge.day, trace_id=charge.trace_id, span_id=charge.span_id)
