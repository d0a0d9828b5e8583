"""GPU hours: `python -m benchmarks.gpu_hours [--calls 1000000] [--stored 200000]`.

Three parts. *Splitting* one hour of many calls over 256 GPUs in memory, by each method, on one core. *Closing* an hour
whose calls and charges are stored: read, split, write shares, bring them into charges. *Reports* of thirty days of 256
GPUs, each asked twenty times. Works in a database of its own, which it creates beside that of DATABASE_URL and drops.
"""

import argparse
import os
import resource
import statistics
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg

from benchmarks import conditions
from benchmarks.own_database import own_database
from costapp.core.allocation import HOUR_US, Calls, Device, Method, State, Stretch, Weights, split

DATABASE = "costapp_bench_gpu_hours"
SERVERS, GPUS_EACH, NODES, DAYS = 32, 8, 32, 30
DOLLAR = 10**9
AT = datetime(2026, 5, 29, 12, tzinfo=UTC)
AT_US = int(AT.timestamp()) * 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000, help="calls of the hour that is split in memory")
    parser.add_argument("--stored", type=int, default=200_000, help="calls of the hour that is closed")
    options = parser.parse_args()
    for line in conditions.lines():
        print(line)
    splitting(options.calls)
    with own_database(DATABASE):
        stored(options.stored)


# -- splitting -----------------------------------------------------------------------------------------------------


def made_up(count: int, dice: np.random.Generator) -> Calls:
    start = dice.integers(0, HOUR_US, count)
    prefill, decode = dice.integers(1_000, 400_000, count), dice.integers(10_000, 20_000_000, count)
    key = dice.integers(0, 2**63, (count, 3)).astype(np.uint64)
    tokens = [dice.integers(1, most, count) for most in (8000, 8000, 1000)]
    return Calls(key, start, start + prefill, start + prefill + decode, *tokens)


