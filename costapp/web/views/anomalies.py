"""The Anomalies feed: what was odd, why, and what people said about it."""

from datetime import timedelta

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from costapp.services.judge_anomaly import LONGEST_REASON, VERDICTS, judge_anomaly
from costapp.storage import anomalies as store
from costapp.web.access import Role, Visit, project_page
from costapp.web.anomaly_words import card
from costapp.web.page import frame, show, view_of

CARDS = 20
#: Precision counts what was found in this time.
PRECISION_DAYS = 90
FILTERS = {"": "All", "open": "Not judged", "confirmed": "Confirmed", "dismissed": "Dismissed"}


@project_page()
def anomalies(visit: Visit) -> HttpResponse:
    """The newest of the range, or the one that ``id`` names."""
    view, project_id = view_of(visit), visit.project.pk
    wanted = visit.request.GET.get("id", "")
    state = visit.request.GET.get("judged", "")
    state = state if state in FILTERS else ""
    if wanted:
        one = store.of_id(visit.conn, project_id, int(wanted)) if wanted.isdecimal() and len(wanted) < 18 else None
        if one is None:
            raise Http404
        found, count = [one], 1
    else:
        period = view.period
        found, count = store.feed(visit.conn, project_id, period.start, period.end, limit=CARDS, state=state)
    judged = store.precision(visit.conn, project_id, visit.now - timedelta(days=PRECISION_DAYS))
    pulse = store.pulse(visit.conn, project_id)
    context = frame(
        visit,
        view,
        nav="anomalies",
        title="Anomalies",
        cards=[card(visit, each) for each in found],
        count=count,
        only=wanted,
        judged=judged,
        precision=judged.confirmed / (judged.confirmed + judged.dismissed)
        if judged.confirmed + judged.dismissed
        else None,
        precision_days=PRECISION_DAYS,
        pulse=pulse,
        state_filter=state,
        state_filters=FILTERS.items(),
        fixed_pairs_for_form=(("judged", state),) if state else (),
        longest_reason=LONGEST_REASON,
        no_compare=True,
    )
    return show(visit, "anomalies.html", context)


@require_POST
@project_page(Role.EDITOR)
def judge(visit: Visit, anomaly_id: int) -> HttpResponse:
    """Confirm, dismiss with a reason, or take either back."""
    verdict = visit.request.POST.get("verdict", "")
    if verdict and verdict not in VERDICTS:
        raise Http404
    reason = visit.request.POST.get("reason", "").replace("\x00", "")
    by = visit.request.user.get_username()
    before = judge_anomaly(
        visit.conn, visit.project.pk, anomaly_id, verdict=verdict, reason=reason, by=by, now=visit.now
    )
    if before is None:
        raise Http404
    visit.audit(
        verdict or "reopened",
        None,
        before={"verdict": before.verdict, "reason": before.verdict_reason},
        after={"anomaly": before.title, "verdict": verdict, "reason": reason},
    )
    messages.success(visit.request, DONE[verdict])
    return redirect(f"{reverse('anomalies', kwargs={'slug': visit.project.slug})}?id={anomaly_id}")


DONE = {
    "confirmed": "Confirmed. It counts as a true find.",
    "dismissed": "Dismissed. Anomalies like it will be listed, but nobody will be told.",
    "": "Taken back. It counts as not judged.",
}
