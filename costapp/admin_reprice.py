"""Re-pricing history in the admin: the difference by day and feature first, then a run that the worker carries out."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.contrib.admin import AdminSite
from django.core.exceptions import ValidationError
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html

from costapp.admin_scope import owned_projects
from costapp.core.money import format_usd
from costapp.models import Project, RepriceRun
from costapp.services.reprice import Difference, Repriced, reprice
from costapp.services.reprice_queue import ask
from costapp.storage.rates import rates_version

USUAL_DAYS = 30
MAX_ROWS = 200


class RepriceForm(forms.Form):
    """Whose charges, and of which days."""

    project = forms.ModelChoiceField(queryset=Project.objects.none(), help_text="Its booked calls are priced again.")
    first = forms.DateField(label="From", help_text="First day (UTC).", widget=forms.DateInput({"type": "date"}))
    last = forms.DateField(label="To", help_text="Last day (UTC), included.", widget=forms.DateInput({"type": "date"}))

    def __init__(self, request: HttpRequest, data: Any = None) -> None:
        projects = owned_projects(request)
        today = datetime.now(UTC).date()
        chosen = request.GET.get("project") or (projects.values_list("pk", flat=True)[:2] if not data else None)
        initial = {"first": today - timedelta(days=USUAL_DAYS - 1), "last": today}
        if isinstance(chosen, str):
            initial["project"] = chosen
        elif chosen and len(chosen) == 1:
            initial["project"] = chosen[0]
        super().__init__(data, initial=initial)
        self.fields["project"].queryset = projects  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any] | None:
        found = super().clean()
        first, last = self.cleaned_data.get("first"), self.cleaned_data.get("last")
        if first and last and last < first:
            raise ValidationError(f"The last day, {last}, is before the first, {first}.")
        return found


def link(project: Project | None = None) -> str:
    """To the page, for messages that advise it."""
    query = f"?project={project.pk}" if project else ""
    return format_html('<a href="{}{}">Re-price history</a>', reverse("admin:costapp_repricerun_new"), query)


def reprice_view(request: HttpRequest, site: AdminSite) -> HttpResponse:
    """The form; with days in the address their difference; posted, with the prices still those shown: queued."""
    _refuse_foreign(request)
    given = request.POST if request.method == "POST" else request.GET if "first" in request.GET else None
    form = RepriceForm(request, given)
    context: dict[str, Any] = {**site.each_context(request), "title": "Re-price history", "form": form}
    context |= {"opts": RepriceRun._meta}
    if given is None or not form.is_valid():
        return TemplateResponse(request, "admin/reprice.html", context)
    connection.ensure_connection()
    conn = connection.connection
    data = form.cleaned_data
    project, first, last = data["project"], data["first"], data["last"]
    version = rates_version(conn)  # before the difference: then that is of these prices or newer ones
    if request.method == "POST" and request.POST.get("seen") == str(version):
        address = request.META.get("REMOTE_ADDR", "")
        run = ask(conn, project, first, last, version=version, actor=request.user, address=address)
        if run:
            messages.success(request, f"Re-pricing of {run} is queued. Its progress and result stand in this list.")
        else:
            messages.info(request, f"{project} has no charges from {first} to {last}.")
        return redirect("admin:costapp_repricerun_changelist")
    result = reprice(conn, project, first=first, last=last, dry_run=True, budget_s=settings.REPRICE_PREVIEW_S)
    context |= {
        "result": result, "rows": [_row(row) for row in result.differences[:MAX_ROWS]], "sentence": _sentence(result),
        "more": max(0, len(result.differences) - MAX_ROWS), "budget_s": settings.REPRICE_PREVIEW_S,
        "again": request.method == "POST", "project": project, "first": first, "last": last, "seen": version,
    }  # fmt: skip
    return TemplateResponse(request, "admin/reprice.html", context)


def _refuse_foreign(request: HttpRequest) -> None:
    """A project that is not theirs does not exist."""
    for chosen in filter(None, [request.GET.get("project"), request.POST.get("project")]):
        if not chosen.isdecimal() or not owned_projects(request).filter(pk=chosen[:18]).exists():
            raise Http404


def _row(row: Difference) -> dict[str, Any]:
    return {
        "day": str(row.day), "feature": row.feature or "(unattributed)", "requests": f"{row.requests:,}",
        "changed": f"{row.changed:,}", "old": format_usd(row.old_nano), "new": format_usd(row.new_nano),
        "difference": _signed(row.difference_nano), "priced": row.newly_priced, "unpriced": row.newly_unpriced,
    }  # fmt: skip


def _signed(nano: int) -> str:
    return ("+" if nano > 0 else "") + format_usd(nano)


def _sentence(result: Repriced) -> str:
    if result.first is None or result.last is None or result.last < result.first:
        return "There are no charges in this period."
    if result.cut_at == result.first:
        return ""
    last = result.last if result.cut_at is None else result.cut_at - timedelta(days=1)
    days = f"{result.first} to {last} (UTC)"
    if not result.changed:
        return f"All {result.requests:,} requests of {days} have today's prices already."
    return (
        f"{result.changed:,} of {result.requests:,} requests of {days} would change, {format_usd(result.old_nano)} → "
        f"{format_usd(result.new_nano)} ({_signed(result.difference_nano)}). Nothing is written yet."
    )
