"""OTLP over gRPC: three Export methods on raw bytes. Maps a request to Ingest.export and a Refusal to a status."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from collectors.auth import key_from_headers
from collectors.batch import LOGS, METRICS, TRACES
from collectors.errors import Refusal
from collectors.ingest import Ingest, Request
from collectors.settings import Settings

_SERVICES = {
    "opentelemetry.proto.collector.trace.v1.TraceService": TRACES,
    "opentelemetry.proto.collector.metrics.v1.MetricsService": METRICS,
    "opentelemetry.proto.collector.logs.v1.LogsService": LOGS,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_STATUS_DETAILS = "grpc-status-details-bin"
Export = Callable[[bytes, Any], Awaitable[bytes]]


def make_server(ingest: Ingest, settings: Settings) -> Any:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.body_bytes),
            ("grpc.so_reuseport", int(settings.processes > 1)),
            ("grpc.max_concurrent_streams", 1_000),
        ]
    )
    for service, signal in _SERVICES.items():
        handlers: dict[str, Any] = {"Export": grpc.unary_unary_rpc_method_handler(_export(ingest, signal))}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    return server


def _export(ingest: Ingest, signal: str) -> Export:
    async def export(body: bytes, context: Any) -> bytes:
        try:
            answer = await _handle(ingest, signal, body, context)
        except Refusal as refusal:
            await _abort(ingest, context, refusal)
        ingest.counters.add("requests_total", transport="grpc", status="200")
        return answer

    return export


async def _handle(ingest: Ingest, signal: str, body: bytes, context: Any) -> bytes:
    headers = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
    key = await ingest.keys.authenticate(key_from_headers(headers.get), context.peer().rsplit(":", 1)[0])
    with ingest.noting(key, signal, "grpc"), ingest.memory.hold() as hold:
        ingest.admit(key)
        hold.add(len(body))
        return await ingest.export(Request(signal=signal, transport="grpc", key=key, body=body), hold)


async def _abort(ingest: Ingest, context: Any, refusal: Refusal) -> None:
    """Ends the call by an exception of grpc's own."""
    ingest.count_refusal(refusal, "grpc")
    details = ((_STATUS_DETAILS, refusal.status_bytes()),)
    await context.abort(_CODES[refusal.kind.grpc_code], refusal.message, details)
