"""Price lists in the admin. Rates are added, ended or superseded there, never edited: charges point to them."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.utils import timezone
from django.utils.html import format_html

from costapp.admin_audit import Audited
from costapp.admin_price_import import import_view
from costapp.admin_reprice import link, reprice_view
from costapp.admin_scope import ProjectScoped, is_own_page, owned_projects
from costapp.core.money import format_nano, format_usd
from costapp.models import PriceList, RateSet, RepriceRun
from costapp.services.audit import Action

#: What may still change about a rate that is in the table.
_MUTABLE = ("valid_to",)


@admin.register(PriceList)
class PriceListAdmin(Audited, ProjectScoped):
    list_display = ("name", "project", "kind", "priority", "version", "imported_at", "rates_in_force")
    list_filter = ("kind", "project")
    search_fields = ("name", "source")
    readonly_fields = ("version", "imported_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[PriceList]:
        in_force = Count("rate_sets", filter=Q(rate_sets__superseded_at=None))
        return super().get_queryset(request).defer("names").annotate(in_force=in_force)

    @admin.display(description="rates in force", ordering="in_force")
    def rates_in_force(self, price_list: PriceList) -> int:
        return int(getattr(price_list, "in_force", 0))

    def get_urls(self) -> list[Any]:
        page = self.admin_site.admin_view(self.import_file)
        return [path("import/", page, name="costapp_pricelist_import"), *super().get_urls()]

    def import_file(self, request: HttpRequest) -> HttpResponse:
        """From a CSV file, the difference first."""
        if not (self.has_add_permission(request) and self.has_change_permission(request)):
            raise PermissionDenied
        return import_view(request, self.admin_site)

    def has_delete_permission(self, request: HttpRequest, obj: PriceList | None = None) -> bool:
        catalogue = obj is not None and obj.kind == PriceList.Kind.CATALOGUE
        return super().has_delete_permission(request, obj) and not catalogue


@admin.register(RateSet)
class RateSetAdmin(Audited, ProjectScoped):
    project_path = "price_list__project"
    list_display = (
        "provider", "model", "service_tier", "batch", "prices", "valid_from", "valid_to", "price_list", "superseded_at",
    )  # fmt: skip
    list_filter = ("price_list", "batch", "service_tier", ("superseded_at", admin.EmptyFieldListFilter), "provider")
    search_fields = ("provider", "model")
    list_select_related = ("price_list",)
    list_per_page = 50
    actions = ("supersede",)
    exclude = ("stated",)
    readonly_fields = ("imported_at", "superseded_at", "superseded_reason")

    @admin.display(description="per million")
    def prices(self, rate_set: RateSet) -> str:
        if rate_set.discount_percent is not None:
            return f"{rate_set.discount_percent.normalize():f} % off {rate_set.priced_as}".strip()
        return ", ".join(f"{meter} {format_nano(rate['nano'])}" for meter, rate in rate_set.rates.items())

    @admin.action(description="Supersede: these rates were wrong and count no longer", permissions=["change"])
    def supersede(self, request: HttpRequest, chosen: QuerySet[RateSet]) -> None:
        reason = f"superseded by {request.user}"[:300]
        now = timezone.now()
        rates = chosen.filter(superseded_at=None)
        values = {"superseded_at": now, "superseded_reason": reason, "changed_at": now}
        count = self.audited_update(request, rates, Action.SUPERSEDED, **values)
        advice = format_html("{} shows what that changes in history.", link())
        self.message_user(request, format_html("{} rates superseded. {}", count, advice), messages.SUCCESS)

    def get_readonly_fields(self, request: HttpRequest, obj: RateSet | None = None) -> Sequence[Any]:
        if obj is None:
            return self.readonly_fields
        return [field.name for field in RateSet._meta.fields if field.name not in (*_MUTABLE, "stated")]

    def has_delete_permission(self, request: HttpRequest, obj: RateSet | None = None) -> bool:
        """Only together with their project or list: charges point to rates."""
        return super().has_delete_permission(request, obj) and not is_own_page(request, "rateset")


@admin.register(RepriceRun)
class RepriceRunAdmin(Audited, ProjectScoped):
    """What was re-priced, by whom and how far; asked for on a page of its own. To delete one that runs stops it."""

    list_display = (
        "project", "first_day", "last_day", "status", "progress", "changed", "difference", "by", "started_at",
        "finished_at",
    )  # fmt: skip
    list_filter = ("state", "project")
    list_select_related = ("project",)
    search_fields = ("project__name", "project__slug", "requested_by", "state")
    search_help_text = "Searches project, who asked for it, and state."

    @admin.display(description="state", ordering="state")
    def status(self, run: RepriceRun) -> str:
        moved = "; prices changed meanwhile, run it again" if run.prices_moved else ""
        return f"{run.get_state_display()}{moved}"

    @admin.display(description="days done")
    def progress(self, run: RepriceRun) -> str:
        days, done = (run.last_day - run.first_day).days + 1, (run.next_day - run.first_day).days
        return f"{min(done, days):,} of {days:,}"

    @admin.display(description="difference")
    def difference(self, run: RepriceRun) -> str:
        nano = run.new_nano - run.old_nano
        return ("+" if nano > 0 else "") + format_usd(nano)

    @admin.display(description="asked for by", ordering="requested_by")
    def by(self, run: RepriceRun) -> str:
        return run.requested_by or "manage.py reprice"

    def get_urls(self) -> list[Any]:
        page = self.admin_site.admin_view(self.reprice)
        return [path("new/", page, name="costapp_repricerun_new"), *super().get_urls()]

    def reprice(self, request: HttpRequest) -> HttpResponse:
        """The difference first, then a run of the worker."""
        if not owned_projects(request).exists():
            raise PermissionDenied
        return reprice_view(request, self.admin_site)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: RepriceRun | None = None) -> bool:
        return False
