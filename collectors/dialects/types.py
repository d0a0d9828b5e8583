"""The small values that pass between the wire decoder and the dialects."""

from collections.abc import Sequence
from typing import NamedTuple

#: A decoded OTLP AnyValue.
Scalar = str | int | float | bool | bytes | list["Scalar"] | dict[str, "Scalar"] | None


class Fact(NamedTuple):
    """One statement of one attribute: a value for a slot. The lowest rank per slot wins, then wire order."""

    slot: str
    rank: int
    value: object


#: Everything one attribute states. Immutable and a pure function of (key, value): callers may cache it.
Hit = tuple[Fact, ...]


class Scope(NamedTuple):
    """The instrumentation scope of a span."""

    name: str
    version: str = ""


class Event(NamedTuple):
    """A span event, with the hits of its attributes."""

    name: str
    time_ns: int
    hits: Sequence[Hit] = ()


class Resource(NamedTuple):
    """What the resource says about everything below it. `None` = not stated."""

    service: str | None = None
    environment: str | None = None
    feature: str | None = None
    user: str | None = None
    session: str | None = None
    team: str | None = None
    variant: str | None = None
    region: str | None = None
    instance: str | None = None  # which process speaks: pod, host or instance id
    truncated: bool = False


class MetricPoint(NamedTuple):
    """One data point of a token counter: a row of the table metric_point, less its project and day."""

    stream: int  # 64-bit hash of resource, scope, metric and attributes
    start_ns: int
    time_ns: int
    tokens: int
    is_delta: bool
    service: str
    metric: str
    token_type: str
    model: str
