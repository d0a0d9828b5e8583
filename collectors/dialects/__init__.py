"""Dialects: what real clients call things on the wire, mapped to Costapp's names. No Django, no I/O.

One module per family holds a table of attribute names (data) and small functions for the odd values.
"""

from collectors.dialects.recogniser import Recogniser, may_vary
from collectors.dialects.types import Event, Fact, Hit, MetricPoint, Resource, Scalar, Scope

__all__ = ["Event", "Fact", "Hit", "MetricPoint", "Recogniser", "Resource", "Scalar", "Scope",
           "may_vary"]  # fmt: skip
