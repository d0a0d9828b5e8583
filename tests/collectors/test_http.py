"""The contract of OTLP/HTTP: who gets which answer, and what is stored."""

import base64
import gzip
import json
import socket
import time
import zlib

import pytest
import zstandard
from django.utils import timezone
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from benchmarks import traces as generated
from collectors import wire
from costapp.models import IngestKey
from costapp.storage.facts import decode_facts
from tests.collectors.conftest import Collector, gzipped, json_span, stored_count, traces

PROTOBUF = "application/x-protobuf"
BOMB_BYTES = 8 * 1024 * 1024  # the collector under test takes 1 MiB


def protobuf_request(number: int = 1) -> bytes:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = number.to_bytes(16, "big"), number.to_bytes(8, "big"), "chat"
    return request.SerializeToString()


def status_of(answer):
    """google.rpc.Status in the encoding the answer says it has."""
    if answer.headers["content-type"] == "application/json":
        return answer.json["code"], answer.json["message"]
    status = wire.Status.FromString(answer.body)
    return status.code, status.message


REFUSALS = {
    "broken body": ({"body": b"\x0a\xff\xff"}, 400, 3),
    "JSON that is no OTLP": ({"body": b"[]"}, 400, 3),
    "empty key": ({"x_api_key": ""}, 401, 16),
    "wrong key": ({"x_api_key": "ca_ing_wrong"}, 401, 16),
    "overlong key": ({"x_api_key": "k" * 5000}, 401, 16),
    "unknown path": ({"path": "/v1/nothing"}, 404, 5),
    "other content type": ({"content_type": "text/plain"}, 415, 3),
    "other encoding": ({"content_encoding": "br"}, 415, 3),
    "damaged gzip": ({"content_encoding": "gzip"}, 400, 3),
    "damaged zstd": ({"content_encoding": "zstd"}, 400, 3),
    "damaged deflate": ({"content_encoding": "deflate"}, 400, 3),
    "too large": ({"body": b" " * (1024 * 1024 + 1)}, 413, 8),
    "gzip bomb": ({"body": gzip.compress(bytes(BOMB_BYTES)), "content_encoding": "gzip"}, 413, 8),
    "deflate bomb": ({"body": zlib.compress(bytes(BOMB_BYTES)), "content_encoding": "deflate"}, 413, 8),
    "zstd bomb": ({"body": zstandard.compress(bytes(BOMB_BYTES)), "content_encoding": "zstd"}, 413, 8),
    "zstd bomb of unknown size": (
        {"body": zstandard.ZstdCompressor(write_content_size=False).compress(bytes(BOMB_BYTES)),
         "content_encoding": "zstd"},
        413, 8,
    ),
    "truncated gzip": ({"body": gzip.compress(b'{"resourceSpans":[]}')[:-9], "content_encoding": "gzip"}, 400, 3),
    "truncated zstd": ({"body": zstandard.compress(b"x" * 4000)[:-4], "content_encoding": "zstd"}, 400, 3),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["application/json", PROTOBUF])
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_has_its_status_and_a_helpful_message_in_the_encoding_of_the_request(collector, key, name, encoding):
    fields, http_status, code = REFUSALS[name]
    options = {"content_type": encoding, "body": b'{"a":}\xff', "x_api_key": key} | fields
    if fields.get("body") == b"[]" and encoding == PROTOBUF:
        pytest.skip("only wrong as JSON")
    answer = collector.post("", **options)
    assert answer.status == http_status, answer
    assert answer.headers["content-type"] == (PROTOBUF if options["content_type"] == PROTOBUF or "text" in
                                              options["content_type"] else encoding)  # fmt: skip
    found, message = status_of(answer)
    assert found == code
    assert len(message) > 20
    assert key not in message


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_other_methods_are_answered_405_with_the_allowed_one(collector, method):
    answer = collector.request(method, "/v1/traces")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_the_key_is_checked_before_anything_is_read(collector, conn):
    bomb = gzip.compress(bytes(BOMB_BYTES))
    assert collector.post("wrong", bomb, content_encoding="gzip").status == 401


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("application/json", b"{}"), ("application/json", b'{"resourceSpans":[]}'), (PROTOBUF, b""),
     ("application/json", b'{"resourceSpans":null}'), ("application/json", b'{"resourceSpans":[null,{}]}')],
)  # fmt: skip
def test_an_empty_request_is_a_success(collector, key, content_type, body):
    answer = collector.post(key, body, content_type=content_type)
    assert (answer.status, answer.body) == (200, b"{}" if "json" in content_type else b"")
    assert answer.headers["content-type"] == content_type


