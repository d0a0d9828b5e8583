"""OTLP data points of GPUs and inference servers: from SDKs, OpenLIT, our exporter, and the Collector's prometheus
receiver, which hands over Prometheus' names and puts all labels on the points.

Token counters for coverage are another matter (collectors.dialects.metrics).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from collectors.codecs import Point
from collectors.dialects import Scalar
from collectors.dialects.scalars import text_of
from collectors.gpu.samples import Samples
from collectors.gpu.series import Series, is_wanted, plain_name, resolve

Pairs = Callable[[Sequence[bytes]], list[tuple[str, Scalar]]]
_KNOWN = 50_000  # series remembered per project and encoding
_UNSEEN = object()


@lru_cache(maxsize=8_192)
def spellings(metric: str, is_histogram: bool) -> tuple[str, ...]:
    """Under which names of Prometheus a metric is read: a histogram as its sum and its count. () = it is not read."""
    names = (f"{metric}_sum", f"{metric}_count") if is_histogram else (metric,)
    return tuple(name for name in names if is_wanted(name))


class OtlpMetrics:
    """Reads the points of one project in one encoding. `pairs` decodes raw attributes."""

    def __init__(self, pairs: Pairs, resource_attributes: Callable[[bytes], Sequence[bytes]]) -> None:
        self._pairs = pairs
        self._resource_attributes = resource_attributes
        self._known: dict[tuple[str, bytes, bytes], Series | str | None] = {}
        self._origins: dict[bytes, Mapping[str, str]] = {}

    def add(self, name: str, point: Point, resource: bytes, samples: Samples) -> str:
        """Add one point of a histogram or number; "" if it was read, else why not ("-": of no interest)."""
        left_out = "-"
        for spelling in spellings(name, point.observations is not None):
            left_out = self._add(spelling, point, resource, samples)
        return left_out

    def _add(self, name: str, point: Point, resource: bytes, samples: Samples) -> str:
        raw = b"\0".join(point.attributes)
        series = self._known.get((name, raw, resource), _UNSEEN)
        if series is _UNSEEN:
            series = self._resolve(name, point.attributes, raw, resource)
        if not isinstance(series, Series):
            return series if isinstance(series, str) else "-"
        if point.is_delta and series.metric.is_counter:
            return "gpu_delta_counter"  # how much was there before is not known: gaps could not be told from pauses
        value = None if point.is_empty else float(point.observations or 0) if name.endswith("_count") else point.value
        samples.add(series, value, point.time_ns, raw)
        return ""

    def _resolve(self, name: str, attributes: Sequence[bytes], raw: bytes, resource: bytes) -> Series | str | None:
        found = resolve(name, _texts(self._pairs(attributes)), self._origin(resource))
        if len(self._known) >= _KNOWN:
            self._known.clear()
            self._origins.clear()
        self._known[name, raw, resource] = found
        return found

    def _origin(self, resource: bytes) -> Mapping[str, str]:
        found = self._origins.get(resource)
        if found is None:
            pairs = self._pairs(self._resource_attributes(resource))
            found = self._origins[resource] = _texts(pairs)
        return found


def _texts(pairs: Sequence[tuple[str, Scalar]]) -> dict[str, str]:
    return {plain_name(name): text for name, value in pairs if (text := text_of(value)) is not None}
