"""The two encodings of OTLP behind one contract, so that everything after them exists once.

A codec walks a body as groups of items. Items of both encodings have the same fields with the same
types (those of wire.py: ids and names are bytes, times are integers, attributes are raw bytes).
"""

import base64
import binascii
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from collectors import wire, wire_json
from collectors.cut import Cut, cut
from collectors.dialects import Scalar, Scope
from collectors.settings import Settings

_UINT64_MAX = 2**64 - 1
_DELTA = 1  # AggregationTemporality
_NO_RECORDED_VALUE = 1  # DataPointFlags
_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")


Keys = Mapping[bytes, Any]  # of keys: what is wanted instead of their names; None = of no interest


class Group(NamedTuple):
    """Items of one resource and scope, both as raw bytes: they repeat, and so are looked up before they are parsed."""

    resource: bytes
    scope: bytes
    items: Sequence[Any]


class Point(NamedTuple):
    """A data point: of a histogram the sum."""

    start_ns: int
    time_ns: int
    value: float
    is_delta: bool
    attributes: Sequence[bytes]
    observations: int | None = None  # of a histogram
    is_empty: bool = False  # the series has ended: "no recorded value"


class Cuts:
    """The limits on one value, and a count of how often each of them bit."""

    __slots__ = ("limits", "odd")

    def __init__(self, limits: Settings) -> None:
        self.limits = limits
        self.odd: Counter[str] = Counter()

    def text(self, raw: bytes) -> str:
        limit = self.limits.value_chars
        if len(raw) > limit:  # bytes: at least as many as characters
            self.odd["values_cut"] += 1
            raw = raw[:limit]
        return raw.decode("utf-8", "replace")

    def too_deep(self, depth: int) -> bool:
        if depth < self.limits.nesting:
            return False
        self.odd["nesting_cut"] += 1
        return True


class Codec(Protocol):
    def groups(self, signal: str, body: bytes) -> Iterator[Group]:
        """ValueError, DecodeError or RecursionError if the body cannot be parsed."""

    def span(self, item: Any) -> Any:
        """An item of the signal traces, parsed. Like `groups` if it cannot be."""

    def cut(self, item: Any) -> Cut | None:
        """The same item without being parsed, if this encoding allows it."""

    def resource_attributes(self, raw: bytes) -> Sequence[bytes]: ...

    def scope(self, raw: bytes) -> Scope: ...

    def key_value(self, raw: bytes, cuts: Cuts, keys: Keys | None = None) -> tuple[Any, Scalar] | None:
        """One attribute: its key (or what `keys` has for it) and value.

        None if the key is of no interest or (counted) if it cannot be read.
        """

    def value(self, raw: bytes, cuts: Cuts) -> Scalar:
        """One AnyValue: the body of a log record."""

    def points(self, metric: Any) -> Iterator[Point]: ...


class Protobuf:
    def groups(self, signal: str, body: bytes) -> Iterator[Group]:
        request = wire.REQUESTS[signal].FromString(body)
        for resource in request.resources:
            for scope in resource.scopes:
                yield Group(resource.resource, scope.scope, scope.items)

    span = staticmethod(wire.Span.FromString)
    cut = staticmethod(cut)

    def resource_attributes(self, raw: bytes) -> Sequence[bytes]:
        return list(wire.Resource.FromString(raw).attributes)

    def scope(self, raw: bytes) -> Scope:
        scope = wire.Scope.FromString(raw)
        return Scope(scope.name.decode("utf-8", "replace")[:256], scope.version.decode("utf-8", "replace")[:64])

    def key_value(self, raw: bytes, cuts: Cuts, keys: Keys | None = None) -> tuple[Any, Scalar] | None:
        short = _short(raw, cuts)
        if short is not None:
            key = short[0].decode("utf-8", "replace") if keys is None else keys[short[0]]
            return (key, short[1]) if key is not None else None
        try:
            item = wire.KeyValue.FromString(raw)
        except wire.DecodeError:  # also when nested deeper than 100 levels
            cuts.odd["attribute_undecodable"] += 1
            return None
        if len(item.key) > cuts.limits.key_bytes:
            cuts.odd["keys_cut"] += 1
            return None
        key = item.key.decode("utf-8", "replace") if keys is None else keys[item.key]
        return (key, _scalar(item.value, cuts, 1)) if key is not None else None

    def value(self, raw: bytes, cuts: Cuts) -> Scalar:
        try:
            return _scalar(wire.AnyValue.FromString(raw), cuts, 1)
        except wire.DecodeError:
            cuts.odd["attribute_undecodable"] += 1
            return None

    def points(self, metric: Any) -> Iterator[Point]:
        kind = metric.WhichOneof("value")
        if kind is None:
            return
        data = getattr(metric, kind)
        is_delta = data.temporality == _DELTA
        is_histogram = kind in {"histogram", "exponential"}
        for point in data.points:
            value = point.sum if is_histogram else point.double or point.int
            count = point.count if is_histogram else None
            is_empty = bool(point.flags & _NO_RECORDED_VALUE)
            yield Point(point.start_ns, point.time_ns, value, is_delta, point.attributes, count, is_empty)


