"""The audit log in the admin, and ``Audited``: mixed into an admin class, it writes every change to the log."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html_join

from costapp.admin_scope import ProjectScoped
from costapp.models import AuditEntry, Project
from costapp.services import audit
from costapp.services.audit import Action, Secret


class Audited(admin.ModelAdmin):
    """Mix in before the admin class: ``class BudgetAdmin(Audited, ProjectScoped)``.

    Adding, changing and deleting is recorded by itself, inlines included. An action that updates a queryset
    calls ``audited_update``. Fields that hold secrets: see ``costapp.services.audit``.
    """

    def audit_related(self) -> list[str]:
        """Relations whose objects belong to this one: those edited inline."""
        found = []
        for relation in self.model._meta.related_objects:
            if any(inline.model is relation.related_model for inline in self.inlines):
                found.append(relation.get_accessor_name() or "")
        return [name for name in found if name]

    def audit_project(self, obj: Any) -> Project | None:
        """Along ``project_path``; None for what belongs to no project."""
        if isinstance(obj, Project):
            return obj
        for name in filter(None, getattr(self, "project_path", "").split("__")):
            obj = getattr(obj, name, None)
        return obj if isinstance(obj, Project) else None

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            old = self.model._base_manager.get(pk=obj.pk)
            _before(request)[obj._meta.label, obj.pk] = audit.snapshot(old, self.audit_related())
        super().save_model(request, obj, form, change)

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self.audit(request, Action.CREATED, obj, None, self._now(obj))
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        before = _before(request).pop((obj._meta.label, obj.pk), None)
        if before is None:  # a page of its own, such as that of a password: only the names are told
            names = list(_changed_fields(message))
            self.audit(request, Action.CHANGED, obj, dict.fromkeys(names, Secret(1)), dict.fromkeys(names, Secret(2)))
        else:
            self.audit(request, Action.CHANGED, obj, before, self._now(obj))
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for obj in queryset:
            self.audit(request, Action.DELETED, obj, self._now(obj), None)
        return super().log_deletions(request, queryset)

    def response_action(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        """An action and its entries are one transaction."""
        with transaction.atomic():
            return super().response_action(request, queryset)

    def audited_update(self, request: HttpRequest, chosen: models.QuerySet[Any], action: str, **values: Any) -> int:
        """``queryset.update`` with an entry per object."""
        found = list(chosen.select_for_update(of=("self",)))
        before = {obj.pk: self._now(obj) for obj in found}
        rows = self.model._base_manager.filter(pk__in=before)
        rows.update(**values)
        for obj in rows:
            self.audit(request, action, obj, before[obj.pk], self._now(obj))
        return len(before)

    def audit(self, request: HttpRequest, action: str, obj: Any, before: Any, after: Any) -> None:
        address = request.META.get("REMOTE_ADDR", "")
        audit.record(self.audit_project(obj), request.user, action, obj, before, after, address=address)

    def _now(self, obj: Any) -> dict[str, str]:
        return audit.snapshot(obj, self.audit_related())


def _before(request: HttpRequest) -> dict[Any, dict[str, str]]:
    if not hasattr(request, "audit_before"):
        request.audit_before = {}
    found: dict[Any, dict[str, str]] = request.audit_before
    return found


def _changed_fields(message: Any) -> Iterator[str]:
    for part in message if isinstance(message, list) else []:
        yield from part.get("changed", {}).get("fields", [])


@admin.register(AuditEntry)
class AuditEntryAdmin(ProjectScoped):
    """Read only, for everybody."""

    list_display = ("at", "actor", "action", "object_type", "object_name", "what", "project", "address")
    list_display_links = ("at",)
    list_filter = ("action", "object_type", "project", "at")
    list_select_related = ("project",)
    list_per_page = 50
    search_fields = ("actor", "object_name", "address", "changes")
    search_help_text = "Searches who, object, address, and values before and after."
    fields = ("at", "actor", "action", "object_type", "object_name", "what", "project", "project_name", "address")

    @admin.display(description="before → after")
    def what(self, entry: AuditEntry) -> str:
        rows = [(name, old or "–", new or "–") for name, (old, new) in entry.changes.items()]
        return format_html_join("", "<div>{}: {} → {}</div>", rows) or "–"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: AuditEntry | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: AuditEntry | None = None) -> bool:
        return False
