"""Guardrails in the admin. The list says each one as a sentence and how many are being warned or blocked now."""

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest

from costapp.admin_audit import Audited
from costapp.admin_scope import OneProjectForm, ProjectScoped
from costapp.models import Guardrail
from costapp.storage import guardrails as store


class ActingList(ChangeList):
    """The list with how many each guardrail warns or blocks now, in one statement."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        found = list(self.result_list)
        connection.ensure_connection()
        acting = store.acting(connection.connection, sorted({guardrail.project_id for guardrail in found}))
        for guardrail in found:
            guardrail.acting = acting.get(guardrail.pk, 0)
        self.result_list = found


class Titled(admin.ChoicesFieldListFilter):
    """Labels of the form are parts of a sentence ("of each"): a filter names the thing."""

    TITLES: ClassVar = {"per": "whose calls", "metric": "what is added up", "action": "what apps are told"}

    def __init__(self, field: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(field, *args, **kwargs)
        self.title = self.TITLES[field.name]


@admin.register(Guardrail)
class GuardrailAdmin(Audited, ProjectScoped):
    form = OneProjectForm
    list_display = ("name", "enabled", "sentence", "now", "level", "project")
    list_filter = ("enabled", ("per", Titled), ("metric", Titled), ("action", Titled), "project")
    list_select_related = ("project",)
    search_fields = ("name", "feature", "environment")
    search_help_text = "Searches names, features and environments."
    fieldsets = (
        (None, {"fields": ("project", "name", "enabled")}),
        ("When", {"fields": ("per", "metric", "limit_value", "minutes", "feature", "environment")}),
        ("Then", {"fields": ("action", "hold_minutes", "level", "channels")}),
    )
    filter_horizontal = ("channels",)
    actions = ("switch_on", "switch_off")

    def get_readonly_fields(self, request: HttpRequest, obj: Guardrail | None = None) -> Any:
        """Its incidents belong to its project: it does not move."""
        return ("project",) if obj else ()

    @admin.display(description="what it does")
    def sentence(self, guardrail: Guardrail) -> str:
        return guardrail.sentence()

    @admin.display(description="now")
    def now(self, guardrail: Guardrail) -> str:
        count = getattr(guardrail, "acting", 0)
        does = "blocked" if guardrail.action == Guardrail.Action.BLOCK else "warned"
        return f"{count} {guardrail.per}{'s' if count != 1 else ''} {does}" if count else "–"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ActingList

    @admin.action(description="Switch on", permissions=["change"])
    def switch_on(self, request: HttpRequest, chosen: QuerySet[Guardrail]) -> None:
        count = self.audited_update(request, chosen, "switched on", enabled=True)
        self.message_user(request, f"{count} guardrails are on.")

    @admin.action(description="Switch off: blocks end within two seconds", permissions=["change"])
    def switch_off(self, request: HttpRequest, chosen: QuerySet[Guardrail]) -> None:
        count = self.audited_update(request, chosen, "switched off", enabled=False)
        self.message_user(request, f"{count} guardrails are off.")
