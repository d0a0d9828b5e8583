"""Budgets in the admin: a form in dollars and percent, and lists with burn bars."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db import connection
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from costapp.admin_audit import Audited
from costapp.admin_budget_form import BudgetForm
from costapp.admin_scope import ProjectScoped
from costapp.models import Budget
from costapp.services import budget_words
from costapp.storage import budgets as store
from costapp.web import format as fmt
from costapp.web.budgets import bar


class BurnList(ChangeList):
    """The list with the riskiest reading of each budget, in one statement per project."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        found = list(self.result_list)
        bars = burn_bars({budget.project_id for budget in found})
        for budget in found:
            budget.burn_bar = bars.get(budget.pk)
        self.result_list = found


def burn_bars(project_ids: set[int]) -> dict[int, Any]:
    """The riskiest bar of each budget of these projects."""
    connection.ensure_connection()
    now, found = timezone.now(), {}
    for project_id in sorted(project_ids):
        rows = {row.id: row for row in store.budgets_of(connection.connection, project_id)}
        for burn in store.burns(connection.connection, project_id, now, per_budget=1, limit=1000):
            if row := rows.get(burn.reading.budget_id):
                found[row.id] = bar(row, burn, now)
    return found


@admin.register(Budget)
class BudgetAdmin(Audited, ProjectScoped):
    form = BudgetForm
    list_display = ("name", "covers", "amount", "burn", "project", "owner", "enabled")
    list_filter = ("enabled", "period", "dimension", "project")
    list_select_related = ("project",)
    list_per_page = 50
    search_fields = ("name", "owner", "note", "values", "filters")
    search_help_text = "Searches name, owner, note, and the names that a budget is for."
    filter_horizontal = ("channels",)
    readonly_fields = ("burn",)
    save_as = True
    fieldsets = (
        (None, {"fields": ("project", "name", "enabled", "burn")}),
        ("What it covers", {"fields": ("dimension", "values", "filters")}),
        ("How much, and when", {
            "fields": ("amount_nano", "period", "rolling_days", "carry_over", "starts_on", "ends_on"),
            "description": "Days, weeks and months begin at midnight in the project's time zone.",
        }),
        ("Who is told", {"fields": ("thresholds", "channels", "blocks", "owner", "note")}),
    )  # fmt: skip

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BurnList

    def get_fieldsets(self, request: HttpRequest, obj: Budget | None = None) -> Any:
        """A budget that is not made yet has burnt nothing."""
        sets = super().get_fieldsets(request, obj)
        if obj is not None:
            return sets
        name, options = sets[0]
        return ((name, {**options, "fields": tuple(f for f in options["fields"] if f != "burn")}), *sets[1:])

    def get_readonly_fields(self, request: HttpRequest, obj: Budget | None = None) -> Any:
        """What a budget burnt belongs to its project: it does not move."""
        return (*self.readonly_fields, "project") if obj else self.readonly_fields

    @admin.display(description="covers")
    def covers(self, budget: Budget) -> str:
        return budget_words.covers(budget.dimension, budget.values, budget.filters)

    @admin.display(description="amount", ordering="amount_nano")
    def amount(self, budget: Budget) -> str:
        days = f" {budget.rolling_days} days" if budget.rolling_days else ""
        return f"{fmt.usd(budget.amount_nano)} / {budget.period}{days}{', each' if budget.is_template else ''}"

    @admin.display(description="burn of this period")
    def burn(self, budget: Budget) -> SafeString | str:
        """Of a budget for each feature, user ...: the riskiest one."""
        if not budget.pk:
            return "–"
        found = getattr(budget, "burn_bar", None)
        if found is None and not hasattr(budget, "burn_bar"):
            found = burn_bars({budget.project_id}).get(budget.pk)
        if found is None:
            return "switched off" if not budget.enabled else "nothing spent yet, or not looked at yet"
        drawing = render_to_string("parts/burn.html", {"bar": found})
        figures = f"{found.name}: {fmt.usd(found.reading.spent_nano)} of {fmt.usd(found.reading.limit_nano)}"
        text = figures if found.budget.is_template else figures.partition(": ")[2]
        return format_html('<div class="burn-cell">{}<a href="{}">{}</a></div>', drawing, found.href, text)
