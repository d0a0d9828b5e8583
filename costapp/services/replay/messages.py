"""OTLP request messages: by signal, item by item, and from JSON to protobuf."""

import base64
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS: dict[str, Any] = {
    "traces": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
_PATH = {
    "traces": ("resource_spans", "scope_spans", "spans"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
    "metrics": ("resource_metrics", "scope_metrics", "metrics"),
}
_METRIC_KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
JSON_IDS = {"traceId": 16, "spanId": 8, "parentSpanId": 8}  # bytes; OTLP/JSON writes them in hexadecimal


def resources(signal: str, request: Message) -> Iterator[Any]:
    """ResourceSpans, ResourceLogs or ResourceMetrics of a request."""
    return iter(getattr(request, _PATH[signal][0]))


def items(signal: str, request: Message) -> Iterator[Any]:
    """Every span, log record or metric of a request, in order."""
    _, scopes, leaves = _PATH[signal]
    for resource in resources(signal, request):
        for scope in getattr(resource, scopes):
            yield from getattr(scope, leaves)


def exemplars(metric: Any) -> Iterator[Any]:
    """The exemplars of a metric: they point into traces."""
    kind = metric.WhichOneof("data")
    if kind in _METRIC_KINDS:
        for point in getattr(metric, kind).data_points:
            yield from getattr(point, "exemplars", ())


def plausible_items(signal: str, request: Message) -> int:
    """How many items look like this signal: the three requests can often be read as one another."""
    match signal:
        case "traces":
            return sum(1 for span in items(signal, request) if len(span.trace_id) == 16 and span.name)
        case "logs":
            return sum(
                1 for record in items(signal, request) if record.time_unix_nano or record.observed_time_unix_nano
            )
        case _:
            return sum(1 for metric in items(signal, request) if metric.name and metric.WhichOneof("data"))


def from_json(signal: str, document: Any) -> Message:
    """The protobuf message of an OTLP/JSON document, for gRPC. Raises ValueError where it is not OTLP."""
    try:
        request: Message = json_format.ParseDict(_base64_ids(document), REQUESTS[signal](), ignore_unknown_fields=True)
        return request
    except json_format.ParseError as error:
        raise ValueError(str(error)) from error


def _base64_ids(node: Any) -> Any:
    """Protobuf's own JSON wants bytes in base64; OTLP/JSON writes ids in hexadecimal."""
    if isinstance(node, list):
        return [_base64_ids(child) for child in node]
    if not isinstance(node, dict):
        return node
    return {
        key: base64.b64encode(bytes.fromhex(value)).decode()
        if key in JSON_IDS and isinstance(value, str)
        else _base64_ids(value)
        for key, value in node.items()
        if value is not None
    }