@pytest.mark.parametrize("content_type", ["Application/JSON; charset=utf-8", "APPLICATION/json"])
def test_case_and_parameters_of_the_media_type_do_not_matter(collector, key, conn, content_type):
    assert collector.post(key, traces(json_span()), content_type=content_type).status == 200
    assert stored_count(conn) == 1


ENCODERS = {
    "identity": bytes, "none": bytes, "": bytes, "GZIP": gzip.compress, "x-gzip": gzip.compress,
    "deflate": zlib.compress, "zstd": zstandard.compress,
}  # fmt: skip


@pytest.mark.parametrize("coding", ENCODERS)
def test_every_content_encoding_is_understood(collector, key, conn, coding):
    body = ENCODERS[coding](json.dumps(traces(json_span())).encode())
    assert collector.post(key, body, content_encoding=coding).status == 200
    assert stored_count(conn) == 1


def test_gzip_of_several_members_is_read_to_its_end(collector, key, conn):
    text = json.dumps(traces(json_span())).encode()
    body = gzip.compress(text[:50]) + gzip.compress(text[50:])
    assert collector.post(key, body, content_encoding="gzip").status == 200
    assert stored_count(conn) == 1


def test_zstd_of_several_frames_and_raw_deflate_are_read_to_their_end(collector, key, conn):
    text = json.dumps(traces(json_span())).encode()
    frames = zstandard.compress(text[:50]) + zstandard.compress(text[50:])
    assert collector.post(key, frames, content_encoding="zstd").status == 200
    raw = zlib.compressobj(wbits=-15)
    body = raw.compress(json.dumps(traces(json_span(2))).encode()) + raw.flush()
    assert collector.post(key, body, content_encoding="deflate").status == 200
    assert stored_count(conn) == 2


def test_a_chunked_body_is_read_to_its_end(collector, key, conn):
    text = json.dumps(traces(json_span())).encode()
    headers = {"content-type": "application/json", "x-api-key": key}
    chunks = (text[at : at + 10] for at in range(0, len(text), 10))
    answer = collector.request("POST", "/v1/traces", chunks, headers, encode_chunked=True)
    assert (answer.status, stored_count(conn)) == (200, 1)


def test_a_chunked_body_over_the_limit_is_refused(collector, key):
    headers = {"content-type": "application/json", "x-api-key": key}
    chunks = (bytes(64 * 1024) for _ in range(17))
    try:
        answer = collector.request("POST", "/v1/traces", chunks, headers, encode_chunked=True)
    except ConnectionError:  # refused while the client was still sending
        return
    assert answer.status == 413


def test_expect_100_continue_is_answered(collector, key):
    body = json.dumps(traces(json_span())).encode()
    with socket.create_connection(("127.0.0.1", collector.http_port), timeout=5) as client:
        client.sendall((f"POST /v1/traces HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n"
                        f"expect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n").encode())  # fmt: skip
        assert b"100 Continue" in client.recv(200)
        client.sendall(body)
        assert b"200 OK" in client.recv(2000)


def test_a_connection_can_be_used_again_after_an_error_answer(collector, key):
    with socket.create_connection(("127.0.0.1", collector.http_port), timeout=5) as client:
        for body, expected in ((b"{", b" 400 "), (b"{}", b" 200 ")):
            head = f"POST /v1/traces HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n"
            client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            assert expected in client.recv(4000)


def test_clients_that_vanish_in_the_middle_of_a_body_leave_nothing_behind(collector, key, conn):
    for _ in range(5):
        client = socket.create_connection(("127.0.0.1", collector.http_port))
        client.sendall(f"POST /v1/traces HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: {PROTOBUF}\r\n"
                       "content-length: 500000\r\n\r\nabc".encode())  # fmt: skip
        client.close()
    assert collector.post(key, traces(json_span())).status == 200
    assert stored_count(conn) == 1


def test_a_body_that_does_not_arrive_in_time_is_given_up(collector, key):
    with socket.create_connection(("127.0.0.1", collector.http_port), timeout=10) as client:
        client.sendall(f"POST /v1/traces HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: {PROTOBUF}\r\n"
                       "content-length: 500000\r\n\r\nabc".encode())  # fmt: skip
        assert b" 408 " in client.recv(2000)
    assert collector.counter("memory_bytes") == 0


def test_bad_spans_are_counted_exactly_and_the_good_rest_is_stored(collector, key, conn, project):
    bad = [json_span(2, traceId="abc"), json_span(3, spanId=""), json_span(4, traceId="0" * 32)]
    answer = collector.post(key, traces(json_span(1), *bad, json_span(5)))
    assert answer.status == 200
    partial = answer.json["partialSuccess"]
    assert partial["rejectedSpans"] == "3"
    assert "2 x invalid_trace_id (trace_id must be 16 bytes" in partial["errorMessage"]
    assert stored_count(conn) == 2
    row = conn.execute("select received, stored, rejected, reasons from ingest_log").fetchone()
    assert row == (5, 2, 3, {"invalid_trace_id": 2, "invalid_span_id": 1})


