"""Replay against a real collector and the real pipeline: what goes in comes out, in any order, any number of times."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command

from costapp.models import IngestKey, Project
from costapp.services.drain import drain
from costapp.services.replay import NotUnderstoodInTime, Order, replay
from costapp.services.replay.recording import Body, Recording, load
from costapp.services.replay.send import GrpcSender, HttpSender, Outcome, Sender, SendError
from tests import pipeline
from tests.collectors.conftest import Collector, collector, database_url, free_port

__all__ = ["collector", "database_url"]  # fixtures

pytestmark = pytest.mark.django_db(transaction=True)
CAPTURES = Path(__file__).parents[1] / "data/captures"
Connection = psycopg.Connection[Any]
IN_ORDER = Order()
RECORDED_BY_US = CAPTURES.with_name("recordings")
RECORDED = {recording.id: recording for recording in load(CAPTURES)}
# Protobuf and JSON, several services in one trace, failures, twins in different traces, events outside any trace.
CHOSEN = (
    "otel-genai__plain",
    "otel-genai__two-services-root-only",
    "otel-js-openai__mixed",
    "otel-genai__error",
    "traceloop-sdk__workflow",
    "dual-openllmetry-otel__stream",
    "claude-code__plain",
    "codex-cli__plain",
)


@pytest.fixture
def conn(transactional_db: None) -> Iterator[Connection]:
    with pipeline.open_connection() as connection:
        pipeline.empty(connection)
        yield connection


@pytest.fixture
def project(conn: Connection) -> Project:
    return Project.objects.create(slug="p", name="P")


@pytest.fixture
def key(project: Project) -> str:
    return IngestKey.issue(project, "test")[1]


@pytest.fixture
def sender(collector: Collector, key: str) -> Iterator[HttpSender]:
    with closing(HttpSender(f"http://127.0.0.1:{collector.http_port}", key, patience_s=5)) as http:
        yield http


@pytest.fixture(scope="module")
def chosen() -> list[Recording]:
    return [RECORDED[name] for name in CHOSEN]


class DrainingSender:
    """Stands in for a worker: the pipeline has run when the last body is sent."""

    def __init__(self, sender: Sender, conn: Connection) -> None:
        self._sender, self._conn = sender, conn

    def send(self, body: Body, data: bytes) -> Outcome:
        outcome = self._sender.send(body, data)
        drain(self._conn)
        return outcome

    def close(self) -> None:
        self._sender.close()


def replayed(
    conn: Connection, recordings: list[Recording], sender: Sender, project: Project, *, keep_ids: bool = False,
    order: Order = IN_ORDER,
) -> dict[str, Any]:  # fmt: skip
    return replay(
        conn, recordings, DrainingSender(sender, conn), project_id=project.pk, order=order, keep_ids=keep_ids, wait_s=5
    )


def test_recordings_are_understood_as_their_manifest_says(
    conn: Connection, sender: HttpSender, project: Project
) -> None:
    report = replayed(conn, list(RECORDED.values()), sender, project)
    assert {one["id"]: one["differences"] for one in report["recordings"]} == {name: [] for name in RECORDED}
    assert (report["totals"]["calls_seen"], report["totals"]["failed_seen"]) == (120, 16)
    first = report["recordings"][0]["calls"][0]
    assert (first["feature"], first["user"], first["session"]) == ("search-answers", "u-1001", "s-aaa1")
    assert first["meters"] == {"input": 138, "output": 54}


def test_our_own_recordings_shuffled_are_understood_as_their_manifest_says(
    conn: Connection, sender: HttpSender, project: Project
) -> None:
    ours = load(RECORDED_BY_US)
    report = replayed(conn, ours, sender, project, order=Order(shuffle=5))
    assert {one["id"]: one["differences"] for one in report["recordings"]} == {one.id: [] for one in ours}


@pytest.mark.parametrize(
    "order", [Order(repeat=2), Order(reverse=True), Order(shuffle=3), Order(repeat=3, reverse=True, shuffle=9)], ids=str
)
def test_order_and_repetition_change_nothing(
    conn: Connection, sender: HttpSender, project: Project, chosen: list[Recording], order: Order
) -> None:
    report = replayed(conn, chosen, sender, project, order=order)
    assert [one["differences"] for one in report["recordings"]] == [[]] * len(CHOSEN)


def test_the_same_recordings_again_are_new_calls_unless_ids_are_kept(
    conn: Connection, sender: HttpSender, project: Project, chosen: list[Recording]
) -> None:

    def stored() -> int:
        row = conn.execute("select count(*) from charge").fetchone()
        assert row
        return int(row[0])

    replayed(conn, chosen, sender, project)
    once = stored()
    replayed(conn, chosen, sender, project)
    assert stored() == 2 * once
    for _ in range(2):
        report = replayed(conn, chosen, sender, project, keep_ids=True)
        assert [one["differences"] for one in report["recordings"]] == [[]] * len(CHOSEN)
        assert stored() == 3 * once


def test_grpc_carries_the_same_also_what_was_recorded_as_json(
    conn: Connection, collector: Collector, project: Project, key: str, chosen: list[Recording]
) -> None:
    with closing(GrpcSender(f"127.0.0.1:{collector.grpc_port}", key, patience_s=5)) as sender:
        report = replayed(conn, chosen, sender, project)
    assert [one["differences"] for one in report["recordings"]] == [[]] * len(CHOSEN)


def test_without_a_worker_replay_says_that_nothing_is_attributed(
    conn: Connection, sender: HttpSender, project: Project, chosen: list[Recording]
) -> None:
    with pytest.raises(NotUnderstoodInTime, match="Is a worker running"):
        replay(conn, chosen, sender, project_id=project.pk, order=Order(), keep_ids=False, wait_s=0.1)


def test_a_body_that_the_collector_rejects_is_reported_with_its_words(
    conn: Connection, sender: HttpSender, project: Project
) -> None:
    broken = Recording("broken", [Body("bad.bin", "traces", "/v1/traces", "application/json", "identity", b"{")], {})
    report = replayed(conn, [broken], sender, project)
    (remark,) = report["recordings"][0]["remarks"]
    assert remark.startswith("bad.bin: 400 ")
    assert len(remark) > len("bad.bin: 400 ")


def test_a_collector_that_stays_busy_ends_the_replay_with_its_words() -> None:
    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            words = b'{"message": "The database is away."}'
            self.send_response(503)
            self.send_header("content-length", str(len(words)))
            self.send_header("retry-after", "30")
            self.end_headers()
            self.wfile.write(words)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    body = Body("f", "traces", "/v1/traces", "application/json", "identity", b"{}")
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        http = HttpSender(f"http://127.0.0.1:{server.server_port}", "k", patience_s=0.2)
        with closing(http) as sender, pytest.raises(SendError, match=r"stays busy \(503\): The database is away"):
            sender.send(body, body.data)
        server.shutdown()


def run_command(*arguments: str) -> str:
    out = StringIO()
    call_command("replay", str(CAPTURES), *arguments, stdout=out)
    return out.getvalue()


def test_the_command_refuses_in_sentences(collector: Collector, key: str) -> None:
    with pytest.raises(CommandError, match="key is refused"):
        run_command("--key", "ca_ing_wrong", "--http", f"http://127.0.0.1:{collector.http_port}")
    with pytest.raises(CommandError, match="No collector answers at http://127"):
        run_command("--key", key, "--http", f"http://127.0.0.1:{free_port()}", "--wait", "0")
    with pytest.raises(CommandError, match="No collector answers at 127"):
        run_command("--key", key, "--grpc", "--grpc-endpoint", f"127.0.0.1:{free_port()}", "--wait", "0")
    with pytest.raises(CommandError, match="not an http address"):
        run_command("--key", key, "--http", "ftp://example.com")
    with pytest.raises(CommandError, match="at least 1"):
        run_command("--key", key, "--repeat", "0")
    IngestKey.objects.update(revoked_at="2026-01-01T00:00:00Z")
    with pytest.raises(CommandError, match="revoked"):
        run_command("--key", key)


def test_json_output_has_the_manifests_keys(collector: Collector, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django.conf.settings.DATABASE_URL", database_of_test())
    http = f"http://127.0.0.1:{collector.http_port}"
    report = json.loads(
        run_command("--key", key, "--http", http, "--json", "--only", "otel-genai__plain", "--wait", "0")
    )
    (recording,) = report["recordings"]
    expected = (
        "calls_seen",
        "failed_seen",
        "usage_unknown",
        "input_total",
        "cache_read",
        "cache_write",
        "output_total",
    )
    assert set(expected) <= set(recording)
    assert set(report["totals"]) == {*expected, "reasoning", "cost_nano", "unpriced"}


def database_of_test() -> str:
    with pipeline.open_connection() as connection:
        return f"{connection.info.dsn} password={connection.info.password}"
