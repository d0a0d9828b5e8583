"""The control plane: what people configure. The data plane is SQL in ``costapp.storage``."""

from costapp.models.audit import AuditEntry
from costapp.models.budget import Budget
from costapp.models.channel import Channel, Notification, Silence
from costapp.models.gpu import EngineMapping, GpuPool, GpuRate
from costapp.models.guardrail import Guardrail
from costapp.models.ledger import LedgerCheck
from costapp.models.pricing import PriceList, RateSet, RepriceRun
from costapp.models.project import IngestKey, Membership, Project
from costapp.models.rule import AlertRule
from costapp.models.scrape import ScrapeTarget

__all__ = [
    "AlertRule",
    "AuditEntry",
    "Budget",
    "Channel",
    "EngineMapping",
    "GpuPool",
    "GpuRate",
    "Guardrail",
    "IngestKey",
    "LedgerCheck",
    "Membership",
    "Notification",
    "PriceList",
    "Project",
    "RateSet",
    "RepriceRun",
    "ScrapeTarget",
    "Silence",
]
