"""Attribution, pricing and rollups: charges per second and core, and bytes per charge on disk.

    DATABASE_URL=postgresql://… python benchmarks/attribution.py [--traces 20000] [--profile]

Works in a database of its own, which it creates beside the one of DATABASE_URL and drops again. CPU is
that of this process and of its PostgreSQL backends together (from /proc, so only for a local server):
"per core" means charges per second of that CPU time.
"""

import argparse
import cProfile
import os
import pstats
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import psycopg

from benchmarks.own_database import own_database

DATABASE = "costapp_bench_attribution"
SECOND_NS = 1_000_000_000
FEATURES = [f"feature-{number}" for number in range(12)]
MODELS = [("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-5")]


def main() -> None:
    options = _options()
    with own_database(DATABASE):
        measure(options)


def measure(options: argparse.Namespace) -> None:
    project_id = _set_up()
    guard(project_id, per=options.guardrails)
    from costapp.services.attribute import attribute_shards
    from costapp.services.retention import make_partitions
    from costapp.services.rollup import recompute_dirty
    from costapp.storage import outbox
    from costapp.storage.connection import connect
    from costapp.storage.spans import insert_spans

    with connect(os.environ["DATABASE_URL"]) as conn:
        make_partitions(conn)
        traces = list(generate(options.traces, seed=options.seed))
        with _Measured(conn, "insert spans (not part of the figure)") as inserted:
            for first in range(0, len(traces), 250):
                insert_spans(conn, project_id, [span for trace in traces[first : first + 250] for span in trace])
        inserted.show(sum(map(len, traces)), "spans")
        conn.execute("vacuum analyze span")
        profiler = cProfile.Profile() if options.profile else None
        if profiler:
            profiler.enable()
        charges = 0
        with _Measured(conn, "attribute and price") as attributed:
            while shards := outbox.marked_shards(conn):
                for shard in shards:
                    charges += attribute_shards(conn, [shard], limit=options.batch).charges
        if options.guardrails:
            judge_all(conn, project_id, per=options.guardrails)
        with _Measured(conn, "rollups") as rolled:
            while recompute_dirty(conn, force=True):
                pass
        if profiler:
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
        attributed.show(charges, "charges")
        rolled.show(charges, "charges")
        (attributed + rolled).show(charges, "charges")
        _show_sizes(conn, charges, sum(map(len, traces)))


def guard(project_id: int, *, per: list[str]) -> None:
    """Guardrails that nobody crosses, as nearly always."""
    from costapp.models import Guardrail

    for each in per:
        Guardrail.objects.create(
            project_id=project_id, name=each, per=each, metric="cost", limit_value=1000, minutes=10
        )


def judge_all(conn: psycopg.Connection, project_id: int, *, per: list[str]) -> None:
    """Judge all marks at once: those of twenty seconds at 1,000 calls/s, say."""
    from costapp.services.guardrails.judge import judge

    row = conn.execute("select count(*), count(distinct (per, subject)) from guard_mark").fetchone()
    assert row
    with _Measured(conn, f"judge guardrails per {', '.join(per)}") as judged:
        while conn.execute("select exists (select 1 from guard_mark)").fetchone() == (True,):
            judge(conn, now=datetime.now(UTC))
    judged.show(row[1], f"sessions, traces and users ({row[0]:,} marks)")
    for _ in range(100):
        judge(conn, now=datetime.now(UTC))
    with _Measured(conn, "judge with nothing to do, 100 times") as idle:
        for _ in range(100):
            judge(conn, now=datetime.now(UTC))
    idle.show(100, "bells")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=2_000, help="marks claimed per transaction")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guardrails", nargs="*", default=[], choices=["session", "trace", "user"], metavar="PER",
                        help="with a guardrail per session, trace, user")  # fmt: skip
    parser.add_argument("--profile", action="store_true", help="print where this process spends its time")
    return parser.parse_args()


def _set_up() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "costapp.settings")
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    call_command("import_prices", verbosity=0)
    from costapp.models import Project

    return Project.objects.create(slug="bench", name="Bench").pk