def _short(raw: bytes, cuts: Cuts) -> tuple[bytes, str | int] | None:
    """Key and value of a KeyValue as nearly every SDK writes short texts and whole numbers.

    None for any other form, which is then parsed in full. Several times faster than the parser's objects.
    """
    size = len(raw)
    if size < 6 or raw[0] != 0x0A or raw[1] > 127:  # field 1: key, its length in one byte
        return None
    at = raw[1] + 2
    if at + 4 > size or raw[1] > cuts.limits.key_bytes or raw[at] != 0x12:
        return None
    if raw[at + 1] != size - at - 2 or raw[at + 1] > 127:  # field 2: value, to the end
        return None
    if raw[at + 2] == 0x0A and raw[at + 3] == size - at - 4:  # in it only field 1: string_value
        text = raw[at + 4 :]
        return (raw[2:at], text.decode("utf-8", "replace")) if len(text) <= cuts.limits.value_chars else None
    if raw[at + 2] == 0x18:  # field 3: int_value
        number = _varint(raw[at + 3 :])
        return (raw[2:at], number) if number is not None else None
    return None


def _varint(raw: bytes) -> int | None:
    """A number in at most four bytes; None for larger ones, negative ones, or if more follows."""
    number = 0
    for place, byte in enumerate(raw[:4]):
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number if place + 1 == len(raw) else None
    return None


def _scalar(value: Any, cuts: Cuts, depth: int) -> Scalar:
    kind = value.WhichOneof("value")
    if kind == "string":
        return cuts.text(value.string)
    if kind in {"int", "double", "bool"}:
        return getattr(value, kind)  # type: ignore[no-any-return]
    if kind == "bytes":
        return bytes(value.bytes[: cuts.limits.value_chars])
    if kind is None or cuts.too_deep(depth):
        return None
    if kind == "array":
        return [_scalar(item, cuts, depth + 1) for item in value.array.values]
    return {item.key.decode("utf-8", "replace"): _scalar(item.value, cuts, depth + 1) for item in value.kvlist.values}


