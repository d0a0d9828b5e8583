"""The contract of OTLP/gRPC, and real SDK exporters over both transports."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import psutil
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from collectors import wire
from costapp.storage.facts import decode_facts
from tests.collectors.conftest import stored_count

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@pytest.fixture
def channel(collector):
    with grpc.insecure_channel(f"127.0.0.1:{collector.grpc_port}") as channel:
        yield channel


def request_of(number: int = 1) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(
        trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name="chat",
        start_time_unix_nano=time.time_ns(), end_time_unix_nano=time.time_ns() + 1000,
    )  # fmt: skip
    return request


@pytest.mark.parametrize("make_exporter", [
    lambda at, key: GrpcExporter(f"127.0.0.1:{at.grpc_port}", insecure=True, headers=(("x-api-key", key),)),
    lambda at, key: GrpcExporter(f"127.0.0.1:{at.grpc_port}", insecure=True, compression=grpc.Compression.Gzip,
                                 headers=(("authorization", f"Bearer {key}"),)),
    lambda at, key: HttpExporter(f"http://127.0.0.1:{at.http_port}/v1/traces", headers={"x-api-key": key}),
], ids=["grpc", "grpc gzip", "http"])  # fmt: skip
def test_a_real_sdk_exporter_is_understood(collector, key, conn, make_exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(make_exporter(collector, key)))
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "gen_ai.usage.input_tokens": 7}
    with provider.get_tracer("app", "1.0").start_as_current_span("chat gpt-4o", attributes=attributes):
        pass
    provider.shutdown()
    facts = decode_facts(conn.execute("select facts from span").fetchone()[0])
    assert (facts.name, facts.model_requested, facts.input, facts.scope) == ("chat gpt-4o", "gpt-4o", 7, "app")


def test_all_three_signals_are_offered(channel, key):
    metadata = (("x-api-key", key),)
    response = TraceServiceStub(channel).Export(ExportTraceServiceRequest(), metadata=metadata)
    assert not response.HasField("partial_success")
    MetricsServiceStub(channel).Export(ExportMetricsServiceRequest(), metadata=metadata)
    LogsServiceStub(channel).Export(ExportLogsServiceRequest(), metadata=metadata)


def test_bad_spans_are_counted_and_the_good_rest_is_stored(channel, key, conn):
    request = request_of()
    request.resource_spans[0].scope_spans[0].spans.add(trace_id=bytes(16), span_id=b"12345678")
    response = TraceServiceStub(channel).Export(request, metadata=(("x-api-key", key),))
    assert response.partial_success.rejected_spans == 1
    assert stored_count(conn) == 1


def error_of(channel, body: bytes, metadata, path: str = EXPORT) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(path)(body, metadata=metadata, timeout=10)
    return caught.value


def status_details(error: grpc.RpcError):
    found = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    return wire.Status.FromString(found) if found else None


def test_errors_have_the_codes_that_clients_act_on(channel, key):
    cases = [
        (b"\x0a\xff\xff", (("x-api-key", key),), EXPORT, grpc.StatusCode.INVALID_ARGUMENT),
        (b"", (), EXPORT, grpc.StatusCode.UNAUTHENTICATED),
        (b"", (("x-api-key", "wrong"),), EXPORT, grpc.StatusCode.UNAUTHENTICATED),
        (b"", (("x-api-key", key),), EXPORT.replace("Trace", "Profile"), grpc.StatusCode.UNIMPLEMENTED),
        (bytes(1024 * 1024 + 1), (("x-api-key", key),), EXPORT, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ]
    for body, metadata, path, code in cases:
        error = error_of(channel, body, metadata, path)
        assert error.code() is code, (code, error.details())
        details = status_details(error)
        assert details is None or not details.details, "only what may be retried carries RetryInfo"


def test_a_gzip_bomb_is_refused_without_retry_info(collector, key):
    bomb = bytes(8 * 1024 * 1024)
    with grpc.insecure_channel(f"127.0.0.1:{collector.grpc_port}", compression=grpc.Compression.Gzip) as channel:
        error = error_of(channel, bomb, (("x-api-key", key),))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status_details(error) is None


@contextmanager
def unfinished_call(channel, *messages: bytes, key: str) -> Iterator[grpc.Call]:
    """A call whose sender says no more than these messages, and does not end."""
    ended = threading.Event()

    def says() -> Iterator[bytes]:
        yield from messages
        ended.wait(20)

    try:
        yield channel.stream_unary(EXPORT).future(says(), metadata=(("x-api-key", key),), timeout=15)
    finally:
        ended.set()


def test_a_key_is_checked_before_the_message_is_sent(channel, key):
    with unfinished_call(channel, key="wrong") as call:
        assert call.exception().code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_message_that_does_not_come_is_waited_for_only_so_long(channel, key):
    with unfinished_call(channel, key=key) as call:
        assert call.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert call.exception().details() == "The message took too long to arrive."


def test_a_call_without_a_message_is_refused(channel, key):
    with pytest.raises(grpc.RpcError) as caught:
        channel.stream_unary(EXPORT)(iter(()), metadata=(("x-api-key", key),), timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_large_messages_of_unknown_senders_take_no_memory(collector):
    body = bytes(1024 * 1024)
    with grpc.insecure_channel(f"127.0.0.1:{collector.grpc_port}") as channel:
        error_of(channel, b"", (("x-api-key", "wrong"),))
        before = psutil.Process(collector.process.pid).memory_info().rss
        calls = [channel.unary_unary(EXPORT).future(body, metadata=(("x-api-key", "wrong"),)) for _ in range(100)]
        assert {call.exception().code() for call in calls} == {grpc.StatusCode.UNAUTHENTICATED}
        grown = psutil.Process(collector.process.pid).memory_info().rss - before
    assert grown < 40 * len(body), "100 messages of 1 MiB were sent at once"
