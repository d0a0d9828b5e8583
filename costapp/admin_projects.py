"""Projects, their members and their ingest keys in the admin. A key's plain text is shown once, when it is made."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from costapp.admin_audit import Audited
from costapp.admin_scope import ProjectScoped, is_own_page
from costapp.models import Guardrail, IngestKey, Membership, Project
from costapp.services.audit import Action


@admin.register(Project)
class ProjectAdmin(Audited, ProjectScoped):
    project_path = ""
    list_display = ("name", "slug", "time_zone", "store_content", "created_at")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}

    def get_prepopulated_fields(self, request: HttpRequest, obj: Project | None = None) -> Any:
        return {} if obj else self.prepopulated_fields

    def get_readonly_fields(self, request: HttpRequest, obj: Project | None = None) -> Any:
        return ("slug", "is_demo", "created_at") if obj else ("is_demo",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Project | None = None) -> bool:
        return bool(request.user.is_superuser)

    def save_model(self, request: HttpRequest, obj: Project, form: Any, change: bool) -> None:
        """Whoever makes a project owns it: otherwise nobody could see its pages. It has the first guardrail."""
        super().save_model(request, obj, form, change)
        if not change:
            Membership.objects.create(project=obj, user_id=request.user.pk, role=Membership.Role.OWNER)
            Guardrail.give_first(obj)


def is_last_owner(member: Membership | None) -> bool:
    """Without an owner nobody could configure the project, and no owner could be made but by a superuser."""
    if member is None or member.pk is None or member.role != Membership.Role.OWNER:
        return False
    owners = Membership.objects.filter(project_id=member.project_id, role=Membership.Role.OWNER)
    return not owners.exclude(pk=member.pk).exists()


class RoleForm(forms.ModelForm):
    """Another role for a member."""

    class Meta:
        model = Membership
        fields = ("role",)

    def clean_role(self) -> str:
        role = str(self.cleaned_data["role"])
        if role != Membership.Role.OWNER and is_last_owner(Membership.objects.get(pk=self.instance.pk)):
            raise ValidationError("This is the project's last owner. Make somebody else an owner first.")
        return role


class MembershipForm(forms.ModelForm):
    """The user is typed, not chosen: a list would show every account of the installation."""

    user_name = forms.CharField(max_length=150, help_text="The account's exact user name.")

    class Meta:
        model = Membership
        fields = ("project", "role")

    def clean_user_name(self) -> str:
        name = self.cleaned_data["user_name"]
        user = get_user_model().objects.filter(username=name).first()
        if user is None:
            raise ValidationError("There is no account with this user name.")
        self.instance.user = user
        return str(name)

    def clean(self) -> dict[str, Any] | None:
        found = super().clean()
        project, user = self.cleaned_data.get("project"), self.instance.user_id
        if project and user and Membership.objects.filter(project=project, user_id=user).exists():
            raise ValidationError("This account is a member of the project already.")
        return found


@admin.register(Membership)
class MembershipAdmin(Audited, ProjectScoped):
    list_display = ("user", "project", "role")
    list_filter = ("project", "role")
    list_select_related = ("user", "project")
    search_fields = ("user__username",)
    search_help_text = "Searches account names."

    def get_form(self, request: HttpRequest, obj: Membership | None = None, **kwargs: Any) -> Any:
        kwargs["form"] = RoleForm if obj else MembershipForm
        return super().get_form(request, obj, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Membership | None = None) -> Any:
        return ("project", "user", "role") if obj else ("project", "user_name", "role")

    def get_readonly_fields(self, request: HttpRequest, obj: Membership | None = None) -> Any:
        return ("project", "user") if obj else ()

    def save_model(self, request: HttpRequest, obj: Membership, form: Any, change: bool) -> None:
        """Owners configure their projects in the admin, so they may enter it."""
        super().save_model(request, obj, form, change)
        if obj.role == Membership.Role.OWNER and not obj.user.is_staff:
            obj.user.is_staff = True
            obj.user.save(update_fields=["is_staff"])
            self.message_user(request, f"{obj.user} may enter the admin from now on, as an owner.", messages.INFO)

    def has_delete_permission(self, request: HttpRequest, obj: Membership | None = None) -> bool:
        """The last owner stays as long as the project does."""
        allowed = super().has_delete_permission(request, obj)
        return allowed and not (is_own_page(request, "membership") and is_last_owner(obj))


@admin.register(IngestKey)
class IngestKeyAdmin(Audited, ProjectScoped):
    list_display = ("name", "ending", "project", "created_at", "last_used_at", "expires_at", "revoked_at")
    list_filter = ("project", ("revoked_at", admin.EmptyFieldListFilter))
    list_select_related = ("project",)
    search_fields = ("name", "last4")
    fields = ("project", "name", "expires_at")
    actions = ("revoke",)

    @admin.display(description="key")
    def ending(self, key: IngestKey) -> str:
        return f"…{key.last4}"

    @admin.action(description="Revoke: collectors refuse these keys within half a minute", permissions=["change"])
    def revoke(self, request: HttpRequest, chosen: QuerySet[IngestKey]) -> None:
        live = chosen.filter(revoked_at=None)
        count = self.audited_update(request, live, Action.REVOKED, revoked_at=timezone.now())
        self.message_user(request, f"{count} keys revoked.", messages.SUCCESS)

    def get_readonly_fields(self, request: HttpRequest, obj: IngestKey | None = None) -> Any:
        return ("project", "created_at", "last_used_at", "revoked_at") if obj else ()

    def get_fields(self, request: HttpRequest, obj: IngestKey | None = None) -> Any:
        return (*self.fields, "created_at", "last_used_at", "revoked_at") if obj else self.fields

    def save_model(self, request: HttpRequest, obj: IngestKey, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        issued, plain = IngestKey.issue(obj.project, obj.name)
        IngestKey.objects.filter(pk=issued.pk).update(expires_at=obj.expires_at)
        obj.__dict__.update(issued.__dict__, expires_at=obj.expires_at)
        request.new_ingest_key = plain

    def response_add(self, request: HttpRequest, obj: IngestKey, post_url_continue: str | None = None) -> HttpResponse:
        """The key in the answer itself: a redirect would need a place to keep it."""
        context = {
            **self.admin_site.each_context(request),
            "title": "New ingest key",
            "key": request.new_ingest_key,
            "issued": obj,
        }
        return TemplateResponse(request, "admin/new_ingest_key.html", context, headers={"Cache-Control": "no-store"})
