"""Isolation in the admin: staff see and change only what belongs to projects they own; superusers see all."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import ForeignKey, ManyToManyField, Q, QuerySet
from django.http import HttpRequest

from costapp.models import Membership, Project


def owned_projects(request: HttpRequest) -> QuerySet[Project]:
    projects = Project.objects.all()
    if request.user.is_superuser:
        return projects
    return projects.filter(memberships__user_id=request.user.pk, memberships__role=Membership.Role.OWNER)


class OneProjectForm(forms.ModelForm):
    """Refuses to connect a project's object with things of another project, such as channels."""

    def clean(self) -> dict[str, Any] | None:
        found = super().clean()
        project = self.cleaned_data.get("project") or getattr(self.instance, "project", None)
        for field in self._meta.model._meta.many_to_many:
            strange = [str(each) for each in self.cleaned_data.get(field.name) or () if each.project != project]
            if strange:
                self.add_error(field.name, f"Of another project: {', '.join(strange)}. Choose some of {project}.")
        return found


def owns_a_project(request: HttpRequest) -> bool:
    """Asked for every model on the index: once per request."""
    if not hasattr(request, "owns_a_project"):
        request.owns_a_project = bool(
            request.user.is_active and request.user.is_staff and owned_projects(request).exists()
        )
    found: bool = request.owns_a_project
    return found


def is_own_page(request: HttpRequest, name: str) -> bool:
    """Whether this is the admin of the model itself, not of something that would take it along."""
    match = request.resolver_match
    return bool(match and match.url_name and match.url_name.startswith(f"costapp_{name}_"))


class ProjectScoped(admin.ModelAdmin):
    """``project_path`` leads from the model to its project; "" = the model is the project.

    Owning a project is permission enough for what belongs to it: an owner who may enter the admin needs no further
    right. What nobody may do there, the class of the model denies.
    """

    project_path = "project"

    def has_module_permission(self, request: HttpRequest) -> bool:
        return super().has_module_permission(request) or owns_a_project(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_view_permission(request, obj) or owns_a_project(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return super().has_add_permission(request) or owns_a_project(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) or owns_a_project(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) or owns_a_project(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        found = super().get_queryset(request)
        if request.user.is_superuser:
            return found
        owned = owned_projects(request).values("pk")
        return found.filter(Q(**{f"{self.project_path}__in" if self.project_path else "pk__in": owned}))

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Who has one project is not asked which."""
        found: dict[str, Any] = super().get_changeform_initial_data(request)
        if self.project_path == "project" and "project" not in found:
            projects = list(owned_projects(request)[:2])
            found |= {"project": projects[0].pk} if len(projects) == 1 else {}
        return found

    def formfield_for_foreignkey(self, db_field: ForeignKey, request: HttpRequest, **kwargs: Any) -> Any:
        """Nobody can put something into a project that is not theirs."""
        if db_field.related_model is Project:
            kwargs["queryset"] = owned_projects(request)
        elif not request.user.is_superuser:
            related = self.admin_site._registry.get(db_field.related_model)
            if isinstance(related, ProjectScoped):
                kwargs["queryset"] = related.get_queryset(request)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_manytomany(self, db_field: ManyToManyField, request: HttpRequest, **kwargs: Any) -> Any:
        """Only what lies in projects that are theirs; ``OneProjectForm`` sees to it that it is the same one."""
        related = db_field.related_model
        if any(field.name == "project" for field in related._meta.fields):
            kwargs["queryset"] = related._default_manager.filter(project__in=owned_projects(request))
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def get_list_filter(self, request: HttpRequest) -> Any:
        """Filters by relation name every project there is: only for those who may see them all."""
        filters = super().get_list_filter(request)
        if request.user.is_superuser:
            return filters
        names = {field.name for field in self.model._meta.get_fields() if field.is_relation}
        return [item for item in filters if not (isinstance(item, str) and item in names)]
