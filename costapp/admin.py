"""The Django admin: one module per area, imported here so that it is found."""

from costapp import (
    admin_accounts,
    admin_audit,
    admin_budgets,
    admin_channels,
    admin_gpu,
    admin_guardrails,
    admin_pricing,
    admin_projects,
    admin_rules,
    admin_scrape,
)

__all__ = [
    "admin_accounts",
    "admin_audit",
    "admin_budgets",
    "admin_channels",
    "admin_gpu",
    "admin_guardrails",
    "admin_pricing",
    "admin_projects",
    "admin_rules",
    "admin_scrape",
]
