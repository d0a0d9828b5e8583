"""The part of OTLP/JSON that we read, as typed structures. Unknown fields are ignored, null means absent.

Attributes, resources and scopes stay raw, and the three signals share one shape, as in wire.py.
"""

import json
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

Integer = int | str | float | None  # 64-bit integers come as text (Python) or as numbers (JavaScript)
Attributes = list[Raw] | None


class AnyValue(Struct, gc=False):
    text: str | None = field(default=None, name="stringValue")
    flag: bool | None = field(default=None, name="boolValue")
    integer: Integer = field(default=None, name="intValue")
    number: float | str | None = field(default=None, name="doubleValue")
    array: "ArrayValue | None" = field(default=None, name="arrayValue")
    kvlist: "KeyValueList | None" = field(default=None, name="kvlistValue")
    base64: str | None = field(default=None, name="bytesValue")


class ArrayValue(Struct, gc=False):
    values: list[AnyValue | None] | None = None


class KeyValueList(Struct, gc=False):
    values: "list[KeyValue] | None" = None


class KeyValue(Struct, gc=False):
    key: str = ""
    value: AnyValue | None = None


class Resource(Struct, gc=False):
    attributes: Attributes = None


class Scope(Struct, gc=False):
    name: str | None = None
    version: str | None = None


class SpanEvent(Struct, gc=False):
    name: str | None = None
    time_ns: Integer = field(default=None, name="timeUnixNano")
    attributes: Attributes = None


class SpanStatus(Struct, gc=False):
    code: Integer = None


class Span(Struct, gc=False):
    trace_id: str | None = field(default=None, name="traceId")
    span_id: str | None = field(default=None, name="spanId")
    parent_span_id: str | None = field(default=None, name="parentSpanId")
    name: str | None = None
    kind: Integer = None
    start: Integer = field(default=None, name="startTimeUnixNano")
    end: Integer = field(default=None, name="endTimeUnixNano")
    attributes: Attributes = None
    events: list[SpanEvent | None] | None = None
    status: SpanStatus | None = None


class ScopeSpans(Struct, gc=False):
    scope: Raw = Raw(b"null")
    items: list[Span | None] | None = field(default=None, name="spans")


class ResourceSpans(Struct, gc=False):
    resource: Raw = Raw(b"null")
    scopes: list[ScopeSpans | None] | None = field(default=None, name="scopeSpans")


class TracesRequest(Struct, gc=False):
    resources: list[ResourceSpans | None] | None = field(default=None, name="resourceSpans")


class LogRecord(Struct, gc=False):
    time: Integer = field(default=None, name="timeUnixNano")
    observed: Integer = field(default=None, name="observedTimeUnixNano")
    body: AnyValue | None = None
    attributes: Attributes = None
    trace_id: str | None = field(default=None, name="traceId")
    span_id: str | None = field(default=None, name="spanId")
    event_name: str | None = field(default=None, name="eventName")


class ScopeLogs(Struct, gc=False):
    scope: Raw = Raw(b"null")
    items: list[LogRecord | None] | None = field(default=None, name="logRecords")


class ResourceLogs(Struct, gc=False):
    resource: Raw = Raw(b"null")
    scopes: list[ScopeLogs | None] | None = field(default=None, name="scopeLogs")


class LogsRequest(Struct, gc=False):
    resources: list[ResourceLogs | None] | None = field(default=None, name="resourceLogs")


class Point(Struct, gc=False):
    """A data point of any kind: number or histogram."""

    start: Integer = field(default=None, name="startTimeUnixNano")
    time: Integer = field(default=None, name="timeUnixNano")
    number: float | str | None = field(default=None, name="asDouble")
    integer: Integer = field(default=None, name="asInt")
    sum: float | str | None = None
    count: Integer = None
    attributes: Attributes = None
    flags: Integer = None


class Points(Struct, gc=False):
    points: list[Point | None] | None = field(default=None, name="dataPoints")
    temporality: Integer = field(default=None, name="aggregationTemporality")


class Metric(Struct, gc=False):
    name: str | None = None
    gauge: Points | None = None
    sum: Points | None = None
    histogram: Points | None = None
    exponential: Points | None = field(default=None, name="exponentialHistogram")
    summary: Points | None = None


class ScopeMetrics(Struct, gc=False):
    scope: Raw = Raw(b"null")
    items: list[Metric | None] | None = field(default=None, name="metrics")


class ResourceMetrics(Struct, gc=False):
    resource: Raw = Raw(b"null")
    scopes: list[ScopeMetrics | None] | None = field(default=None, name="scopeMetrics")


class MetricsRequest(Struct, gc=False):
    resources: list[ResourceMetrics | None] | None = field(default=None, name="resourceMetrics")


_DECODERS: dict[str, Any] = {
    "traces": msgspec.json.Decoder(TracesRequest).decode,
    "logs": msgspec.json.Decoder(LogsRequest).decode,
    "metrics": msgspec.json.Decoder(MetricsRequest).decode,
}
decode_resource: Any = msgspec.json.Decoder(Resource | None).decode
decode_scope: Any = msgspec.json.Decoder(Scope | None).decode
decode_key_value: Any = msgspec.json.Decoder(KeyValue | None).decode


def decode(signal: str, body: bytes) -> Any:
    """The request. ValueError (with where and why, without payload) or RecursionError if it is none."""
    try:
        return _DECODERS[signal](body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _DECODERS[signal](_repaired(body, error))


def _repaired(body: bytes, error: Exception) -> bytes:
    """Bodies with lone surrogates, invalid UTF-8 or bare NaN are no JSON, but clients send them."""
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        raise error from None
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
