"""The Django admin: one module per area, imported here so that it is found."""

from costapp import admin_accounts, admin_audit, admin_gpu, admin_pricing, admin_projects

__all__ = ["admin_accounts", "admin_audit", "admin_gpu", "admin_pricing", "admin_projects"]
