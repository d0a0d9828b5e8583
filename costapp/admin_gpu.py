"""GPU pools, rates and mappings in the admin. Hours that they touch are worked out again by themselves."""

from django.contrib import admin

from costapp.admin_audit import Audited
from costapp.admin_scope import ProjectScoped
from costapp.core.money import format_nano
from costapp.models import EngineMapping, GpuPool, GpuRate


@admin.register(GpuPool)
class GpuPoolAdmin(Audited, ProjectScoped):
    list_display = ("name", "project", "node_pattern", "model_pattern", "method", "priority")
    list_filter = ("project",)
    search_fields = ("name", "node_pattern", "model_pattern")


@admin.register(GpuRate)
class GpuRateAdmin(Audited, ProjectScoped):
    project_path = "pool__project"
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
