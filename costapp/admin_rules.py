"""Alert rules in the admin. The page of a project has the better form, with a preview."""

from typing import Any

from django.contrib import admin
from django.db.models import ManyToManyField
from django.http import HttpRequest

from costapp.admin_audit import Audited
from costapp.admin_budget_form import FiltersField
from costapp.admin_scope import ProjectScoped, owned_projects
from costapp.core.alert_sentences import rule_sentence
from costapp.models import AlertRule, Channel
from costapp.rule_form import RuleChecks
from costapp.services.rule_telling import LABELS
from costapp.storage.reports.dimensions import DIMENSIONS


class AdminRuleForm(RuleChecks):
    """With filters as lines of text, and channels of the rule's own project only."""

    filters = FiltersField(
        label="Only where", required=False, known={key: each.label.lower() for key, each in DIMENSIONS.items()},
        help_text="One per line, for example environment = production. Several lines about one dimension mean any of "
        "them. None: all calls.",
    )  # fmt: skip

    class Meta(RuleChecks.Meta):
        fields = ("project", "filters", *RuleChecks.Meta.fields)

    def clean(self) -> dict[str, Any]:
        found = super().clean()
        project = found.get("project") or self.instance.project
        strangers = [channel for channel in found.get("channels") or () if channel.project_id != project.pk]
        if strangers:
            self.add_error("channels", f"{strangers[0]} is a channel of another project.")
        return found


@admin.register(AlertRule)
class AlertRuleAdmin(Audited, ProjectScoped):
    form = AdminRuleForm
    list_display = ("name", "what", "project", "enabled", "changed_at")
    list_filter = ("enabled", "metric", "project")
    list_select_related = ("project",)
    search_fields = ("name", "note")
    search_help_text = "Searches names and notes."
    filter_horizontal = ("channels",)
    fieldsets = (
        (None, {"fields": ("project", "name", "enabled"),
                "description": "The page Alerts of a project has this form too, with a preview on past data."}),
        ("What it watches", {"fields": ("metric", "by", "filters", "window", "minimum_requests")}),
        ("When it tells", {"fields": ("condition", "warning", "critical", "lasting_minutes", "no_data")}),
        ("When it is over", {"fields": ("clear", "calm_readings")}),
        ("Who is told", {"fields": ("channels", "remind_minutes", "note")}),
    )  # fmt: skip

    @admin.display(description="what it does")
    def what(self, rule: AlertRule) -> str:
        return rule_sentence(rule.wording(LABELS))

    def get_readonly_fields(self, request: HttpRequest, obj: AlertRule | None = None) -> Any:
        return ("project",) if obj else ()

    def formfield_for_manytomany(self, db_field: ManyToManyField, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "channels":
            kwargs["queryset"] = Channel.objects.filter(project__in=owned_projects(request))
        return super().formfield_for_manytomany(db_field, request, **kwargs)
