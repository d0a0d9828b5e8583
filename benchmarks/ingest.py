"""Ingest: how many spans per second are stored, de-duplicated and answered after COMMIT.

    python -m benchmarks.ingest [--spans 102400] [--rounds 3]

Starts a collector of its own on free ports against DATABASE_URL (migrated), in a project made for the run
and removed afterwards. The yardstick is a raw binary COPY of the very same rows into the same table in the same
run: ratios mean something on a busy machine, absolute numbers do not.
"""

import argparse
import asyncio
import gzip
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import django
import grpc
import psutil
import psycopg

from benchmarks import traces
from collectors.batch import TRACES, Batch
from collectors.decode import make_decoder
from collectors.dialects import Recogniser
from collectors.settings import Settings
from costapp.storage import spans as stored

CONNECTIONS = 8
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
Connection = psycopg.Connection[Any]


class Server:
    """A collector process and what it and PostgreSQL spend."""

    def __init__(self, database_url: str, processes: int) -> None:
        self.http_port, self.grpc_port = free_port(), free_port()
        environment = os.environ | {
            "DATABASE_URL": database_url,
            "COSTAPP_COLLECTOR_PROCESSES": str(processes),
            "COSTAPP_OTLP_HTTP_PORT": str(self.http_port),
            "COSTAPP_OTLP_GRPC_PORT": str(self.grpc_port),
        }
        command = [sys.executable, "-m", "collectors"]
        self.process = psutil.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        wait_for_port(self.http_port)
        wait_for_port(self.grpc_port)
        time.sleep(processes - 1)  # for those that share the port
        self._own = [self.process, *self.process.children(recursive=True)]

    def cpu_seconds(self, connection: Connection) -> tuple[float, float]:
        """Of the collector, and of the PostgreSQL backends that serve this database (0 if it is not local)."""
        own = [process.cpu_times() for process in self._own]
        query = "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        backends = [psutil.Process(pid).cpu_times() for (pid,) in connection.execute(query) if psutil.pid_exists(pid)]
        return _total(own), _total(backends)

    def rss_mib(self) -> float:
        """Of the largest process."""
        return float(max(process.memory_info().rss for process in self._own)) / 2**20

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def _total(times: Sequence[Any]) -> float:
    return float(sum(time.user + time.system for time in times))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("The collector did not start; is DATABASE_URL right and migrated?")


async def send_http(port: int, key: str, bodies: Sequence[bytes], headers: str) -> None:
    todo = iter(bodies)

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in todo:
            head = f"POST /v1/traces HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n{headers}"
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in answer[:20]:
                raise SystemExit(answer.decode())
            length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))


async def send_grpc(port: int, key: str, bodies: Sequence[bytes]) -> None:
    todo = iter(bodies)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(EXPORT)

        async def stream() -> None:
            for body in todo:
                await call(body, metadata=(("x-api-key", key),))

        await asyncio.gather(*(stream() for _ in range(CONNECTIONS)))


PROTOBUF = "content-type: application/x-protobuf\r\n"
GZIP = PROTOBUF + "content-encoding: gzip\r\n"
JSON = "content-type: application/json\r\n"


def decode_rows(project_id: int, bodies: Sequence[bytes], *, is_json: bool) -> tuple[list[bytes], float]:
    """The rows of these bodies and the CPU seconds that decoding them took."""
    decoder = make_decoder(Recogniser({}, hash_secret=bytes(32)), Settings(), is_json=is_json)
    batch = Batch(project_id, 1, TRACES, "http", 0)
    started = time.process_time()
    for body in bodies:
        for _ in decoder.decode(body, batch):
            pass
    return batch.rows, time.process_time() - started


def raw_copy(connection: Connection, rows: list[bytes], batch: int) -> float:
    """Seconds to COPY and commit the rows, `batch` at a time and in key order."""
    started = time.perf_counter()
    for first in range(0, len(rows), batch):
        stored.copy_rows(connection, stored.COPY_SPANS, sorted(rows[first : first + batch]))
    return time.perf_counter() - started


@contextmanager
def bench_project() -> Iterator[tuple[int, str]]:
    """A project of its own and a key; project and spans are removed afterwards."""
    from django.db import connection

    from costapp.models import IngestKey, Project

    project = Project.objects.create(slug=f"bench-{os.getpid()}-{time.time_ns()}", name="Ingest benchmark")
    try:
        yield project.pk, IngestKey.issue(project, "bench")[1]
    finally:
        with connection.cursor() as cursor:
            for table in ("span", "dirty_trace", "ingest_log"):
                cursor.execute(f"delete from {table} where project_id = %s", [project.pk])
        project.delete()