def test_partial_success_in_protobuf_is_the_official_message(collector, key):
    request = ExportTraceServiceRequest.FromString(protobuf_request())
    request.resource_spans[0].scope_spans[0].spans.add(trace_id=b"short", span_id=bytes(8))
    answer = collector.post(key, request.SerializeToString(), content_type=PROTOBUF)
    response = ExportTraceServiceResponse.FromString(answer.body)
    assert response.partial_success.rejected_spans == 1
    assert "invalid_trace_id" in response.partial_success.error_message


def test_spans_over_the_limit_are_rejected_and_counted(collector, key, conn):
    answer = collector.post(key, traces(*(json_span(n, attributes=[]) for n in range(1, 3003))))
    assert answer.json["partialSuccess"]["rejectedSpans"] == "2"
    assert stored_count(conn) == 3000


def test_every_way_to_send_a_key_works(collector, key):
    basic = base64.b64encode(f"pk-lf-x:{key}".encode()).decode()
    for headers in ({"x-api-key": key}, {"Authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key}"},
                    {"authorization": f"Basic {basic}"}):  # fmt: skip
        answer = collector.request("POST", "/v1/traces", b"{}", {"content-type": "application/json"} | headers)
        assert answer.status == 200, headers


@pytest.mark.parametrize(("field", "reason"), [("revoked_at", "revoked"), ("expires_at", "expired")])
def test_a_key_that_may_not_be_used_is_refused_with_403(collector, key, field, reason):
    IngestKey.objects.update(**{field: timezone.now()})
    answer = collector.post(key, {})
    assert answer.status == 403
    assert reason in answer.json["message"]


def test_revoking_a_key_works_within_seconds(collector, key):
    assert collector.post(key, {}).status == 200
    IngestKey.objects.update(revoked_at=timezone.now())
    for _ in range(100):
        if collector.post(key, {}).status == 403:
            return
        time.sleep(0.05)
    pytest.fail("the revoked key still works after 5 s")


def test_the_paths_of_langfuse_sdks_work_and_scores_are_answered_in_words(collector, key, conn):
    assert collector.post(key, traces(json_span()), path="/api/public/otel/v1/traces").status == 200
    assert stored_count(conn) == 1
    answer = collector.post(key, {"name": "good"}, path="/api/public/scores")
    assert answer.status == 404
    assert "Scores are not collected" in answer.json["message"]


def test_health_readiness_and_metrics_need_no_key(collector):
    assert collector.request("GET", "/healthz").status == 200
    assert collector.request("GET", "/readyz").status == 200
    assert b"costapp_collector_requests_total" in collector.request("GET", "/metrics").body


def test_both_encodings_of_the_same_spans_are_stored_as_the_same_rows(collector, key, conn):
    request = next(generated.requests(spans=64, seed=5))
    assert collector.post(key, request.SerializeToString(), content_type=PROTOBUF).status == 200
    assert stored_count(conn) == 64
    answer = collector.post(key, gzipped(generated.as_json(request)), content_encoding="gzip")
    assert (answer.status, answer.body) == (200, b"{}")
    row = conn.execute("select stored, duplicates, reasons from ingest_log order by at desc limit 1").fetchone()
    assert row == (0, 64, None)  # no conflict: the stored facts are equal


def test_the_facts_of_a_span_are_those_that_were_sent(collector, key, conn, project):
    fields = {"parentSpanId": "00000000000000FF", "status": {"code": 2}, "kind": "SPAN_KIND_CLIENT", "unknown": [1]}
    span = json_span(7, **fields)
    assert collector.post(key, traces(span)).status == 200
    project_id, parent_id, facts = conn.execute("select project_id, parent_id, facts from span").fetchone()
    stored = decode_facts(facts)
    assert (project_id, parent_id) == (project.pk, 255)
    assert (stored.name, stored.duration_us, stored.status, stored.kind) == ("chat gpt-4o", 1_500_000, 2, 3)
    assert (stored.operation, stored.input) == ("chat", 12)


def test_an_idle_connection_is_closed_after_the_time_to_send_a_head(database_url):
    collector = Collector(database_url, COSTAPP_HEADER_TIMEOUT="1")
    try:
        with socket.create_connection(("127.0.0.1", collector.http_port), timeout=10) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            assert connection.recv(1000) == b"", "closed by the collector"
    finally:
        collector.stop()
