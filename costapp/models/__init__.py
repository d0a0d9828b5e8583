"""The control plane: what people configure. The data plane is SQL in ``costapp.storage``."""

from costapp.models.pricing import PriceList, RateSet
from costapp.models.project import IngestKey, Membership, Project

__all__ = ["IngestKey", "Membership", "PriceList", "Project", "RateSet"]