def generate(count: int, *, seed: int) -> Iterator[list["Span"]]:  # noqa: F821
    """Traces of 8 spans over the last hour: a request, an agent, two or three model calls, tools and queries."""
    from costapp.core.values import Role, Span, SpanFacts

    rng = random.Random(seed)
    begin_ns = int((datetime.now(UTC) - timedelta(hours=1)).timestamp()) * SECOND_NS
    for number in range(count):
        trace_id, start_ns = rng.randbytes(16), begin_ns + number * 3600 * SECOND_NS // count
        calls = 2 + number % 2
        user, feature = f"user-{rng.randrange(5000)}", rng.choice(FEATURES)
        facts = [
            SpanFacts(name=f"POST /{feature}", service="api", kind=2, duration_us=3_000_000, feature=feature, user=user,
                      session=f"{user}-session-{number % 7}", environment="production", team="core"),
            SpanFacts(name="agent.run", service="api", duration_us=2_900_000, role=Role.AGGREGATE),
        ]  # fmt: skip
        for step in range(calls):
            provider, model = rng.choice(MODELS)
            facts.append(SpanFacts(
                name=f"chat {model}", service="api", kind=3, duration_us=rng.randrange(200_000, 5_000_000),
                role=Role.CALL,
                scope="opentelemetry.instrumentation.openai_v2", operation="chat", provider_raw=provider,
                model_requested=model, model_responded=model,
                response_id=f"chatcmpl-{rng.getrandbits(96):024x}",
                input=rng.randrange(200, 8000), output=rng.randrange(20, 900), cache_read=128 * (step % 2),
                finish_reason="stop", host="api.example.com", environment="production",
            ))  # fmt: skip
        names = ("GET vector-store", "SELECT documents", "rerank", "tool.search")
        facts += [SpanFacts(name=name, service="api", kind=3, duration_us=20_000) for name in names[: 8 - len(facts)]]
        ids = [rng.getrandbits(63) for _ in facts]
        yield [
            Span(trace_id, ids[i], 0 if i == 0 else ids[min(i - 1, 1)], start_ns + i * SECOND_NS // 10, fact)
            for i, fact in enumerate(facts)
        ]


class _Cost(NamedTuple):
    label: str
    wall_s: float
    client_s: float
    server_s: float

    def __add__(self, other: "_Cost") -> "_Cost":  # type: ignore[override]
        return _Cost("together", *(a + b for a, b in zip(self[1:], other[1:], strict=True)))

    def show(self, count: int, noun: str) -> None:
        cpu_s = self.client_s + self.server_s
        print(
            f"{self.label:40} {count / self.wall_s:9,.0f} {noun}/s wall  {count / cpu_s:9,.0f} {noun}/s per core"
            f"  ({cpu_s / count * 1e6:5.1f} us each: Python {self.client_s / count * 1e6:5.1f},"
            f" PostgreSQL {self.server_s / count * 1e6:5.1f})"
        )


class _Measured:
    """Wall time and CPU of this process and of the backend that serves ``conn``."""

    def __init__(self, conn: psycopg.Connection, label: str) -> None:
        self.label = label
        self._stat = f"/proc/{conn.info.backend_pid}/stat"
        self.cost = _Cost(label, 0, 0, 0)

    def __enter__(self) -> "_Measured":
        self._began = time.perf_counter(), time.process_time(), self._server_s()
        return self

    def __exit__(self, *_: object) -> None:
        now = time.perf_counter(), time.process_time(), self._server_s()
        self.cost = _Cost(self.label, *(b - a for a, b in zip(self._began, now, strict=True)))

    def __add__(self, other: "_Measured") -> _Cost:
        return self.cost + other.cost

    def show(self, count: int, noun: str) -> None:
        self.cost.show(count, noun)

    def _server_s(self) -> float:
        with open(self._stat) as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


_INDEXES = """
select regexp_replace(index.relname, '_?[0-9]{6,8}_?', '_'), sum(pg_relation_size(index.oid))::bigint
from pg_inherits join pg_index on indrelid = inhrelid join pg_class index on index.oid = indexrelid
where inhparent = 'charge'::regclass group by 1 order by 2 desc
"""
_SIZES = """
select parent.relname, sum(pg_total_relation_size(child.oid))::bigint,
       sum(pg_relation_size(child.oid))::bigint
from pg_class parent join pg_inherits on inhparent = parent.oid join pg_class child on child.oid = inhrelid
where parent.relname in ('charge', 'span') and parent.relkind = 'p' group by 1 order by 1
"""


def _show_sizes(conn: psycopg.Connection, charges: int, spans: int) -> None:
    counts = {"charge": charges, "span": spans}
    for table, total, heap in conn.execute(_SIZES):
        count = counts[table]
        print(f"{table:8} {total / count:6.0f} bytes per row on disk with indexes ({heap / count:.0f} without)")
    for index, size in conn.execute(_INDEXES):
        print(f"    {index:30} {size / charges:6.1f} bytes per charge")


if __name__ == "__main__":
    main()
