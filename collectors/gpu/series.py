"""Who a series is about: its device and place, or its inference server. Looked up once per series, then remembered."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from collectors.dialects.scalars import clean
from collectors.gpu import tables
from collectors.gpu.tables import METRICS, TARGET_UP, Metric
from costapp.core.gpu_samples import EngineKind, Holder, Source

Labels = Mapping[str, str]
#: Ids that are unique in the world; others only within their host.
_GLOBAL_ID = re.compile(r"(GPU|MIG)-[0-9a-fA-F-]{8,}")
_TEXT_CHARS = 200
_ENGINE_KINDS = frozenset(EngineKind)
_ENGINE_FIELDS = frozenset(metric.field for metric in tables.ENGINES.values())


class Device(NamedTuple):
    """A device as one series names it."""

    device_id: str
    parent_id: str
    mig_profile: str
    node: str
    gpu_model: str
    served_model: str
    target: str
    source: str


class Engine(NamedTuple):
    kind: str
    target: str
    served_model: str
    replica: str
    node: str
    namespace: str
    pod: str


class Series(NamedTuple):
    """A series that is read. Exactly one of device and engine is set; neither = `up` of the target."""

    metric: Metric
    target: str
    device: Device | None = None
    engine: Engine | None = None
    holder: Holder | None = None  # of a device


#: `up`: 0 means that nothing is known about the target from then on.
_UP = Metric("", tables.UP)


@lru_cache(maxsize=8_192)
def plain_name(label: str) -> str:
    return label.lower().replace(".", "_")


def metric_of(name: str, *, is_histogram: bool = False) -> Metric | None:
    """The row of a metric. OTLP histograms are looked up by their sum, as Prometheus calls it."""
    return METRICS.get(f"{name}_sum" if is_histogram else name)


def is_wanted(name: str) -> bool:
    return name in METRICS or name == TARGET_UP


def resolve(name: str, labels: Labels, origin: Labels = {}) -> Series | str | None:  # noqa: B006
    """The series of these labels; None if it is not read; a reason if it names no device.

    `labels` are the series' own, `origin` is what is known about the sender (resource attributes, the scraped
    address); both with `plain_name`s. A holder is only believed from the series itself, except from OpenLIT's SDK,
    which runs inside the workload.
    """
    if name == TARGET_UP:
        return Series(_UP, _target(labels, origin))
    metric = METRICS.get(name)
    return resolve_metric(metric, labels, origin) if metric is not None else None


def resolve_metric(metric: Metric, labels: Labels, origin: Labels = {}) -> Series | str | None:  # noqa: B006
    """See `resolve`."""
    if any(labels.get(label, "") not in values for label, values in metric.only.items()):
        return None
    if metric.field in _ENGINE_FIELDS:
        return _engine_series(metric, labels, origin)
    return _device_series(metric, labels, origin)


def _engine_series(metric: Metric, labels: Labels, origin: Labels) -> Series:
    target = _target(labels, origin)
    engine = Engine(
        kind=metric.dialect, target=target, served_model=_first(tables.SERVED_MODELS, labels, origin),
        replica=_first(tables.REPLICAS, labels), node=_node(labels, origin),
        namespace=_first(tables.NAMESPACES, labels, origin), pod=_first(tables.PODS, labels, origin),
    )  # fmt: skip
    return Series(metric, target, engine=engine)


def _device_series(metric: Metric, labels: Labels, origin: Labels) -> Series | str:
    node, target = _node(labels, origin), _target(labels, origin)
    host = node or target
    stated = _first(tables.DEVICE_IDS, labels)
    number = _first(tables.DEVICE_NUMBERS, labels)
    if not stated and (not number or not host):
        return "gpu_no_device"
    device_id = stated if _GLOBAL_ID.match(stated) else f"{host}/{stated or number}"
    profile, parent = _first(tables.MIG_PROFILES, labels), _first(tables.PARENTS, labels)
    mig_id = _first(tables.MIG_IDS, labels)
    if mig_id and not device_id.startswith("MIG-") and "/" not in device_id:
        device_id, parent, profile = f"{device_id}/{mig_id}", device_id, profile or "?"
    is_openlit = metric.dialect == Source.OPENLIT
    device = Device(
        device_id=device_id, parent_id=parent if profile else "", mig_profile=profile, node=node,
        gpu_model=_first(tables.GPU_MODELS, labels, origin),
        served_model=_first(("service_name",), labels, origin) if is_openlit else "", target=target,
        source=metric.dialect,
    )  # fmt: skip
    return Series(metric, target, device=device, holder=_holder(labels, origin if is_openlit else {}))


def _holder(labels: Labels, origin: Labels) -> Holder | None:
    pod = _first(tables.PODS, labels, origin)
    if not pod or pod.startswith(tables.EXPORTER_PODS):
        return None
    # Of the labels that go together: never the workload's pod with the exporter's namespace.
    is_exported = "exported_pod" in labels
    stated = {name: value for name, value in labels.items() if name.startswith("exported_")} if is_exported else labels
    return Holder(_first(tables.NAMESPACES, stated, origin), pod, _first(tables.CONTAINERS, stated, origin))


def _node(labels: Labels, origin: Labels) -> str:
    return _first(tables.NODES, labels) or _first(tables.NODES, origin) or _target(labels, origin).rpartition(":")[0]


def _target(labels: Labels, origin: Labels) -> str:
    found = _first(tables.TARGETS, labels, origin)
    if found:
        return found
    for host, port in tables.ADDRESSES:
        if origin.get(host):
            return clean(f"{origin[host]}:{origin.get(port, '')}".removesuffix(":"), _TEXT_CHARS)
    return ""


def _first(names: Sequence[str], *places: Labels) -> str:
    """The first name that says something, in the first place where one does."""
    for place in places:
        for name in names:
            if found := place.get(name):
                return clean(found, _TEXT_CHARS)
    return ""
