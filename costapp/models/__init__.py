"""The control plane: what people configure. The data plane is SQL in ``costapp.storage``."""

from costapp.models.audit import AuditEntry
from costapp.models.channel import Channel, Silence
from costapp.models.gpu import EngineMapping, GpuPool, GpuRate
from costapp.models.ledger import LedgerCheck
from costapp.models.pricing import PriceList, RateSet, RepriceRun
from costapp.models.project import IngestKey, Membership, Project

__all__ = [
    "AuditEntry",
    "Channel",
    "EngineMapping",
    "GpuPool",
    "GpuRate",
    "IngestKey",
    "LedgerCheck",
    "Membership",
    "PriceList",
    "Project",
    "RateSet",
    "RepriceRun",
    "Silence",
]
