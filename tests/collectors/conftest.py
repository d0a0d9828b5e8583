"""A real collector process against the test database, and small clients that send what SDKs never would."""

import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import psycopg
import pytest
from django.conf import settings
from django.db import connections
from psycopg.conninfo import make_conninfo

from costapp.models import IngestKey, Project

LIMITS = {
    "COSTAPP_MAX_BODY_BYTES": str(1024 * 1024),
    "COSTAPP_MAX_SPANS_PER_REQUEST": "3000",
    "COSTAPP_BODY_TIMEOUT": "2",
    "COSTAPP_KEY_CACHE_SECONDS": "1",
    "COSTAPP_AUTH_FAILURES_PER_MINUTE": "0",
}
EMPTIED = (
    "span, span_content, dirty_trace, ingest_log, metric_point, gpu_device, gpu_place, gpu_sample, gpu_gap,"
    " engine_seen, engine_sample, dirty_gpu_hour"
)


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Collector:
    """`python -m collectors` on free ports."""

    def __init__(self, database_url: str, **environment: str) -> None:
        self.http_port, self.grpc_port = free_port(), free_port()
        self.environment = os.environ | LIMITS | environment | {
            "DATABASE_URL": database_url,
            "COSTAPP_OTLP_HTTP_PORT": str(self.http_port),
            "COSTAPP_OTLP_GRPC_PORT": str(self.grpc_port),
        }  # fmt: skip
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "collectors"], env=self.environment, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 20
        while not (self._open(self.http_port) and self._open(self.grpc_port)):
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline, "the collector does not listen"
            time.sleep(0.02)

    @staticmethod
    def _open(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self) -> tuple[int, str]:
        """Ask it to stop; its exit code and log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=20)
        return self.process.returncode, log

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None,
                **options: Any) -> Answer:  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=15)
        try:
            connection.request(method, path, body, dict(headers or {}), **options)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, key: str, body: Any, *, path: str = "/v1/traces", content_type: str = "application/json",
             **headers: str) -> Answer:  # fmt: skip
        """POST with a key; a dict is sent as JSON. Header names are given with underscores."""
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", path, data, {"content-type": content_type, "x-api-key": key} | named)

    def counter(self, name: str) -> int:
        """The sum of a counter's series whose text starts so, for example rejected_total{reason="x"}."""
        lines = self.request("GET", "/metrics").body.decode().splitlines()
        return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith(f"costapp_collector_{name}"))


@pytest.fixture(scope="module")
def database_url(django_db_setup: None) -> str:
    return make_conninfo(settings.DATABASE_URL, dbname=connections["default"].settings_dict["NAME"])


@pytest.fixture(scope="module")
def collector(database_url: str) -> Iterator[Collector]:
    process = Collector(database_url)
    yield process
    code, log = process.stop()
    assert code == 0, log
    assert "Traceback" not in log, log


@pytest.fixture
def conn(transactional_db: None, database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the test database, whose data plane is empty before and afterwards."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"truncate {EMPTIED}")
        yield connection
        connection.execute(f"truncate {EMPTIED}")


@pytest.fixture
def project(conn: psycopg.Connection[Any]) -> Project:
    return Project.objects.create(slug="p", name="P")


@pytest.fixture
def key(project: Project) -> str:
    return IngestKey.issue(project, "test")[1]


def json_span(number: int = 1, **fields: Any) -> dict[str, Any]:
    """A model call that started a minute ago, whose ids come from the number."""
    start_ns = (int(time.time()) - 60) * 1_000_000_000
    return {
        "traceId": f"{number:032x}",
        "spanId": f"{number:016x}",
        "name": "chat gpt-4o",
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + 1_500_000_000),
        "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "12"}},
        ],
    } | fields


def traces(*spans: Any) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def gzipped(body: Any) -> bytes:
    return gzip.compress(json.dumps(body).encode() if isinstance(body, dict) else body)


def stored_count(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("select count(*) from span").fetchone()
    assert row
    return int(row[0])
