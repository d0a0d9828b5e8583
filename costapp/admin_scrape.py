"""Scrape targets in the admin: superusers list them, owners see how those of their projects are doing."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

from costapp.admin_audit import Audited
from costapp.admin_scope import ProjectScoped
from costapp.core.targets import Refused
from costapp.models import ScrapeTarget
from costapp.services import sealed
from costapp.services.scrape_targets import check

STATUS = ("last_at", "state", "samples", "detail")


class ScrapeTargetForm(forms.ModelForm):
    """The password or token goes in and never comes out again."""

    password = forms.CharField(
        label="Password or token", required=False, max_length=2000,
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "new-password", "class": "vTextField"}),
        help_text="Stored encrypted. Leave empty to keep what is stored.",
    )  # fmt: skip

    class Meta:
        model = ScrapeTarget
        fields = ("project", "name", "enabled", "discovery", "address", "interval_s", "timeout_s", "auth", "username",
                  "labels")  # fmt: skip
        widgets = {
            "address": forms.TextInput(attrs={"class": "vLargeTextField"}),
            "labels": forms.Textarea(attrs={"rows": 2, "class": "vLargeTextField"}),
        }

    def clean(self) -> dict[str, Any] | None:
        found = super().clean()
        if self.errors:
            return found
        try:
            check(self.cleaned_data["discovery"], self.cleaned_data["address"])
        except Refused as problem:
            self.add_error("address", str(problem))
        self._seal()
        return found

    def _seal(self) -> None:
        target, given = self.instance, self.cleaned_data["password"]
        if self.cleaned_data["auth"] == ScrapeTarget.Auth.NONE:
            target.key_id, target.secret = "", b""
        elif given:
            try:
                target.key_id, target.secret = sealed.seal({"secret": given}, str(target.seal_id))
            except sealed.CannotSeal as problem:
                raise ValidationError(str(problem)) from None
        elif not target.secret:
            self.add_error("password", "Enter the password or token.")


@admin.register(ScrapeTarget)
class ScrapeTargetAdmin(Audited, ProjectScoped):
    form = ScrapeTargetForm
    list_display = ("name", "enabled", "state", "detail", "last_at", "samples", "address", "project")
    list_filter = ("enabled", "discovery", "project")
    list_select_related = ("project",)
    search_fields = ("name", "address")
    actions = ("switch_on", "switch_off")
    fieldsets = (
        (None, {"fields": ("project", "name", "enabled")}),
        ("What", {"fields": ("discovery", "address", "interval_s", "timeout_s", "labels")}),
        ("Authentication", {"fields": ("auth", "username", "password")}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: ScrapeTarget | None = None) -> Any:
        if not self.has_change_permission(request, obj):  # to look at only
            shown = ("discovery", "address", "interval_s", "timeout_s", "labels", "auth", "username")
            found = ((None, {"fields": ("project", "name", "enabled")}), ("What", {"fields": shown}))
        else:
            found = self.fieldsets
        return (*found, ("How it is doing", {"fields": STATUS})) if obj else found

    def get_readonly_fields(self, request: HttpRequest, obj: ScrapeTarget | None = None) -> Any:
        return ("project", *STATUS) if obj else ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_change_permission(self, request: HttpRequest, obj: ScrapeTarget | None = None) -> bool:
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: ScrapeTarget | None = None) -> bool:
        return bool(request.user.is_superuser)

    @admin.display(description="endpoints")
    def state(self, target: ScrapeTarget) -> str:
        if not target.enabled:
            return "off"
        if target.last_at is None:
            return "not scraped yet"
        return f"{target.up} up, {target.down} down"

    @admin.action(description="Switch on", permissions=["change"])
    def switch_on(self, request: HttpRequest, chosen: QuerySet[ScrapeTarget]) -> None:
        count = self.audited_update(request, chosen, "switched on", enabled=True)
        self.message_user(request, f"{count} targets are on.")

    @admin.action(description="Switch off", permissions=["change"])
    def switch_off(self, request: HttpRequest, chosen: QuerySet[ScrapeTarget]) -> None:
        count = self.audited_update(request, chosen, "switched off", enabled=False)
        self.message_user(request, f"{count} targets are off.")
