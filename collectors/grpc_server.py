"""OTLP over gRPC: three Export methods on raw bytes. Maps a request to Ingest.export and a Refusal to a status.

On the wire a stream of one message is a unary call. Served as a stream, the call begins when its metadata has arrived,
so the key is checked before the message is read: until then a sender can fill no more than its flow-control window.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from collectors.auth import key_from_headers
from collectors.batch import LOGS, METRICS, TRACES
from collectors.errors import BODY_TIMEOUT, Refusal, bad_data
from collectors.ingest import Ingest, Request
from collectors.settings import Settings

_SERVICES = {
    "opentelemetry.proto.collector.trace.v1.TraceService": TRACES,
    "opentelemetry.proto.collector.metrics.v1.MetricsService": METRICS,
    "opentelemetry.proto.collector.logs.v1.LogsService": LOGS,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_STATUS_DETAILS = "grpc-status-details-bin"
_READERS = 16  # messages being read at one time; each may be as large as a body
_STREAMS = 128  # calls per connection; each holds a window while it waits for its turn
_WINDOW = 256 * 1024  # bytes a call may send before it is read
Export = Callable[[AsyncIterator[bytes], Any], Awaitable[bytes]]


def make_server(ingest: Ingest, settings: Settings) -> Any:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.body_bytes),
            ("grpc.so_reuseport", int(settings.processes > 1)),
            ("grpc.max_concurrent_streams", _STREAMS),
            ("grpc.http2.lookahead_bytes", _WINDOW),
            ("grpc.http2.bdp_probe", 0),  # or the window grows as fast as the sender
        ]
    )
    readers = asyncio.Semaphore(_READERS)
    for service, signal in _SERVICES.items():
        handlers: dict[str, Any] = {"Export": grpc.stream_unary_rpc_method_handler(_export(ingest, signal, readers))}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    return server


def _export(ingest: Ingest, signal: str, readers: asyncio.Semaphore) -> Export:
    async def export(messages: AsyncIterator[bytes], context: Any) -> bytes:
        try:
            answer = await _handle(ingest, signal, messages, readers, context)
        except Refusal as refusal:
            await _abort(ingest, context, refusal)
        ingest.counters.add("requests_total", transport="grpc", status="200")
        return answer

    return export


async def _handle(
    ingest: Ingest, signal: str, messages: AsyncIterator[bytes], readers: asyncio.Semaphore, context: Any
) -> bytes:
    headers = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
    key = await ingest.keys.authenticate(key_from_headers(headers.get), context.peer().rsplit(":", 1)[0])
    with ingest.noting(key, signal, "grpc"), ingest.memory.hold() as hold:
        ingest.admit(key)
        async with readers:
            body = await _message(messages, ingest.settings.body_seconds)
            hold.add(len(body))
        return await ingest.export(Request(signal=signal, transport="grpc", key=key, body=body), hold)


async def _message(messages: AsyncIterator[bytes], seconds: int) -> bytes:
    """The one message of the call. What is too large is refused by grpc itself."""
    try:
        async with asyncio.timeout(seconds):
            return await anext(messages)
    except StopAsyncIteration:
        raise bad_data("undecodable", "The call ended without a message.") from None
    except TimeoutError:
        raise Refusal(BODY_TIMEOUT, "body_timeout", "The message took too long to arrive.") from None


async def _abort(ingest: Ingest, context: Any, refusal: Refusal) -> None:
    """Ends the call by an exception of grpc's own."""
    ingest.count_refusal(refusal, "grpc")
    details = ((_STATUS_DETAILS, refusal.status_bytes()),)
    await context.abort(_CODES[refusal.kind.grpc_code], refusal.message, details)
