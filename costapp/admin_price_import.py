"""A price list from a CSV file in the admin: first the difference is shown, then it is applied, exactly as shown."""

import hashlib
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import AdminSite
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.html import format_html

from costapp.admin_reprice import link
from costapp.admin_scope import owned_projects
from costapp.models import PriceList, Project
from costapp.services.audit import Action, record
from costapp.services.import_prices import MAX_CHANGES, ImportResult, import_csv
from costapp.services.price_csv import COLUMNS, PriceListError

MOST_BYTES = 2_000_000
SIGNS = {"+": "added", "~": "changed", "-": "removed"}


class PriceFileForm(forms.Form):
    """What is imported into which list of which project."""

    project = forms.ModelChoiceField(queryset=Project.objects.none(), help_text="Its calls are priced with this list.")
    name = forms.CharField(
        max_length=100, initial="own prices", label="Price list",
        help_text="Its name. A list of that name is brought to what the file says; otherwise it is made.",
    )  # fmt: skip
    file = forms.FileField(
        required=False, label="CSV file",
        help_text="The whole list: rates that are not in the file any more count no longer. At most 2 MB.",
    )  # fmt: skip
    text = forms.CharField(required=False, strip=False, widget=forms.HiddenInput)
    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        super().__init__(*args)
        self.fields["project"].queryset = owned_projects(request)  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any] | None:
        found = super().clean()
        file = self.cleaned_data.get("file")
        if file is None:
            if not self.cleaned_data.get("text"):
                raise ValidationError("Choose a CSV file.")
            self.cleaned_data["text"] = self._with_plain_ends(self.cleaned_data["text"])
            return found
        if file.size > MOST_BYTES:
            raise ValidationError("The file is larger than 2 MB. Split it into several lists.")
        try:
            self.cleaned_data["text"] = self._with_plain_ends(file.read().decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise ValidationError("The file is not UTF-8 text. Save it as “CSV UTF-8”.") from None
        self.cleaned_data["seen"] = ""
        return found

    @staticmethod
    def _with_plain_ends(text: str) -> str:
        """Browsers end the lines of what they send back in their own way: it must still be what was seen."""
        return text.replace("\r\n", "\n").replace("\r", "\n")


def digest(project: Project, name: str, text: str, result: ImportResult) -> str:
    """What was shown: another state of the list makes another difference, which must be shown again."""
    shown = "\n".join([str(project.pk), name, text, result.sentence(), *result.changes])
    return hashlib.sha256(shown.encode()).hexdigest()


def import_view(request: HttpRequest, site: AdminSite) -> HttpResponse:
    """Nothing posted: the form. A file posted: its difference. The same with ``seen``: applied."""
    form = PriceFileForm(request, request.POST, request.FILES) if request.method == "POST" else PriceFileForm(request)
    context: dict[str, Any] = {**site.each_context(request), "title": "Import prices from a file", "form": form}
    context |= {"opts": PriceList._meta, "columns": COLUMNS}
    if request.method != "POST" or not form.is_valid():
        return TemplateResponse(request, "admin/price_import.html", context)
    data = form.cleaned_data
    project, name, text = data["project"], data["name"], data["text"]
    try:
        result, applied = _run(request, project, name, text, seen=data["seen"])
    except PriceListError as error:
        return TemplateResponse(request, "admin/price_import.html", context | {"problems": error.problems})
    if applied:
        advice = format_html(
            "Calls from now on have these prices. {} shows what they change in history.", link(project)
        )
        messages.success(request, format_html("{} {}", result.sentence(), advice))
        return redirect("admin:costapp_pricelist_changelist")
    context |= {
        "result": result, "changes": [(SIGNS[line[0]], line[2:]) for line in result.changes],
        "more": max(0, result.opened + result.closed + result.superseded + result.restored - MAX_CHANGES),
        "again": bool(data["seen"]), "project": project, "name": name, "text": text,
        "seen": digest(project, name, text, result),
    }  # fmt: skip
    return TemplateResponse(request, "admin/price_import.html", context)


def _run(request: HttpRequest, project: Project, name: str, text: str, *, seen: str) -> tuple[ImportResult, bool]:
    """Apply if the difference is the one that was seen, else only find it. Raises PriceListError."""
    source = f"file, by {request.user}"[:200]
    with transaction.atomic():
        result = import_csv(project, text, name=name, source=source)
        if result.changed and seen == digest(project, name, text, result):
            price_list = PriceList.objects.get(project=project, name=name)
            after = {"result": result.sentence(), "changes": "; ".join(result.changes)}
            address = request.META.get("REMOTE_ADDR", "")
            record(project, request.user, Action.IMPORTED, price_list, {}, after, address=address)
            return result, True
        transaction.set_rollback(True)
        return result, False
