"""GPU data in: many GPUs scraped every 15 seconds by a real collector, and what a text costs to read.

    python -m benchmarks.gpu [--gpus 1000] [--seconds 120]

Exporters answer on loopback from a process of their own, one path per node of eight GPUs, with the 24 series per GPU of
dcgm-exporter's default set and pod labels; every value changes with every scrape. CPU is that of the collector and of
the PostgreSQL backends that serve it. Bytes per sample are of the tables with their indexes.
"""

import argparse
import http.server
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import django
import psycopg
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.ingest import Connection, Server, free_port
from collectors.gpu.samples import Samples
from collectors.gpu.text import TextReader

INTERVAL_S = 15
GPUS_PER_NODE = 8
READ = ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE",
        "DCGM_FI_DEV_FB_RESERVED", "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION")  # fmt: skip
OTHERS = tuple(f"DCGM_FI_DEV_OTHER_{number}" for number in range(17))
TABLES = ("gpu_sample", "gpu_device", "gpu_place", "gpu_gap", "engine_sample", "engine_seen", "dirty_gpu_hour")


def text_of(node: int, moment: int) -> str:
    """What the exporter of a node says at a moment."""
    lines = []
    for name in READ + OTHERS:
        lines += [f"# HELP {name} Something that is measured.", f"# TYPE {name} gauge"]
        for gpu in range(GPUS_PER_NODE):
            seed = (node * GPUS_PER_NODE + gpu) * 7_919 + moment
            value = seed % 1_000 / 1_000 if "ACTIVE" in name else moment * 300_000 if "ENERGY" in name else seed % 100
            labels = (
                f'gpu="{gpu}",UUID="GPU-{node:08x}-0000-4000-8000-{gpu:012x}",pci_bus_id="00000000:{gpu:02X}:00.0"'
                f',device="nvidia{gpu}",modelName="NVIDIA H100 80GB HBM3",Hostname="gpu-node-{node}"'
                f',DCGM_FI_DRIVER_VERSION="570.86.15",container="vllm",namespace="prod",pod="llama-{node}-{gpu}"'
            )
            lines.append(f"{name}{{{labels}}} {value}")
    return "\n".join(lines) + "\n"


