"""Acknowledged means stored: killed collectors, a database that goes away, duplicates from several senders."""

import concurrent.futures
import random
import subprocess
import sys
import threading
import time

import grpc
import psycopg
import pytest

from benchmarks import traces as generated
from collectors import wire
from tests.collectors.conftest import Collector, json_span, stored_count, traces

PROTOBUF = "application/x-protobuf"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@pytest.fixture
def own_collector(database_url):
    """One that a test may kill."""
    process = Collector(database_url)
    yield process
    process.kill()


def test_nothing_acknowledged_is_lost_when_the_collector_is_killed_and_resending_stores_nothing_twice(
    own_collector, key, conn
):
    bodies = [request.SerializeToString() for request in generated.requests(spans=64 * 200, per_request=64, seed=3)]
    acknowledged: set[int] = set()
    todo = iter(range(len(bodies)))

    def send() -> None:
        for number in todo:
            try:
                answer = own_collector.post(key, bodies[number], content_type=PROTOBUF)
            except OSError:
                continue
            if answer.status == 200:
                acknowledged.add(number)
            if len(acknowledged) > 40:
                own_collector.process.kill()

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    own_collector.kill()
    assert 40 < len(acknowledged) < len(bodies)
    assert _stored_traces(conn) >= {trace for number in acknowledged for trace in _traces(bodies[number])}
    own_collector.start()
    for body in bodies:
        assert own_collector.post(key, body, content_type=PROTOBUF).status == 200
    assert stored_count(conn) == 64 * len(bodies)
    assert conn.execute("select sum(stored) from ingest_log").fetchone() == (64 * len(bodies),)


def _traces(body: bytes) -> set[bytes]:
    request = wire.REQUESTS["traces"].FromString(body)
    spans = (span for group in request.resources for scope in group.scopes for span in scope.items)
    return {wire.Span.FromString(span).trace_id for span in spans}


def _stored_traces(conn) -> set[bytes]:
    return {trace_id.bytes for (trace_id,) in conn.execute("select distinct trace_id from span")}


def test_senders_with_the_same_spans_in_different_order_are_all_served_and_each_span_is_stored_once(
    own_collector, key, conn
):
    spans = [json_span(number, attributes=[]) for number in range(1, 401)]

    def send(seed: int) -> int:
        dice = random.Random(seed)
        shuffled = dice.sample(spans, len(spans))
        parts = [shuffled[at : at + 100] for at in range(0, len(shuffled), 100)]
        return max(own_collector.post(key, traces(*part)).status for part in parts)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(send, range(16))) == {200}
    assert stored_count(conn) == 400
    assert own_collector.counter('write_errors_total{kind="DeadlockDetected"}') == 0
    received, stored, duplicates = conn.execute(
        "select sum(received), sum(stored), sum(duplicates) from ingest_log"
    ).fetchone()
    assert (received, stored, duplicates) == (6400, 400, 6000)


def test_only_new_spans_mark_their_trace_dirty(collector, key, conn):
    collector.post(key, traces(json_span(1), json_span(2)))
    conn.execute("truncate dirty_trace")
    collector.post(key, traces(json_span(2), json_span(3)))
    assert [t.int for (t,) in conn.execute("select trace_id from dirty_trace")] == [3]


def test_a_span_that_comes_more_than_an_hour_after_it_started_is_counted(collector, key, conn):
    two_hours_ago_ns = (int(time.time()) - 7200) * 1_000_000_000
    late = json_span(2, startTimeUnixNano=str(two_hours_ago_ns), endTimeUnixNano=str(two_hours_ago_ns + 1))
    collector.post(key, traces(json_span(1), late, json_span(3)))
    row = conn.execute("select stored, rejected, reasons from ingest_log order by at desc limit 1").fetchone()
    assert row == (3, 0, {"arrived_late": 1})


def test_a_span_sent_again_with_other_content_keeps_its_first_content_and_is_counted(collector, key, conn):
    collector.post(key, traces(json_span(1)))
    before = collector.counter("conflicts_total")
    collector.post(key, traces(json_span(1, name="other")))
    assert collector.counter("conflicts_total") == before + 1
    assert conn.execute("select reasons from ingest_log order by at desc limit 1").fetchone() == ({"conflict": 1},)


def test_while_the_database_is_away_senders_are_told_to_retry_and_afterwards_all_is_well(
    own_collector, key, conn, database_url
):
    assert own_collector.post(key, traces(json_span(1))).status == 200
    name = conn.info.dbname
    with psycopg.connect(database_url, dbname="postgres", autocommit=True) as admin:
        try:
            admin.execute(f'alter database "{name}" allow_connections false')
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = %s and application_name like %s",
                (name, "costapp collector%"),
            )
            answer = own_collector.post(key, traces(json_span(2)))
            assert (answer.status, answer.json["code"]) == (503, 14)
            assert int(answer.headers["retry-after"]) >= 1
            assert own_collector.request("GET", "/readyz").status == 503
            assert own_collector.request("GET", "/healthz").status == 200
            _grpc_is_unavailable_with_retry_info(own_collector, key)
        finally:
            admin.execute(f'alter database "{name}" allow_connections true')
    deadline = time.monotonic() + 15
    while own_collector.post(key, traces(json_span(2))).status != 200:
        assert time.monotonic() < deadline, "it does not recover"
        time.sleep(0.05)
    assert stored_count(conn) == 2


def _grpc_is_unavailable_with_retry_info(collector, key):
    with grpc.insecure_channel(f"127.0.0.1:{collector.grpc_port}") as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(EXPORT)(b"", metadata=(("x-api-key", key),), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    details = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    assert wire.Status.FromString(details).details[0].type_url.endswith("RetryInfo")


def test_connections_that_were_cut_while_idle_cost_no_request(own_collector, key, conn):
    assert own_collector.post(key, traces(json_span(1))).status == 200
    conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'costapp collector'")
    statuses = [own_collector.post(key, traces(json_span(number))).status for number in range(2, 12)]
    assert statuses == [200] * 10


def test_a_stopped_collector_answers_what_is_in_flight_and_ends_with_code_0(database_url, key, conn):
    process = Collector(database_url)
    bodies = [request.SerializeToString() for request in generated.requests(spans=512 * 40, seed=8)]
    statuses: list[int] = []

    def send() -> None:
        while bodies:
            try:
                statuses.append(process.post(key, bodies.pop(), content_type=PROTOBUF).status)
            except OSError:
                return

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    while len(statuses) < 8:
        time.sleep(0.005)
    code, log = process.stop()
    for sender in senders:
        sender.join()
    assert (code, set(statuses) <= {200, 503}) == (0, True), log
    assert stored_count(conn) == 512 * statuses.count(200)


def test_a_taken_port_is_one_clear_sentence_and_a_failure(own_collector):
    command = [sys.executable, "-m", "collectors"]
    ended = subprocess.run(command, env=own_collector.environment, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert f"127.0.0.1:{own_collector.http_port}: the port is taken" in ended.stderr


def test_two_processes_share_the_ports_and_end_together(database_url, key, conn):
    process = Collector(database_url, COSTAPP_COLLECTOR_PROCESSES="2")
    try:
        answers = {process.post(key, traces(json_span(number))).status for number in range(1, 21)}
    finally:
        code, log = process.stop()
    assert (answers, code) == ({200}, 0), log
    assert "Traceback" not in log
    assert stored_count(conn) == 20
