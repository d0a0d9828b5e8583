"""The part of the OTLP protobuf schema that we read, built when imported.

Field numbers are those of opentelemetry-proto; what we do not read is not declared, so the parser skips
it. Two liberties against the official schema: attributes, resources and scopes stay raw bytes
(they repeat, so decode.py looks them up instead of parsing them again), and strings are `bytes`, so that
one invalid UTF-8 sequence cannot refuse a whole request. The three signals share one shape:
request.resources[].scopes[].items[].
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

__all__ = [
    "REQUESTS", "AnyValue", "DecodeError", "ExportResponse", "KeyValue", "Label", "Resource", "RetryInfo", "Scope",
    "Span", "Status", "WriteRequest",
]  # fmt: skip

_PACKAGE = "costapp.wire"
_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "bytes": _Field.TYPE_BYTES,
    "bool": _Field.TYPE_BOOL,
    "int32": _Field.TYPE_INT32,
    "uint32": _Field.TYPE_UINT32,
    "int64": _Field.TYPE_INT64,
    "uint64": _Field.TYPE_UINT64,
    "fixed64": _Field.TYPE_FIXED64,
    "sfixed64": _Field.TYPE_SFIXED64,
    "double": _Field.TYPE_DOUBLE,
    "string": _Field.TYPE_STRING,
}

# message: {field: (number, type)}; "*" = repeated, "?" = member of the message's oneof "value"
_SCHEMA: dict[str, dict[str, tuple[int, str]]] = {
    "TracesRequest": {"resources": (1, "*ResourceSpans")},
    "ResourceSpans": {"resource": (1, "bytes"), "scopes": (2, "*ScopeSpans")},
    "ScopeSpans": {"scope": (1, "bytes"), "items": (2, "*bytes")},
    "Span": {
        "trace_id": (1, "bytes"),
        "span_id": (2, "bytes"),
        "parent_span_id": (4, "bytes"),
        "name": (5, "bytes"),
        "kind": (6, "int32"),
        "start_ns": (7, "fixed64"),
        "end_ns": (8, "fixed64"),
        "attributes": (9, "*bytes"),
        "events": (11, "*SpanEvent"),
        "status": (15, "SpanStatus"),
    },
    "SpanEvent": {"time_ns": (1, "fixed64"), "name": (2, "bytes"), "attributes": (3, "*bytes")},
    "SpanStatus": {"code": (3, "int32")},
    "LogsRequest": {"resources": (1, "*ResourceLogs")},
    "ResourceLogs": {"resource": (1, "bytes"), "scopes": (2, "*ScopeLogs")},
    "ScopeLogs": {"scope": (1, "bytes"), "items": (2, "*LogRecord")},
    "LogRecord": {
        "time_ns": (1, "fixed64"),
        "body": (5, "bytes"),
        "attributes": (6, "*bytes"),
        "trace_id": (9, "bytes"),
        "span_id": (10, "bytes"),
        "observed_ns": (11, "fixed64"),
        "event_name": (12, "bytes"),
    },
    "MetricsRequest": {"resources": (1, "*ResourceMetrics")},
    "ResourceMetrics": {"resource": (1, "bytes"), "scopes": (2, "*ScopeMetrics")},
    "ScopeMetrics": {"scope": (1, "bytes"), "items": (2, "*Metric")},
    "Metric": {
        "name": (1, "bytes"),
        "unit": (3, "bytes"),
        "gauge": (5, "?Points"),
        "sum": (7, "?Points"),
        "histogram": (9, "?Histogram"),
        "exponential": (10, "?ExponentialHistogram"),
        "summary": (11, "?Points"),  # only its points are counted
    },
    "Points": {"points": (1, "*Point"), "temporality": (2, "int32"), "monotonic": (3, "bool")},
    "Point": {
        "start_ns": (2, "fixed64"),
        "time_ns": (3, "fixed64"),
        "double": (4, "?double"),
        "int": (6, "?sfixed64"),
        "attributes": (7, "*bytes"),
        "flags": (8, "uint32"),
    },
    "Histogram": {"points": (1, "*HistogramPoint"), "temporality": (2, "int32")},
    "HistogramPoint": {
        "start_ns": (2, "fixed64"),
        "time_ns": (3, "fixed64"),
        "count": (4, "fixed64"),
        "sum": (5, "double"),
        "attributes": (9, "*bytes"),
        "flags": (10, "uint32"),
    },
    "ExponentialHistogram": {"points": (1, "*ExponentialPoint"), "temporality": (2, "int32")},
    "ExponentialPoint": {
        "attributes": (1, "*bytes"),
        "start_ns": (2, "fixed64"),
        "time_ns": (3, "fixed64"),
        "count": (4, "fixed64"),
        "sum": (5, "double"),
        "flags": (10, "uint32"),
    },
    "Resource": {"attributes": (1, "*bytes")},
    "Scope": {"name": (1, "bytes"), "version": (2, "bytes"), "attributes": (3, "*bytes")},
    "KeyValue": {"key": (1, "bytes"), "value": (2, "AnyValue")},
    "AnyValue": {
        "string": (1, "?bytes"),
        "bool": (2, "?bool"),
        "int": (3, "?int64"),
        "double": (4, "?double"),
        "array": (5, "?ArrayValue"),
        "kvlist": (6, "?KeyValueList"),
        "bytes": (7, "?bytes"),
    },
    "ArrayValue": {"values": (1, "*AnyValue")},
    "KeyValueList": {"values": (1, "*KeyValue")},
    # prometheus.WriteRequest of remote-write 1.0; labels stay raw, they repeat
    "WriteRequest": {"series": (1, "*TimeSeries")},
    "TimeSeries": {"labels": (1, "*bytes"), "samples": (2, "*Sample")},
    "Sample": {"value": (1, "double"), "time_ms": (2, "int64")},
    "Label": {"name": (1, "bytes"), "value": (2, "bytes")},
    # google.rpc.Status and RetryInfo, for answers
    "Status": {"code": (1, "int32"), "message": (2, "string"), "details": (3, "*Any")},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "RetryInfo": {"delay": (1, "Duration")},
    "Duration": {"seconds": (1, "int64")},
    # the three Export...ServiceResponse messages have this one shape
    "ExportResponse": {"partial_success": (1, "PartialSuccess")},
    "PartialSuccess": {"rejected": (1, "int64"), "error_message": (2, "string")},
}


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    field = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind.startswith("*"):
        field.label = _Field.LABEL_REPEATED
    if kind.startswith("?"):
        field.oneof_index = 0
    type_name = kind.lstrip("*?")
    if type_name in _TYPES:
        field.type = _TYPES[type_name]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{type_name}"


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="costapp/wire.proto", package=_PACKAGE, syntax="proto3")
    for message_name, fields in _SCHEMA.items():
        message = file.message_type.add(name=message_name)
        if any(kind.startswith("?") for _, kind in fields.values()):
            message.oneof_decl.add(name="value")
        for name, (number, kind) in fields.items():
            _add_field(message, name, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _SCHEMA}


_classes = _build()
REQUESTS = {
    "traces": _classes["TracesRequest"],
    "logs": _classes["LogsRequest"],
    "metrics": _classes["MetricsRequest"],
}
Span = _classes["Span"]
Resource = _classes["Resource"]
Scope = _classes["Scope"]
KeyValue = _classes["KeyValue"]
AnyValue = _classes["AnyValue"]
Status = _classes["Status"]
RetryInfo = _classes["RetryInfo"]
ExportResponse = _classes["ExportResponse"]
WriteRequest = _classes["WriteRequest"]
Label = _classes["Label"]