def serve(port: int) -> None:
    """The exporters. GET /<node>."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text_of(int(self.path[1:]), int(time.time())).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


@contextmanager
def exporters(nodes: int, folder: Path) -> Iterator[int]:
    """Serve all nodes, and list them in a file; gives the port."""
    port = free_port()
    groups = [{"targets": [f"127.0.0.1:{port}"], "labels": {"__metrics_path__": f"/{node}"}} for node in range(nodes)]
    (folder / "nodes.json").write_text(json.dumps(groups))
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    process.start()
    try:
        yield port
    finally:
        process.terminate()
        process.join()


@contextmanager
def bench_target() -> Iterator[int]:
    from django.db import connection

    from costapp.models import Project, ScrapeTarget

    project = Project.objects.create(slug=f"bench-gpu-{os.getpid()}", name="GPU benchmark")
    ScrapeTarget.objects.create(project=project, name="nodes", discovery="file", address="nodes.json",
                                interval_s=INTERVAL_S)  # fmt: skip
    try:
        yield project.pk
    finally:
        with connection.cursor() as cursor:
            for table in (*TABLES, "ingest_log"):
                cursor.execute(f"delete from {table} where project_id = %s", [project.pk])
        project.delete()


def reading(rounds: int = 20) -> None:
    """CPU per series line of one node's text, by our reader and by the library's parser."""
    texts = [text_of(1, moment) for moment in range(rounds)]
    lines = sum(line[0] != "#" for line in texts[0].splitlines())
    reader, now_ns = TextReader("10.0.0.1:9400"), time.time_ns()

    def ours(text: str) -> None:
        samples = Samples(now_ns=now_ns, keep_days=30)
        reader.read(text, samples, time_ns=now_ns, limit=10**6)
        assert len(samples.result().samples) == GPUS_PER_NODE

    def library(text: str) -> None:
        assert sum(len(family.samples) for family in text_string_to_metric_families(text)) == lines

    for name, read in (("TextReader, first time", ours), ("TextReader, again", ours), ("prometheus_client", library)):
        started = time.process_time()
        chosen = texts[:1] if name.endswith("first time") else texts
        for text in chosen:
            read(text)
        spent = (time.process_time() - started) / len(chosen)
        print(f"  {name:<24}{lines / spent:>12,.0f} series/s   {spent * 1e3:6.2f} ms per node of {GPUS_PER_NODE} GPUs")


def scraping(url: str, gpus: int, seconds: int) -> None:
    nodes = gpus // GPUS_PER_NODE
    with tempfile.TemporaryDirectory() as name, exporters(nodes, Path(name)) as port, bench_target() as project_id:
        os.environ |= {"COSTAPP_SCRAPE_ALLOW": f"127.0.0.1/32:{port}", "COSTAPP_SCRAPE_FILES": name}
        with psycopg.connect(url, autocommit=True) as connection, Server(url, 1) as server:
            wait_until_all_answer(connection, project_id, nodes)
            own, backends = server.cpu_seconds(connection)
            stored, began = count(connection, project_id), time.monotonic()
            time.sleep(seconds)
            own_after, backends_after = server.cpu_seconds(connection)
            took, new = time.monotonic() - began, count(connection, project_id) - stored
            report(took, new, gpus, own_after - own, backends_after - backends)
            print(f"  memory of the collector        {server.rss_mib():8.0f} MiB")
            for table, size, rows in sizes(connection, project_id):
                print(f"  {table:<30}{size / max(rows, 1):9.0f} bytes per row of {rows:,}, indexes included")


def wait_until_all_answer(connection: Connection, project_id: int, nodes: int) -> None:
    for _ in range(600):
        row = connection.execute("select up from costapp_scrapetarget where project_id = %s", (project_id,)).fetchone()
        if row and row[0] >= nodes:
            return
        time.sleep(0.1)
    raise SystemExit(f"Only {row and row[0]} of {nodes} nodes were scraped within a minute.")


def count(connection: Connection, project_id: int) -> int:
    row = connection.execute("select count(*) from gpu_sample where project_id = %s", (project_id,)).fetchone()
    assert row
    return int(row[0])


def report(took: float, new: int, gpus: int, own: float, backends: float) -> None:
    wanted = gpus * took / INTERVAL_S
    print(f"  samples stored                 {new:8,} in {took:.0f} s, {new / wanted:.1%} of those due")
    print(f"  CPU of the collector           {own / took:8.1%} of a core, {own / max(new, 1) * 1e6:,.0f} us per sample")
    print(f"  CPU of its PostgreSQL backends {backends / took:8.1%} of a core")


def sizes(connection: Connection, project_id: int) -> Iterator[tuple[str, int, int]]:
    for table in ("gpu_sample", "gpu_place", "gpu_device"):
        row = connection.execute(
            "select sum(pg_total_relation_size(relid)) from pg_partition_tree(%s) where isleaf", (table,)
        ).fetchone()
        plain = connection.execute("select pg_total_relation_size(%s::regclass)", (table,)).fetchone()
        rows = connection.execute(f"select count(*) from {table}").fetchone()
        assert row
        assert plain
        assert rows
        yield table, int(row[0] or plain[0]), int(rows[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gpus", type=int, default=1_000, help=f"a multiple of {GPUS_PER_NODE}")
    parser.add_argument("--seconds", type=int, default=120)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "costapp.settings")
    django.setup()
    from django.conf import settings

    print(
        f"GPU data in: {options.gpus} GPUs, every {INTERVAL_S} s, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    reading()
    scraping(settings.DATABASE_URL, options.gpus, options.seconds)


if __name__ == "__main__":
    main()