class Json:
    def groups(self, signal: str, body: bytes) -> Iterator[Group]:
        request = wire_json.decode(signal, body)
        normal = _NORMAL[signal]
        for resource in request.resources or ():
            for scope in (resource.scopes if resource else None) or ():
                if scope is not None:
                    items = [normal(item) for item in scope.items or () if item is not None]
                    yield Group(bytes(resource.resource), bytes(scope.scope), items)

    def span(self, item: Any) -> Any:
        return item

    def cut(self, item: Any) -> None:
        return None

    def resource_attributes(self, raw: bytes) -> Sequence[bytes]:
        try:
            resource = wire_json.decode_resource(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
        return _raws(resource.attributes) if resource else []

    def scope(self, raw: bytes) -> Scope:
        try:
            scope = wire_json.decode_scope(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            scope = None
        return Scope((scope.name or "")[:256], (scope.version or "")[:64]) if scope else Scope("")

    def key_value(self, raw: bytes, cuts: Cuts, keys: Keys | None = None) -> tuple[Any, Scalar] | None:
        try:
            item = wire_json.decode_key_value(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            cuts.odd["attribute_undecodable"] += 1
            return None
        if item is None:
            return None
        if len(item.key) > cuts.limits.key_bytes:
            cuts.odd["keys_cut"] += 1
            return None
        key = item.key if keys is None else keys[item.key.encode("utf-8", "replace")]
        return (key, _json_scalar(item.value, cuts, 1)) if key is not None else None

    def value(self, raw: Any, cuts: Cuts) -> Scalar:
        return _json_scalar(raw, cuts, 1)

    def points(self, metric: Any) -> Iterator[Point]:
        for data in (metric.sum, metric.gauge, metric.histogram, metric.exponential, metric.summary):
            for point in (data.points if data else None) or ():
                if point is not None:
                    yield Point(
                        _time(point.start), _time(point.time), _point_value(point), integer(data.temporality) == _DELTA,
                        _raws(point.attributes), integer(point.count),
                        bool((integer(point.flags) or 0) & _NO_RECORDED_VALUE),
                    )  # fmt: skip


def _json_scalar(value: Any, cuts: Cuts, depth: int) -> Scalar:
    """Of several members the first one present counts."""
    if value is None:
        return None
    if value.text is not None:
        return cuts.text(value.text.encode()) if len(value.text) > cuts.limits.value_chars // 4 else value.text
    if value.integer is not None:
        return integer(value.integer)
    if value.number is not None:
        return _number(value.number)
    if value.flag is not None:
        return value.flag  # type: ignore[no-any-return]
    if value.base64 is not None:
        return _base64(value.base64)
    return _json_nested(value, cuts, depth)


def _json_nested(value: Any, cuts: Cuts, depth: int) -> Scalar:
    if (value.array is None and value.kvlist is None) or cuts.too_deep(depth):
        return None
    if value.array is not None:
        return [_json_scalar(item, cuts, depth + 1) for item in value.array.values or ()]
    return {item.key: _json_scalar(item.value, cuts, depth + 1) for item in value.kvlist.values or ()}


class _Status(msgspec.Struct, gc=False):
    code: int


class _Event(msgspec.Struct, gc=False):
    time_ns: int
    name: bytes
    attributes: list[bytes]


class _Span(msgspec.Struct, gc=False):
    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    name: bytes
    kind: int
    start_ns: int
    end_ns: int
    attributes: list[bytes]
    events: Sequence[_Event]
    status: _Status


class _LogRecord(msgspec.Struct, gc=False):
    time_ns: int
    observed_ns: int
    body: Any
    attributes: list[bytes]
    trace_id: bytes
    span_id: bytes
    event_name: bytes


_UNSET = _Status(0)


def _span(span: wire_json.Span) -> _Span:
    status = span.status
    return _Span(
        _id(span.trace_id), _id(span.span_id), _id(span.parent_span_id), _bytes(span.name), _kind(span.kind),
        _time(span.start), _time(span.end), _raws(span.attributes),
        [_event(event) for event in span.events if event is not None] if span.events else (),
        _UNSET if status is None or not status.code else _Status(integer(status.code) or 0),
    )  # fmt: skip


def _event(event: wire_json.SpanEvent) -> _Event:
    return _Event(_time(event.time_ns), _bytes(event.name), _raws(event.attributes))


def _log_record(record: wire_json.LogRecord) -> _LogRecord:
    return _LogRecord(
        _time(record.time), _time(record.observed), record.body, _raws(record.attributes),
        _id(record.trace_id), _id(record.span_id), _bytes(record.event_name),
    )  # fmt: skip


def _metric(metric: wire_json.Metric) -> wire_json.Metric:
    metric.name = _bytes(metric.name)  # type: ignore[assignment]
    return metric


_NORMAL: dict[str, Any] = {"traces": _span, "logs": _log_record, "metrics": _metric}


def _raws(attributes: list[msgspec.Raw] | None) -> list[bytes]:
    return [bytes(raw) for raw in attributes] if attributes else []


def _bytes(text: str | None) -> bytes:
    return text.encode() if text else b""


def _id(text: str | None) -> bytes:
    """Hex of any case; anything else becomes an id of impossible length, which is rejected later."""
    if not text:
        return b""
    try:
        return binascii.unhexlify(text)
    except ValueError:
        return b"?"


def _kind(value: wire_json.Integer) -> int:
    """OTLP wants the number; some senders write the name."""
    if isinstance(value, str) and value.startswith("SPAN_KIND_"):
        name = value.removeprefix("SPAN_KIND_")
        return _KINDS.index(name) if name in _KINDS else 0
    return integer(value) or 0


def _time(value: wire_json.Integer) -> int:
    """Unix nanoseconds; 0 if absent or senseless."""
    number = integer(value)
    return number if number is not None and 0 <= number <= _UINT64_MAX else 0


def integer(value: wire_json.Integer) -> int | None:
    """A 64-bit integer, written as text or number; None if it is neither."""
    try:
        return int(value) if value is not None and len(str(value)) < 32 else None
    except (ValueError, OverflowError):
        return None


def _number(value: float | str) -> float | None:
    """A double; NaN and infinities come as text."""
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _point_value(point: wire_json.Point) -> float:
    for value in (point.integer, point.number, point.sum):
        if value is not None:
            return _number(value) or 0.0
    return 0.0


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


PROTOBUF: Codec = Protobuf()
JSON: Codec = Json()
