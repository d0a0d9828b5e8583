"""The list of calls behind any figure: filtered by the address, newest first, a page at a time."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from django.http import HttpResponse

from costapp.core.ids import span_id_text
from costapp.core.values import CostStatus, UsageState
from costapp.storage.reports.calls import ONLY, CallPage, CallRow, Cursor, newest_calls
from costapp.web import format as fmt
from costapp.web.access import Visit, project_page
from costapp.web.page import frame, show, view_of
from costapp.web.tables import csv_response, json_response

PAGE = 50
EXPORT = 5000
STATUS_WORDS = {
    CostStatus.UNPRICED: "unpriced",
    CostStatus.PRICED: "priced",
    CostStatus.ESTIMATED: "estimated",
    CostStatus.REPORTED: "reported by the client",
    CostStatus.FREE: "free",
    CostStatus.GPU: "GPU hours",
}
USAGE_WORDS = {
    UsageState.UNKNOWN: "unknown",
    UsageState.REPORTED: "reported",
    UsageState.PARTIAL: "partial (cached part not sent)",
    UsageState.ESTIMATED: "estimated",
}


class ShownCall(NamedTuple):
    """A call with the ids of its address."""

    row: CallRow
    trace: str
    span: str
    cumulative_nano: int | None = None


@project_page()
def calls(visit: Visit) -> HttpResponse:
    view = view_of(visit)
    scope = view.scope(visit.project.pk, visit.project.time_zone)
    query = visit.request.GET
    only = query.get("only", "") if query.get("only", "") in ONLY else ""
    kind = query.get("format")
    found = newest_calls(
        visit.conn, scope, only=only, before=read_cursor(query.get("before", "")), limit=EXPORT if kind else PAGE
    )
    if kind in {"csv", "json"}:
        return _export(kind, found)
    fixed = (("only", only),) if only else ()
    context = frame(
        visit,
        view,
        nav="calls",
        title="Calls",
        fixed_query=f"only={only}" if only else "",
        fixed_pairs_for_form=fixed,
        no_compare=True,
        exports=found.rows,
        only=only,
        only_words=ONLY,
        calls=shown(found.rows),
        found=found,
        older=write_cursor(found.older),
        first=not query.get("before"),
    )
    return show(visit, "calls.html", context)


def shown(rows: Iterable[CallRow]) -> list[ShownCall]:
    return [ShownCall(row, row.trace_id.hex, span_id_text(row.span_id)) for row in rows]


def read_cursor(text: str) -> Cursor | None:
    """A damaged cursor is the first page, not an error."""
    at, _, span = text.rpartition("~")
    try:
        moment = datetime.fromisoformat(at)
        return Cursor(moment, int(span)) if moment.tzinfo and -(2**63) <= int(span) < 2**63 else None
    except ValueError:
        return None


def write_cursor(cursor: Cursor | None) -> str:
    return f"{cursor.start_at.isoformat()}~{cursor.span_id}" if cursor else ""


EXPORT_HEADER = (
    "start_at",
    "trace_id",
    "span_id",
    "feature",
    "user",
    "session",
    "team",
    "environment",
    "service",
    "workload",
    "operation",
    "provider",
    "model",
    "duration_us",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "cost_usd",
    "cost_nano",
    "cost_status",
    "usage_state",
    "error",
)


def _export(kind: str, found: CallPage) -> HttpResponse:
    rows = [
        [
            row.start_at.isoformat(),
            row.trace_id.hex,
            span_id_text(row.span_id),
            row.feature,
            row.user_id,
            row.session_id,
            row.team,
            row.environment,
            row.service,
            row.span_name,
            row.operation,
            row.provider,
            row.model,
            row.duration_us,
            row.input_tokens,
            row.cached_tokens,
            row.output_tokens,
            fmt.exact_usd(row.cost_nano),
            row.cost_nano,
            STATUS_WORDS[CostStatus(row.cost_status)],
            USAGE_WORDS[UsageState(row.usage_state)],
            row.error or "",
        ]
        for row in found.rows
    ]
    if kind == "json":
        return json_response(EXPORT_HEADER, rows, older=write_cursor(found.older))
    return csv_response("costapp-calls", EXPORT_HEADER, rows)