class Bench:
    def __init__(
        self, server: Server, pair: Server, connection: Connection, *, project_id: int, key: str, spans: int
    ) -> None:
        self.server, self.pair, self.connection = server, pair, connection
        self.project_id, self.key, self.spans = project_id, key, spans
        self._seed = time.time_ns()

    def fresh(self) -> list[Any]:
        self._seed += 1
        return list(traces.requests(spans=self.spans, seed=self._seed))

    def _protobuf(self) -> list[bytes]:
        return [request.SerializeToString() for request in self.fresh()]

    def _zipped(self) -> list[bytes]:
        return [gzip.compress(body, 6) for body in self._protobuf()]

    def measure(
        self, name: str, send: Callable[[list[bytes]], Awaitable[None]], bodies: list[bytes], server: Server
    ) -> float:
        """Spans per second; prints the CPU and checks that all is stored."""
        before = self._stored()
        collector, postgres = server.cpu_seconds(self.connection)
        started = time.perf_counter()
        asyncio.run(send(bodies))  # type: ignore[arg-type]
        seconds = time.perf_counter() - started
        collector_after, postgres_after = server.cpu_seconds(self.connection)
        if self._stored() - before != self.spans:
            raise SystemExit(f"{name}: {self._stored() - before} of {self.spans} spans are stored")
        scale = 100_000 / self.spans
        print(f"    {name:<22}{self.spans / seconds:>9,.0f} spans/s   CPU per 100k spans: collector "
              f"{(collector_after - collector) * scale:.2f} s + PostgreSQL {(postgres_after - postgres) * scale:.2f} s"
              f"   RSS {server.rss_mib():.0f} MiB")  # fmt: skip
        return self.spans / seconds

    def _stored(self) -> int:
        row = self.connection.execute("select count(*) from span where project_id = %s", (self.project_id,)).fetchone()
        assert row
        return int(row[0])

    def one_round(self) -> dict[str, float]:
        one, two, key = self.server, self.pair, self.key
        plain = [request.SerializeToString() for request in self.fresh()]
        json_bodies = [traces.as_json(request) for request in self.fresh()]
        rates = {}
        for name, batch in (("raw COPY, 512 rows", 512), ("raw COPY, 8192 rows", 8192)):
            rows, _ = decode_rows(self.project_id, self._protobuf(), is_json=False)
            rates[name] = len(rows) / raw_copy(self.connection, rows, batch)
            print(f"    {name:<22}{rates[name]:>9,.0f} rows/s")
        for name, send, bodies, server in (
            ("HTTP protobuf", lambda b: send_http(one.http_port, key, b, PROTOBUF), plain, one),
            ("gRPC", lambda b: send_grpc(one.grpc_port, key, b), self._protobuf(), one),
            ("HTTP JSON", lambda b: send_http(one.http_port, key, b, JSON), json_bodies, one),
            ("HTTP gzip", lambda b: send_http(one.http_port, key, b, GZIP), self._zipped(), one),
            ("HTTP, two processes", lambda b: send_http(two.http_port, key, b, PROTOBUF), self._protobuf(), two),
        ):
            rates[name] = self.measure(name, send, bodies, server)
        for name, bodies, is_json in (("decode protobuf", plain, False), ("decode JSON", json_bodies, True)):
            rows, seconds = decode_rows(self.project_id, bodies, is_json=is_json)
            rates[name] = len(rows) / seconds
        return rates


def bytes_per_span(connection: Connection, project_id: int) -> float:
    """Of a table of its own with the indexes of `span`, filled in arrival order."""
    with connection.transaction(force_rollback=True):
        connection.execute("create table span_size (like span including all)")
        statement = "insert into span_size select * from span where project_id = %s"
        rows = connection.execute(statement, (project_id,)).rowcount
        size = connection.execute("select pg_total_relation_size('span_size')").fetchone()
        assert size
        return float(size[0]) / rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--spans", type=int, default=102_400, help="per measurement, a multiple of 512")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "costapp.settings")
    django.setup()
    from django.conf import settings

    url = settings.DATABASE_URL
    print(f"Ingest: {options.spans} spans per measurement, 512 per request, {CONNECTIONS} connections, "
          f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    with (
        Server(url, 1) as server,
        Server(url, 2) as pair,
        psycopg.connect(url, autocommit=True) as connection,
        bench_project() as (project_id, key),
    ):
        bench = Bench(server, pair, connection, project_id=project_id, key=key, spans=options.spans)
        rounds = []
        for number in range(options.rounds):
            print(f"  round {number + 1}")
            rounds.append(bench.one_round())
        report(rounds)
        print(f"  on disk, indexes included  {bytes_per_span(connection, project_id):.0f} bytes per span")


def report(rounds: list[dict[str, float]]) -> None:
    print("  medians, and ratios within each round")
    for name in rounds[0]:
        rate = statistics.median(found[name] for found in rounds)
        to_copy = statistics.median(found[name] / found["raw COPY, 512 rows"] for found in rounds)
        to_large = statistics.median(found[name] / found["raw COPY, 8192 rows"] for found in rounds)
        to_http = statistics.median(found[name] / found["HTTP protobuf"] for found in rounds)
        print(f"    {name:<22}{rate:>9,.0f} /s   {to_copy:>5.0%} of COPY by 512, "
              f"{to_large:>4.0%} by 8192   {to_http:>5.0%} of HTTP protobuf")  # fmt: skip


if __name__ == "__main__":
    main()
