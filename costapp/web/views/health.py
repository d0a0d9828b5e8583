"""Data health: is everything arriving, is it attributed and priced, and what to do where it is not."""

from datetime import timedelta
from typing import Any, NamedTuple

from django.http import HttpResponse

from costapp.services.channel_health import channel_report
from costapp.storage.notifications import recent
from costapp.storage.rates import catalogue_age
from costapp.storage.reports import health as reports
from costapp.storage.reports import state as states
from costapp.storage.reports.cells import bucket_starts
from costapp.storage.reports.sums import ratio
from costapp.web import charts
from costapp.web import format as fmt
from costapp.web.access import Visit, project_page
from costapp.web.page import default_preset, frame, project_state, show, view_of
from costapp.web.reasons import advice

SLOW_QUEUE_S = 60
LATE = "arrived_late"
LATE_WORTH_SAYING = 0.05
SENDINGS = 15  #: newest messages shown
OLD_CATALOGUE = timedelta(days=45)
OLD_SELF_CHECK = timedelta(days=2)


class Check(NamedTuple):
    """One line of the verdict: a state, what is the case, and what to do."""

    level: str  #: good | warn | bad
    title: str
    words: str
    todo: str


@project_page()
def health(visit: Visit) -> HttpResponse:
    found = project_state(visit)
    view = view_of(visit, default=default_preset(found))
    scope = view.scope(visit.project.pk, visit.project.time_zone)._replace(filters={})
    conn = visit.conn
    buckets = reports.ingest(conn, scope)
    total, queue, services = buckets[0], reports.queue(conn, visit.project.pk), reports.services(conn, scope)
    ledger = reports.self_check(conn, visit.project.pk)
    gaps = [gap for gap in states.unpriced_models(conn, scope) if not gap.is_own]
    reasons = reports.reasons(conn, scope)
    verdict = checks(
        visit, total, queue, services, reasons={row.reason: row.times for row in reasons}, has_gaps=bool(gaps)
    )
    axis = charts.TimeAxis(bucket_starts(scope), view.period.end, scope.grain, visit.zone, visit.now)
    context = frame(
        visit,
        view,
        nav="health",
        title="Data health",
        no_compare=True,
        state=found,
        total=total,
        queue=queue,
        services=services,
        reasons=[(row, advice(row.reason)) for row in reasons],
        gaps=gaps,
        silent=states.models_without_usage(conn, scope),
        checks=[*verdict, *channel_checks(visit), catalogue_check(visit), ledger_check(visit, ledger)],
        sendings=recent(conn, visit.project.pk, limit=SENDINGS),
        ledger=ledger,
        odd=reports.odd_traces(conn, visit.project.pk),
        figure=_figure(buckets[1:], axis),
        ingest_rows=buckets[1:],
    )
    return show(visit, "health.html", context)


def channel_checks(visit: Visit) -> list[Check]:
    """Whether messages go out; nothing where there is nowhere to send them."""
    has_channels, troubles = channel_report(visit.conn, visit.project.pk, visit.now)
    if has_channels and not troubles:
        return [Check("good", "Messages go out", "Every channel works, and no message waits for a second attempt.", "")]
    return [Check(*trouble) for trouble in troubles]


def _figure(buckets: list[reports.Ingest], axis: charts.TimeAxis) -> dict[str, Any] | None:
    if not buckets:
        return None
    found = {row.bucket_at: row for row in buckets}
    rows = [found.get(start) for start in axis.starts]
    kinds = (
        ("Stored", "--series-0", "stored"),
        ("Repeated", "--series-other", "duplicates"),
        ("Refused", "--bad", "rejected"),
    )
    return charts.counts_over_time(
        [
            charts.Counted(name, colour, [getattr(row, field) if row else 0 for row in rows])
            for name, colour, field in kinds
        ],
        axis,
    )


def checks(
    visit: Visit,
    total: reports.Ingest,
    queue: reports.Queue,
    services: list[reports.ServiceHealth],
    *,
    reasons: dict[str, int],
    has_gaps: bool,
) -> list[Check]:
    requests = sum(row.requests for row in services)
    if not requests:  # nothing was priced or attributed: neither well nor badly
        return [_arrival(total, requests), _queue(visit, queue)]
    return [
        _arrival(total, requests),
        _late(total, reasons.get(LATE, 0)),
        _queue(visit, queue),
        _priced(requests, sum(row.unpriced for row in services), has_gaps=has_gaps),
        _attributed(requests, sum(row.unattributed for row in services)),
        _usage(requests, sum(row.usage_unknown for row in services)),
    ]