def splitting(count: int) -> None:
    """One process, one core: NumPy's sorting and sums are not spread over cores."""
    dice = np.random.default_rng(1)
    for servers in (1, SERVERS):
        calls = [made_up(count // servers, dice) for _ in range(servers)]
        stretches = [Stretch(0, HOUR_US, State.HELD, 4 * DOLLAR)]
        gpus = [[Device(f"{s}-{n}", 1, stretches) for n in range(GPUS_EACH)] for s in range(servers)]
        for method in Method:
            began = time.process_time()
            found = [
                split(own, of, start_us=0, end_us=HOUR_US, method=method, weights=Weights(capacity=10**12))
                for own, of in zip(gpus, calls, strict=True)
            ]
            took = time.process_time() - began
            given = sum(int(one.shares[1].sum()) for one in found)
            attributed = sum(hour.nano.attributed for one in found for hour in one.devices)
            assert given == attributed, "a nano-dollar was lost"
            print(f"split {count:,} calls on {servers} servers, {method.value:<8} {took:5.2f} s CPU")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process {peak_mib:,.0f} MiB")


# -- closing -------------------------------------------------------------------------------------------------------

TARGETS = """
insert into gpu_target (project_id, month, digest, instance, host, model, service)
select 1, '2026-05-01', md5(n::text)::uuid, '', 'node-' || n || ':8000', 'llama', 'app' from generate_series(0, 31) n"""
CALLS = """
insert into gpu_call (project_id, day, trace_id, span_id, hour_at, start_us, border_us, end_us, target_id, input_tokens,
                      cached_tokens, output_tokens)
select 1, %(day)s, md5(n::text)::uuid, 2, %(at)s, start_us, start_us + 200000,
       start_us + 5000000, (select min(id) from gpu_target) + n %% 32, 1000, 500, 200
from (select n, %(at_us)s + (n * 7919::bigint) %% 3590 * 1000000 as start_us
      from generate_series(1, %(count)s) n) made"""
KINDS = """
insert into charge_kind (project_id, month, digest, team, environment, service, span_name, operation, provider,
    model, variant, prompt_version, model_requested, service_tier, region, unit, finish_reason, usage_rule,
    reported_source)
values (1, '2026-05-01', md5('kind')::uuid, 'core', '', 'app', 'chat', 'chat', 'self-hosted', 'llama', '', '', '', '',
        '', '', '', '', '')"""
CHARGES = """
insert into charge (project_id, day, trace_id, span_id, start_at, duration_us, input_nano, output_nano, kind_id,
    input_tokens, output_tokens, flags, cost_status, usage_state, attribution_source, attempts, feature, user_id,
    session_id)
select 1, day, trace_id, span_id, to_timestamp(start_us / 1e6), 5000000, 0, 0, (select min(id) from charge_kind), 1000,
       200, 0, 0, 1, 1, 1, 'feature-' || start_us / 1000000 %% 15, 'user-' || start_us / 1000000 %% 999, ''
from gpu_call"""


def stored(count: int) -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "costapp.settings")
    django.setup()
    from django.core.management import call_command

    from costapp.models import GpuPool, GpuRate, Project
    from costapp.services.allocate_gpu_hours import allocate_all
    from costapp.storage.connection import connect

    call_command("migrate", verbosity=0)
    project = Project.objects.create(slug="bench", name="Bench")
    pool = GpuPool.objects.create(project=project, name="h100", node_pattern="*")
    GpuRate.objects.create(pool=pool, usd_per_hour=4)
    with connect(os.environ["DATABASE_URL"]) as conn:
        began = time.perf_counter()
        sample(conn, project.pk)
        print(f"256 GPUs x 240 samples written in {time.perf_counter() - began:.1f} s")
        values = {"count": count, "at": AT, "at_us": AT_US, "day": AT.date()}
        for statement in (TARGETS, CALLS, KINDS, CHARGES):
            conn.execute(statement.encode(), values)
        conn.execute("analyze")
        for what in ("closed", "closed again, nothing changed"):
            began, cpu = time.perf_counter(), time.process_time()
            allocate_all(conn, now=AT + timedelta(days=1))
            wall, own = time.perf_counter() - began, time.process_time() - cpu
            worked = conn.execute("select max(took_us) / 1e6 from gpu_hour_state").fetchone()
            assert worked is not None
            print(
                f"hour of {count:,} stored calls {what}: {wall:.1f} s, {worked[0]:.1f} s until shares, {own:.1f} s here"
            )
            conn.execute("insert into dirty_gpu_hour (project_id, hour_at, node) values (1, %s, '')", (AT,))
        checked = conn.execute(
            "select (select sum(gpu_nano) from charge) = (select sum(attributed_nano) from gpu_hour)"
        ).fetchone()
        assert checked == (True,), "charges are not what was attributed"
        reports(conn)


def sample(conn: psycopg.Connection, project_id: int) -> None:
    from costapp.core.gpu_samples import EngineSample, GpuSample, Holder
    from costapp.storage.gpu_samples import insert_engine_samples, insert_samples

    for node in range(NODES):
        holder = (Holder("prod", f"llama-{node}", "vllm"),)
        readings = [
            GpuSample(f"GPU-{node}-{gpu}", AT + timedelta(seconds=second), util_bp=8000, util_rank=0, held=True,
                      node=f"node-{node}", holders=holder, served_model="llama", gpu_model="H100", power_mw=500_000)
            for gpu in range(GPUS_EACH)
            for second in range(0, 3600, 15)
        ]  # fmt: skip
        insert_samples(conn, project_id, readings)
        host, pod = f"node-{node}:8000", f"llama-{node}"
        seen = EngineSample("vllm", host, "llama", AT, node=f"node-{node}", namespace="prod", pod=pod)
        insert_engine_samples(conn, project_id, [seen])


# -- reports -------------------------------------------------------------------------------------------------------

GPU_HOURS = """
insert into gpu_hour select at, 32 * b, 16 * b, 2 * b, 8 * b, 4 * b, 2 * b, 8 * h, 4 * h, h / 2, 2 * h, h, h / 2, 0,
    20000 * 3600, 8 * 3600, 300000 * 3600, 655360::bigint * 3600, 8 * 3600, 12000000000, 8 * h,
    1, 1 + node %% 2, 8, 'node-' || node, 'H100'
from generate_series(%(start)s::timestamptz, %(last)s::timestamptz, '1 hour') at, generate_series(1, 32) node,
     (select 1000000000::bigint as b, 3600000000::bigint as h) unit"""
MODEL_HOURS = """
insert into gpu_model_hour select at, 512 * b, 256 * b, 64 * b, 32 * b, 128 * b, 64 * b, 32 * b, 9000, 9000000, 4500000,
    1800000, 460800000000, 230400000000, 192000000000, 1, 1 + m %% 2, 'model-' || m
from generate_series(%(start)s::timestamptz, %(last)s::timestamptz, '1 hour') at, generate_series(1, 8) m,
     (select 1000000000::bigint as b) unit"""
USE_HOURS = """
insert into gpu_use_hour select at, 1000000000, 100, 1, 1 + f %% 2, 'feature-' || f, 'team-' || f %% 6
from generate_series(%(start)s::timestamptz, %(last)s::timestamptz, '1 hour') at, generate_series(1, 30) f"""


def reports(conn: psycopg.Connection) -> None:
    from costapp.storage.reports import gpu
    from costapp.storage.reports.cells import Grain, Scope

    start = datetime(2026, 4, 1, tzinfo=UTC)
    end = start + timedelta(days=DAYS)
    for statement in (GPU_HOURS, MODEL_HOURS, USE_HOURS):
        conn.execute(statement.encode(), {"start": start, "last": end - timedelta(hours=1)})
    conn.execute("analyze")
    daily = Scope(1, "Europe/Berlin", start, end, Grain.DAY)
    names = [node.node for node in gpu.nodes(conn, daily)]
    asked = {
        "total": lambda: gpu.total(conn, daily), "pools": lambda: gpu.pools(conn, daily),
        "course by day": lambda: gpu.course(conn, daily),
        "course by hour": lambda: gpu.course(conn, daily._replace(grain=Grain.HOUR)),
        "nodes": lambda: gpu.nodes(conn, daily), "heat map by day": lambda: gpu.heat(conn, daily, names=names),
        "heat map by hour, 2 days": lambda: gpu.heat(
            conn, daily._replace(grain=Grain.HOUR).between(end - timedelta(days=2), end), names=names
        ),
        "idle": lambda: gpu.idle(conn, daily), "models": lambda: gpu.models(conn, daily),
        "uses": lambda: gpu.uses(conn, daily), "closing": lambda: gpu.closing(conn, daily),
        "break-even": lambda: gpu.break_even(conn, daily),
    }  # fmt: skip
    for name, ask in asked.items():
        times = []
        for _ in range(20):
            began = time.perf_counter()
            ask()
            times.append((time.perf_counter() - began) * 1000)
        print(f"{DAYS} days x 256 GPUs, {name:<26} median {statistics.median(times):6.1f} ms, max {max(times):.0f}")


if __name__ == "__main__":
    main()
