"""Guardrails in the admin. The list says each one as a sentence and how many are being warned or blocked now."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from costapp.admin_audit import Audited
from costapp.admin_scope import OneProjectForm, ProjectScoped
from costapp.models import Guardrail


@admin.register(Guardrail)
class GuardrailAdmin(Audited, ProjectScoped):
    form = OneProjectForm
    list_display = ("name", "enabled", "sentence", "level", "project")
    list_filter = ("enabled", "per", "metric", "action", "project")
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

    @admin.display(description="what it does")
    def sentence(self, guardrail: Guardrail) -> str:
        return guardrail.sentence()

    @admin.action(description="Switch on", permissions=["change"])
    def switch_on(self, request: HttpRequest, chosen: QuerySet[Guardrail]) -> None:
        count = self.audited_update(request, chosen, "switched on", enabled=True)
        self.message_user(request, f"{count} guardrails are on.")

    @admin.action(description="Switch off: blocks end within two seconds", permissions=["change"])
    def switch_off(self, request: HttpRequest, chosen: QuerySet[Guardrail]) -> None:
        count = self.audited_update(request, chosen, "switched off", enabled=False)
        self.message_user(request, f"{count} guardrails are off.")
