"""Decodes the recorded OTLP bodies for the tests, with the generated protobuf classes: the collectors' own
decoder is tested elsewhere, and a second decoder keeps these tests about dialects."""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collectors.dialects import Event, Hit, MetricPoint, Recogniser, Resource, Scalar, Scope
from costapp.core.ids import span_id_of
from costapp.core.values import Span

CAPTURES = Path(__file__).resolve().parents[1] / "data" / "captures"
MANIFEST: dict[str, Any] = json.loads((CAPTURES / "manifest.json").read_text())
_REQUESTS = {
    "traces": ExportTraceServiceRequest, "logs": ExportLogsServiceRequest, "metrics": ExportMetricsServiceRequest,
}  # fmt: skip


def captures() -> list[dict[str, Any]]:
    return list(MANIFEST["captures"])


def capture(name: str) -> dict[str, Any]:
    return next(c for c in captures() if c["id"] == name)


def spans_of(recogniser: Recogniser, files: Iterable[dict[str, Any]], folder: Path = CAPTURES) -> list[Span]:
    """The spans and usage events of some files of a capture, in wire order."""
    found: list[Span] = []
    for file in files:
        if file["signal"] in ("traces", "logs"):
            found.extend(_spans(recogniser, _body(file, folder), file["signal"]))
    return found


def points_of(recogniser: Recogniser, files: Iterable[dict[str, Any]]) -> list[MetricPoint]:
    found: list[MetricPoint] = []
    for file in files:
        if file["signal"] == "metrics":
            found.extend(_points(recogniser, _body(file)))
    return found


def _body(file: dict[str, Any], folder: Path = CAPTURES) -> Any:
    raw = (folder / file["file"]).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    request = _REQUESTS[file["signal"]]()
    if file["content_type"].endswith("json"):
        return _from_json(json.loads(raw), request)
    request.ParseFromString(raw)
    return request


def _from_json(document: Any, request: Any) -> Any:
    """OTLP/JSON has hex ids where protobuf-JSON expects base64, so a few fields are rewritten first."""
    from google.protobuf import json_format

    json_format.ParseDict(_rewritten(document), request, ignore_unknown_fields=True)
    return request


def _rewritten(node: Any) -> Any:
    import base64

    if isinstance(node, list):
        return [_rewritten(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {}
    for key, value in node.items():
        if key in ("traceId", "spanId", "parentSpanId") and isinstance(value, str):
            result[key] = base64.b64encode(bytes.fromhex(value)).decode()
        elif key == "doubleValue" and value is None:
            continue
        else:
            result[key] = _rewritten(value)
    return result


def scalar(value: Any) -> Scalar:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [scalar(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {item.key: scalar(item.value) for item in value.kvlist_value.values}
    return getattr(value, kind) if kind else None


def hits_of(recogniser: Recogniser, attributes: Any) -> list[Hit]:
    pairs = ((item.key, scalar(item.value)) for item in attributes)
    return [hit for key, value in pairs if (hit := recogniser.recognise(key, value))]


def _scopes(recogniser: Recogniser, request: Any, signal: str) -> Iterator[tuple[Resource, Scope, Any, bytes]]:
    outer, inner = {
        "traces": ("resource_spans", "scope_spans"),
        "logs": ("resource_logs", "scope_logs"),
        "metrics": ("resource_metrics", "scope_metrics"),
    }[signal]
    for group in getattr(request, outer):
        resource = recogniser.resource(hits_of(recogniser, group.resource.attributes))
        for part in getattr(group, inner):
            scope = Scope(part.scope.name, part.scope.version)
            yield resource, scope, part, group.resource.SerializeToString()


def _spans(recogniser: Recogniser, request: Any, signal: str) -> Iterator[Span]:
    for resource, scope, part, _ in _scopes(recogniser, request, signal):
        if signal == "logs":
            for record in part.log_records:
                span = recogniser.log_record(
                    event_name=record.event_name, body=scalar(record.body),
                    time_ns=record.time_unix_nano or record.observed_time_unix_nano, trace_id=record.trace_id,
                    span_id=span_id_of(record.span_id), hits=hits_of(recogniser, record.attributes), scope=scope,
                    resource=resource,
                )  # fmt: skip
                if span is not None:
                    yield span
            continue
        for span in part.spans:
            events = [Event(e.name, e.time_unix_nano, hits_of(recogniser, e.attributes)) for e in span.events]
            facts = recogniser.span(
                name=span.name, kind=span.kind, status=span.status.code, start_ns=span.start_time_unix_nano,
                end_ns=span.end_time_unix_nano, hits=hits_of(recogniser, span.attributes), scope=scope,
                resource=resource, events=events,
            )  # fmt: skip
            yield Span(
                span.trace_id,
                span_id_of(span.span_id),
                span_id_of(span.parent_span_id),
                span.start_time_unix_nano,
                facts,
            )


def _points(recogniser: Recogniser, request: Any) -> Iterator[MetricPoint]:
    for resource, scope, part, key in _scopes(recogniser, request, "metrics"):
        for metric in part.metrics:
            data = getattr(metric, metric.WhichOneof("data"))
            for point in data.data_points:
                value = point.sum if hasattr(point, "sum") else point.as_double or point.as_int
                found = recogniser.metric_point(
                    metric=metric.name, value=value, start_ns=point.start_time_unix_nano,
                    time_ns=point.time_unix_nano, is_delta=data.aggregation_temporality == 1,
                    attributes=[(a.key, scalar(a.value)) for a in point.attributes], scope=scope, resource=resource,
                    resource_key=key,
                )  # fmt: skip
                if found is not None:
                    yield found