def _arrival(total: reports.Ingest, requests: int) -> Check:
    if not total.received and requests:
        return Check(
            "good",
            "These calls did not come through the collectors",
            f"{fmt.count(requests)} calls were written directly, as demo data is, or their log has expired.",
            "",
        )
    if not total.received:
        return Check(
            "warn",
            "Nothing arrived",
            "No telemetry in this range.",
            "Check the app's endpoint and key on Connect an app.",
        )
    if total.rejected:
        share = fmt.percent(ratio(total.rejected, total.received))
        return Check(
            "warn",
            "Some spans were refused",
            f"{fmt.count(total.rejected)} of {fmt.count(total.received)} ({share}).",
            "The reasons are below, each with its remedy.",
        )
    return Check(
        "good",
        "Everything sent was taken",
        f"{fmt.count(total.received)} spans and records, {fmt.count(total.duplicates)} of them repeats.",
        "",
    )


def _late(total: reports.Ingest, late: int) -> Check:
    if not late:
        return Check("good", "Nothing arrived late", "No span came more than an hour after it started.", "")
    share = fmt.percent(ratio(late, total.received))
    return Check(
        "good" if late < total.received * LATE_WORTH_SAYING else "warn",
        "Some spans arrived late",
        f"{fmt.count(late)} of {fmt.count(total.received)} ({share}) came more than an hour after they started.",
        "Their hours were summed again, so figures you noted earlier may have grown. Nothing is lost.",
    )


def _queue(visit: Visit, queue: reports.Queue) -> Check:
    oldest = min((at for at in (queue.oldest_trace_at, queue.oldest_cell_at) if at), default=None)
    age_s = (visit.now - oldest).total_seconds() if oldest else 0
    longest = fmt.duration(max(0, age_s) * 1e6)
    waiting = f"{fmt.count(queue.traces)} traces and {fmt.count(queue.cells)} cells wait, the oldest for {longest}."
    if age_s > SLOW_QUEUE_S:
        return Check(
            "bad",
            "Figures lag behind",
            waiting,
            "Check that the worker and beat run; add workers if they do and the queue grows.",
        )
    return Check(
        "good", "Figures are up to date", waiting if oldest else "Nothing waits to be attributed or summed.", ""
    )


def _priced(requests: int, unpriced: int, *, has_gaps: bool) -> Check:
    if unpriced:
        share = fmt.percent(ratio(unpriced, requests))
        if not has_gaps:
            return Check(
                "warn",
                "Some requests carry no price",
                f"{fmt.count(unpriced)} of {fmt.count(requests)} ({share}): failed, without token counts, or on GPUs of"
                " your own whose hours are still open.",
                "No rate of a provider is missing.",
            )
        return Check(
            "bad",
            "Some requests carry no price",
            f"{fmt.count(unpriced)} of {fmt.count(requests)} ({share}).",
            "Add a price for the models below; history is then re-priced.",
        )
    return Check("good", "Every request carries a price", f"{fmt.count(requests)} requests.", "")


def _attributed(requests: int, unattributed: int) -> Check:
    if unattributed:
        share = fmt.percent(ratio(unattributed, requests))
        return Check(
            "warn",
            "Some requests name no feature",
            f"{fmt.count(unattributed)} of {fmt.count(requests)} ({share}).",
            "Set the feature attribute on the trace's root span; the services below show where it is missing.",
        )
    return Check("good", "Every request names a feature", "", "")


def _usage(requests: int, unknown: int) -> Check:
    if unknown:
        share = fmt.percent(ratio(unknown, requests))
        return Check(
            "warn",
            "Some requests came without token counts",
            f"{fmt.count(unknown)} of {fmt.count(requests)} ({share}).",
            "Streams need their usage switched on: see the models below.",
        )
    return Check("good", "Every request states its usage", "", "")


def catalogue_check(visit: Visit) -> Check:
    found = catalogue_age(visit.conn)
    if found is None or found.imported_at is None:
        return Check("bad", "No price catalogue", "Nothing can be priced.", "Run manage.py import_prices.")
    age = fmt.ago(found.imported_at, visit.now)
    words = f"{found.name} {found.version}, {fmt.count(found.rate_sets)} rates, imported {age}."
    if visit.now - found.imported_at > OLD_CATALOGUE:
        return Check("warn", "The price catalogue is old", words, "Update Costapp, or run manage.py import_prices.")
    return Check("good", "The price catalogue is current", words, "")


def ledger_check(visit: Visit, found: list[reports.SelfCheck]) -> Check:
    if not found:
        todo = "It runs every night; manage.py verify_ledger runs it now."
        return Check("warn", "The ledger has not checked itself yet", "", todo)
    broken = [check for check in found if check.differences]
    when = fmt.ago(found[0].run_at, visit.now)
    if broken:
        words = f"{len(broken)} of {len(found)} invariants do not hold, {when}: {broken[0].invariant}"
        return Check("bad", "The self-check found differences", words, "Do not trust totals until it is understood.")
    if visit.now - found[0].run_at > OLD_SELF_CHECK:
        return Check("warn", "The last self-check is old", f"It ran {when}.", "Check that beat and a worker run.")
    return Check("good", "The ledger adds up", f"All {len(found)} invariants held {when}.", "")
