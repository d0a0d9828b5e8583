"""GPU pools, rates and mappings in the admin. Hours that they touch are worked out again by themselves."""

from django import forms
from django.contrib import admin

from costapp.admin_audit import Audited
from costapp.admin_scope import ProjectScoped
from costapp.core.money import format_nano
from costapp.models import EngineMapping, GpuPool, GpuRate


class PoolForm(forms.ModelForm):
    class Meta:
        labels = {"grams_per_kwh": "Grams of CO₂e per kWh", "pue": "PUE", "busy_percent": "Busy from, percent"}


class RateForm(forms.ModelForm):
    class Meta:
        labels = {
            "gpus": "GPUs", "usd_per_hour": "US dollars per hour", "upfront_usd": "Paid upfront, US dollars",
            "residual_usd": "Worth at the end, US dollars", "term_years": "Term, years",
            "watts": "Power, watts", "usd_per_kwh": "US dollars per kWh",
        }  # fmt: skip


@admin.register(GpuPool)
class GpuPoolAdmin(Audited, ProjectScoped):
    form = PoolForm
    list_display = ("name", "project", "node_pattern", "model_pattern", "method", "priority")
    list_filter = ("project",)
    search_fields = ("name", "node_pattern", "model_pattern")


@admin.register(GpuRate)
class GpuRateAdmin(Audited, ProjectScoped):
    form = RateForm
    project_path = "pool__project"
    search_fields = ("pool__name", "source")
    list_display = ("pool", "kind", "per_gpu_hour", "valid_from", "valid_to", "source")
    list_filter = ("pool", "kind")
    list_select_related = ("pool",)

    @admin.display(description="per GPU-hour", ordering="nano_per_hour")
    def per_gpu_hour(self, rate: GpuRate) -> str:
        return format_nano(rate.nano_per_hour)


@admin.register(EngineMapping)
class EngineMappingAdmin(Audited, ProjectScoped):
    list_display = ("__str__", "project", "role", "priority", "enabled")
    list_filter = ("project", "enabled")
    search_fields = ("host", "model", "service", "served_model", "node", "pod")
