"""Spans of the demo as OTLP requests, in OpenTelemetry's own attribute names: how an app would send them."""

from collections.abc import Iterable

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from costapp.core.values import Span, SpanFacts, SpanFlag

_TEXTS = {
    "feature": "app.feature",
    "user": "user.id",
    "session": "session.id",
    "team": "team.id",
    "variant": "app.variant",
    "prompt_version": "app.prompt_version",
    "operation": "gen_ai.operation.name",
    "provider_raw": "gen_ai.provider.name",
    "model_requested": "gen_ai.request.model",
    "model_responded": "gen_ai.response.model",
    "response_id": "gen_ai.response.id",
    "error": "error.type",
    "host": "server.address",
    "region": "cloud.region",
    "finish_reason": "gen_ai.response.finish_reason",
}
_COUNTS = {
    "input": "gen_ai.usage.input_tokens",
    "output": "gen_ai.usage.output_tokens",
    "cache_read": "gen_ai.usage.cache_read.input_tokens",
    "cache_write": "gen_ai.usage.cache_write.input_tokens",
    "reasoning": "gen_ai.usage.reasoning.output_tokens",
}
_FLAGS = {SpanFlag.STREAM: "gen_ai.request.stream", SpanFlag.APP_CACHED: "litellm.cache_hit"}
_WRAP = 1 << 64


def export_request(spans: Iterable[Span]) -> ExportTraceServiceRequest:
    """One export request with the spans grouped by resource and scope, as an SDK would group them."""
    request = ExportTraceServiceRequest()
    scopes: dict[tuple[str, str, str], ScopeSpans] = {}
    resources: dict[tuple[str, str], int] = {}
    for span in spans:
        facts = span.facts
        source = (facts.service or "", facts.environment or "")
        if source not in resources:
            resources[source] = len(request.resource_spans)
            resource = request.resource_spans.add().resource
            _text(resource.attributes.add(), "service.name", source[0])
            _text(resource.attributes.add(), "deployment.environment.name", source[1])
        key = (*source, facts.scope or "larkfield")
        if key not in scopes:
            scopes[key] = request.resource_spans[resources[source]].scope_spans.add()
            scopes[key].scope.name = key[2]
        _write(scopes[key].spans.add(), span)
    return request


def _write(wire: WireSpan, span: Span) -> None:
    facts = span.facts
    wire.trace_id = span.trace_id
    wire.span_id = _id_bytes(span.span_id)
    wire.parent_span_id = _id_bytes(span.parent_id) if span.parent_id else b""
    wire.name, wire.kind, wire.status.code = facts.name, facts.kind, facts.status  # type: ignore[assignment]
    wire.start_time_unix_nano = span.start_ns
    wire.end_time_unix_nano = span.start_ns + (facts.duration_us or 0) * 1000
    for field, name in _TEXTS.items():
        if (value := getattr(facts, field)) is not None:
            _text(wire.attributes.add(), name, value)
    for field, name in _COUNTS.items():
        if (value := getattr(facts, field)) is not None:
            attribute = wire.attributes.add()
            attribute.key, attribute.value.int_value = name, value
    _write_rest(wire, facts)


def _write_rest(wire: WireSpan, facts: SpanFacts) -> None:
    for flag, name in _FLAGS.items():
        if facts.flags & flag:
            attribute = wire.attributes.add()
            attribute.key, attribute.value.bool_value = name, True
    if facts.ttft_us is not None:
        attribute = wire.attributes.add()
        attribute.key, attribute.value.double_value = "gen_ai.response.time_to_first_chunk", facts.ttft_us / 1_000_000


def _text(attribute: KeyValue, key: str, value: str) -> None:
    attribute.key, attribute.value.string_value = key, value


def _id_bytes(span_id: int) -> bytes:
    return (span_id % _WRAP).to_bytes(8, "big")
