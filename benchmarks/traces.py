"""Realistic traces, generated from a seed: an agent request of 8 spans with 2 or 3 model calls.

POST /chat                        (server)
├── SELECT sessions               (database)
├── retrieve                      (internal)
│   └── embeddings text-embedding (a model call in every second trace, else a cache lookup)
├── chat gpt-4o                   (a model call, about 13 attributes)
├── execute_tool search           (internal)
├── chat gpt-4o-mini              (a model call)
└── publish answer                (producer)
"""

import json
import random
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SPANS_PER_TRACE = 8
FEATURES = [f"feature-{number}" for number in range(12)]
MODELS = ["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-flash"]
PROVIDERS = {"gpt": "openai", "cla": "anthropic", "gem": "gcp.gemini"}
SERVER, CLIENT, INTERNAL, PRODUCER = 2, 3, 1, 4

Attributes = dict[str, Any]


class Shape(NamedTuple):
    name: str
    kind: int
    parent: int  # index of the parent span, -1 = root
    attributes: Attributes


def _call(dice: random.Random, model: str, common: Attributes) -> Attributes:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": PROVIDERS[model[:3]],
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.response.id": f"chatcmpl-{dice.getrandbits(96):024x}",
        "gen_ai.usage.input_tokens": dice.randint(200, 8000),
        "gen_ai.usage.output_tokens": dice.randint(20, 900),
        "gen_ai.usage.cache_read.input_tokens": dice.randint(0, 180),
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.request.temperature": 0.2,
        "server.address": "api.example.com",
        **common,
    }


def _embedding(dice: random.Random, common: Attributes) -> Attributes:
    return {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "text-embedding-3-small",
        "gen_ai.usage.input_tokens": dice.randint(10, 400),
        **common,
    }


def trace_shapes(dice: random.Random) -> list[Shape]:
    """The eight spans of one trace."""
    feature = dice.choice(FEATURES)
    common = {
        "app.feature": feature,
        "user.id": f"user-{dice.randint(1, 5000)}",
        "session.id": f"s-{dice.getrandbits(40):010x}",
    }
    lookup = dice.random() < 0.5
    http = {"http.request.method": "POST", "http.route": "/chat", "http.response.status_code": 200, "url.path": "/chat"}
    database = {"db.system.name": "postgresql", "db.operation.name": "SELECT", "db.collection.name": "sessions"}
    inner = (
        Shape("cache lookup", CLIENT, 2, {"cache.hit": True, "db.system.name": "redis"})
        if lookup
        else Shape("embeddings text-embedding-3-small", CLIENT, 2, _embedding(dice, common))
    )
    first, second = dice.choice(MODELS), dice.choice(MODELS)
    return [
        Shape("POST /chat", SERVER, -1, http | common),
        Shape("SELECT sessions", CLIENT, 0, database),
        Shape("retrieve", INTERNAL, 0, {"retriever.top_k": 8}),
        inner,
        Shape(f"chat {first}", CLIENT, 0, _call(dice, first, common)),
        Shape("execute_tool search", INTERNAL, 0,
              {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}),
        Shape(f"chat {second}", CLIENT, 0, _call(dice, second, common)),
        Shape("publish answer", PRODUCER, 0, {"messaging.system": "kafka", "messaging.destination.name": "answers"}),
    ]  # fmt: skip


def requests(*, spans: int, per_request: int = 512, seed: int = 1, end_ns: int | None = None
             ) -> Iterator[ExportTraceServiceRequest]:  # fmt: skip
    """Requests of whole traces from three services that hold `spans` spans in all."""
    dice = random.Random(seed)
    end_ns = time.time_ns() if end_ns is None else end_ns
    for first in range(0, spans, per_request):
        traces = min(per_request, spans - first) // SPANS_PER_TRACE
        yield _request(dice, traces, end_ns - dice.randint(0, 60_000_000_000))


def _request(dice: random.Random, traces: int, at_ns: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    service = dice.choice(["assistant", "gateway", "worker"])
    resource = {"service.name": service, "deployment.environment.name": "production", "process.pid": 7}
    group.resource.attributes.extend(_key_values(resource))
    scope = group.scope_spans.add()
    scope.scope.name, scope.scope.version = "opentelemetry.instrumentation.genai.openai", "1.3b0"
    for _ in range(traces):
        _add_trace(scope.spans, dice, at_ns)
    return request


def _add_trace(spans: Any, dice: random.Random, at_ns: int) -> None:
    trace_id = dice.randbytes(16)
    ids: list[bytes] = []
    for number, shape in enumerate(trace_shapes(dice)):
        ids.append(dice.randbytes(8))
        start_ns = at_ns + number * 50_000_000
        span: Span = spans.add(
            trace_id=trace_id,
            span_id=ids[-1],
            parent_span_id=b"" if shape.parent < 0 else ids[shape.parent],
            name=shape.name,
            kind=shape.kind,
            start_time_unix_nano=start_ns,
            end_time_unix_nano=start_ns + dice.randint(5, 4000) * 1_000_000,
        )
        span.attributes.extend(_key_values(shape.attributes))


def _key_values(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=_any_value(value)) for key, value in attributes.items()]


def _any_value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[_any_value(item) for item in value]))
    return AnyValue(string_value=value)


def as_json(request: ExportTraceServiceRequest) -> bytes:
    """OTLP/JSON as JavaScript exporters write it: hex ids, lowerCamelCase."""
    return json.dumps({"resourceSpans": [_json_group(group) for group in request.resource_spans]},
                      separators=(",", ":")).encode()  # fmt: skip


def _json_group(group: Any) -> dict[str, Any]:
    scopes = [
        {
            "scope": {"name": scope.scope.name, "version": scope.scope.version},
            "spans": [_json_span(span) for span in scope.spans],
        }
        for scope in group.scope_spans
    ]
    return {"resource": {"attributes": _json_attributes(group.resource.attributes)}, "scopeSpans": scopes}


def _json_span(span: Any) -> dict[str, Any]:
    return {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "parentSpanId": span.parent_span_id.hex(),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start_time_unix_nano),
        "endTimeUnixNano": str(span.end_time_unix_nano),
        "attributes": _json_attributes(span.attributes),
        "status": {},
    }


def _json_attributes(attributes: Any) -> list[dict[str, Any]]:
    return [{"key": item.key, "value": _json_value(item.value)} for item in attributes]


def _json_value(value: Any) -> dict[str, Any]:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return {"arrayValue": {"values": [_json_value(item) for item in value.array_value.values]}}
    return {_JSON_KINDS[kind]: getattr(value, kind)}


_JSON_KINDS = {
    "string_value": "stringValue",
    "int_value": "intValue",
    "double_value": "doubleValue",
    "bool_value": "boolValue",
}
