"""Server time of the pages over a full database: `python -m benchmarks.pages [--inferences 1000000 10000000]`.

A company of sixty days is written straight into the tables that pages read, in the shape the pipeline leaves
behind: day, hour and 5-minute rollups, latency histograms, users and sessions per day, and charges (of the last
`--charge-days` days: older ones are only reached by paging). Then each page is asked many times through
Django's handler, in this process: routing, statements, figures and templates, without the socket.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from benchmarks import conditions

DAYS = 60
HOUR_DAYS, CELL_DAYS = 10, 3  #: how much of the finer grains is written
DATABASE = "costapp_bench_pages"
TARGET_MS = 150

# 15 features, each of one team and service, with 2 workloads, 3 models, 2 environments, 2 variants, 2 prompt versions
COMBINATIONS = """
create table combination as
select 'feature-' || lpad(f::text, 2, '0') as feature, 'team-' || f % 6 as team, e.name as environment,
       'service-' || f % 10 as service, 'workload-' || w as span_name, 'openai' as provider,
       'model-' || (f + m) % 8 as model,
       'variant-' || v as variant, 'v' || p as prompt_version,
       row_number() over () as n, (0.2 + (f * 7 + m * 3 + w) % 10)::float8 as weight
from generate_series(1, 15) f, (values ('production'), ('staging')) e(name), generate_series(1, 2) w,
     generate_series(0, 2) m, generate_series(1, 2) v, generate_series(1, 2) p
"""
KEYS = "feature, team, environment, service, span_name, provider, model, variant, prompt_version"
SUMS = """
requests, requests / 100, requests / 200, requests / 50, 0, requests / 100, requests * 900, requests * 200, 0,
requests * 150, requests * 40, requests * 1250, requests * 1400000, requests * 2250000, requests * 250000, 0,
requests * 1900000, 0, 0, requests * 4400000, 0, 0, 0
"""
ROLLUP = """
insert into {table} (bucket_at, project_id, {keys}, requests, errors, retries, unpriced, estimated, usage_unknown,
    input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens, priced_tokens, duration_us,
    input_nano, cache_read_nano, cache_write_nano, output_nano, other_nano, gpu_nano, cost_nano, possible_nano,
    reported_nano, avoided_nano)
select bucket_at, 1, {keys}, {sums} from (
    select bucket_at, c.*,
           greatest(1, round({per_bucket} * weight / total * (0.6 + mod(n * 31 + b, 9) * 0.1)))::bigint as requests
    from combination c, (select sum(weight) as total from combination) t,
         (select at as bucket_at, row_number() over () as b
          from generate_series(%(start)s::timestamptz, %(last)s::timestamptz, {step}) at) buckets) filled
"""
LATENCY = """
insert into {table} (bucket_at, project_id, slot, feature, environment, service, span_name, model, requests)
select at, 1, 40 + s, feature, environment, service, span_name, model, greatest(1, {per_bucket} / 180 / 30)::bigint
from (select distinct feature, environment, service, span_name, model from combination) c, generate_series(1, 30) s,
     generate_series(%(start)s::timestamptz, %(last)s::timestamptz, {step}) at
"""
USERS = """
insert into user_day (bucket_at, requests, errors, unpriced, sessions, tokens, cost_nano, project_id, user_id, feature)
select at, {n} / 8000 + 1, 0, 0, 2, 20000, 50000000 + u * 1000, 1, 'user-' || u,
       'feature-' || lpad((mod(u, 15) + 1)::text, 2, '0')
from generate_series(1, 5000) u, generate_series(%(start)s::timestamptz, %(last)s::timestamptz, '1 day') at
where mod(u + extract(day from at)::int, 5) <> 0
"""
SESSIONS = """
insert into session_day (bucket_at, first_at, last_at, requests, errors, unpriced, tokens, cost_nano, project_id,
    session_id, feature, user_id)
select at, at + interval '9 hours', at + interval '10 hours', 8, 0, 0, 10000, mod(s * 7919::bigint, 100000) * 1000, 1,
       'session-' || extract(doy from at) || '-' || s, 'feature-' || lpad((mod(s, 15) + 1)::text, 2, '0'),
       'user-' || mod(s, 5000)
from generate_series(1, {n} / 8) s, generate_series(%(start)s::timestamptz, %(last)s::timestamptz, '1 day') at
"""
ACTIVITY = """
insert into activity_day (bucket_at, sessions, users, project_id, feature)
select bucket_at, count(*), count(distinct user_id), 1, feature from session_day group by bucket_at, feature
"""
KINDS = """
insert into charge_kind (project_id, month, digest, team, environment, service, span_name, operation, provider, model,
    variant, prompt_version, model_requested, service_tier, region, unit, finish_reason, usage_rule, reported_source)
select distinct 1, month,
       md5(concat_ws('/', month, team, environment, service, span_name, provider, model, variant, prompt_version)
       )::uuid, team, environment, service, span_name, 'chat', provider, model, variant, prompt_version,
       '', '', '', '', '', '', ''
from combination, lateral (select date_trunc('month', %(start)s::timestamptz at time zone 'UTC')::date as month) m
on conflict do nothing
"""
CHARGES = """
insert into charge (start_at, span_id, duration_us, cost_nano, input_nano, output_nano, project_id, day, input_tokens,
    output_tokens, rate_id, flags, cost_status, usage_state, attribution_source, attempts, trace_id, cache_read_nano,
    cache_read_tokens, feature, user_id, session_id, kind_id)
select at, i, 1400000, 4400000, 2250000, 1900000, 1, (at at time zone 'UTC')::date, 900, 190, null, 0, 1, 1, 1, 1,
       md5(at::text || i)::uuid, 250000, 200, feature, 'user-' || mod(i, 5000),
       'session-' || extract(doy from at) || '-' || i / 8,
       kind.id
from generate_series(1, {n}) i
     join combination c on c.n = mod(i, (select count(*) from combination)) + 1
     cross join lateral (select %(start)s::timestamptz + i * interval '24 hours' / {n} as at) t
     join charge_kind kind using (team, environment, service, span_name, provider, model, variant, prompt_version)
where kind.month = date_trunc('month', at at time zone 'UTC')::date
"""


# Calls of the newest days that ran on GPUs of one's own: as many as the GPU page lists users of.
SHARES = """
insert into gpu_share (project_id, day, trace_id, span_id, hour_at, pool_id, gpu_nano, is_estimate)
select 1, day, trace_id, span_id, date_trunc('hour', start_at), 1 + mod(span_id, 2), 2000000, false
from charge order by day desc, span_id limit {n}
"""
HOUR_STATES = """
insert into gpu_hour_state (project_id, hour_at, computed_at, applied_at, calls, lost_calls, unrated_calls, took_us,
    open_gpus)
select 1, at, at + interval '70 minutes', at + interval '71 minutes', coalesce(n, 0), 0, 0, 1000, '{{}}'
from generate_series(%(start)s::timestamptz, %(last)s::timestamptz, '1 hour') at
     left join (select hour_at, count(*) as n from gpu_share group by 1) shares on hour_at = at
"""
GPU_DAYS = 30


@contextmanager
def empty_database(server: str) -> Iterator[str]:
    """A database of its own on a server, dropped afterwards."""
    name = sql.Identifier(DATABASE)
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("drop database if exists {} with (force)").format(name))
        conn.execute(sql.SQL("create database {}").format(name))
    try:
        yield make_conninfo(server, dbname=DATABASE)
    finally:
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(name))


def fill(conn: psycopg.Connection[Any], *, inferences: int, charge_days: int) -> None:
    from costapp.storage.partitions import ensure_partitions

    per_day = inferences // DAYS
    today = datetime.combine(datetime.now(UTC).date(), datetime.min.time(), UTC)
    conn.execute(COMBINATIONS)
    grains = (("rollup_day", DAYS, "interval '1 day'", 1), ("rollup_hour", HOUR_DAYS, "interval '1 hour'", 24),
              ("rollup_5m", CELL_DAYS, "interval '5 minutes'", 288))  # fmt: skip
    for table, days, step, parts in grains:
        span = {"start": today - timedelta(days=days - 1), "last": today + timedelta(hours=23)}
        conn.execute(ROLLUP.format(table=table, keys=KEYS, sums=SUMS, step=step, per_bucket=per_day / parts), span)
    for table, days, step, parts in (
        ("latency_day", DAYS, "interval '1 day'", 1),
        ("latency_hour", HOUR_DAYS, "interval '1 hour'", 24),
    ):
        span = {"start": today - timedelta(days=days - 1), "last": today + timedelta(hours=23)}
        conn.execute(LATENCY.format(table=table, step=step, per_bucket=per_day / parts), span)
        _by_one_dimension(conn, table)
    span = {"start": today - timedelta(days=DAYS - 1), "last": today}
    conn.execute(USERS.format(n=per_day), span)
    conn.execute(SESSIONS.format(n=per_day), span)
    conn.execute(ACTIVITY)
    ensure_partitions(conn, [date.fromordinal(today.toordinal() - d) for d in range(DAYS)])
    for day in range(charge_days):
        conn.execute(KINDS, {"start": today - timedelta(days=day)})
        conn.execute(CHARGES.format(n=per_day), {"start": today - timedelta(days=day)})
    _gpus(conn, today)
    conn.execute("vacuum analyze")


def _gpus(conn: psycopg.Connection[Any], today: datetime) -> None:
    """Thirty days of 256 GPUs in 32 nodes and two pools, up to the last whole hour."""
    from benchmarks import gpu_hours
    from costapp.web.gpus import USERS_UP_TO_CALLS

    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    span = {"start": today - timedelta(days=GPU_DAYS), "last": now - timedelta(hours=1)}
    conn.execute(SHARES.format(n=USERS_UP_TO_CALLS))
    statements = (gpu_hours.GPU_HOURS, gpu_hours.MODEL_HOURS, gpu_hours.USE_HOURS, HOUR_STATES.format())
    for statement in statements:
        conn.execute(statement, span)


def _by_one_dimension(conn: psycopg.Connection[Any], table: str) -> None:
    from costapp.storage import rollups

    statement = rollups.LATENCY_HOURS_BY if table == "latency_hour" else rollups.LATENCY_DAY_BY
    conn.execute(statement, {"project_id": 1, "start_at": "-infinity", "end_at": "infinity"})


def ask(client: Any, url: str, times: int) -> list[float]:
    """Milliseconds per request, the first (cold) one left out."""
    client.get(url)
    took = []
    for _ in range(times):
        began = time.perf_counter()
        answer = client.get(url)
        took.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200, (url, answer.status_code)
    return sorted(took)


def pages() -> dict[str, str]:
    session = f"session-{datetime.now(UTC).timetuple().tm_yday}-3"
    return {
        "overview, 30 days": "/p/bench/?range=30d",
        "overview, 7 days": "/p/bench/?range=7d",
        "overview, 24 hours": "/p/bench/?range=24h",
        "overview, by user, 30 days": "/p/bench/?range=30d&by=user",
        "feature, 30 days": "/p/bench/feature/?is=feature-03&range=30d",
        "model, 30 days": "/p/bench/model/?is=model-3&range=30d",
        "user, 30 days": "/p/bench/user/?is=user-17&range=30d",
        "session": f"/p/bench/session/?is={session}",
        "calls, 30 days": "/p/bench/calls/?range=30d",
        "calls, rare filter": "/p/bench/calls/?range=30d&feature=none",
        "gpus (256), 30 days": "/p/bench/gpus/?range=30d",
        "gpus (256), 7 days": "/p/bench/gpus/?range=7d",
        "gpus (256), one pool, 30 days": "/p/bench/gpus/?range=30d&pool=1",
        "data health, 30 days": "/p/bench/health/?range=30d",
    }


def measure(*, times: int, only: str = "") -> dict[str, dict[str, float]]:
    from django.test import Client

    client, found = Client(headers={"host": "localhost"}), {}
    client.force_login(owner())
    for name, url in pages().items():
        if only not in name:
            continue
        took = ask(client, url, times)
        found[name] = {"p50_ms": statistics.median(took), "p95_ms": took[max(0, round(len(took) * 0.95) - 1)]}
        verdict = "reached" if found[name]["p95_ms"] <= TARGET_MS else f"above {TARGET_MS} ms"
        print(f"  {name:28} p50 {found[name]['p50_ms']:6.0f} ms   p95 {found[name]['p95_ms']:6.0f} ms   {verdict}")
    return found


def owner() -> Any:
    from django.contrib.auth import get_user_model

    from costapp.models import GpuPool, GpuRate, Membership, Project

    user, made = get_user_model().objects.get_or_create(username="bench")
    if made:
        project = Project.objects.create(pk=1, slug="bench", name="Bench")
        Membership.objects.create(project=project, user=user, role=Membership.Role.OWNER)
        for number in (1, 2):
            pool = GpuPool.objects.create(pk=number, project=project, name=f"pool-{number}", grams_per_kwh=344)
            GpuRate.objects.create(pool=pool, usd_per_hour=4)
    return user


def prepare_django(url: str) -> Callable[..., None]:
    """Settings for this database; returns ``call_command``."""
    os.environ["DATABASE_URL"] = "postgresql:///" + DATABASE  # replaced below: a conninfo is no URL
    os.environ.setdefault("COSTAPP_SECRET_KEY", "only-for-benchmarks-" + "x" * 30)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "costapp.settings")
    import django
    from django.conf import settings

    parts = psycopg.conninfo.conninfo_to_dict(url)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    settings.DATABASES["default"].update({key: str(parts.get(name) or "") for key, name in names.items()})
    settings.DATABASES["default"]["OPTIONS"]["options"] += f" {settings.WEB_CONNECTION_OPTIONS}"
    django.setup()
    from django.core.management import call_command

    return call_command


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inferences", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--charge-days", type=int, default=3)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--only", default="", help="pages whose name contains this")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for line in conditions.lines():
        print(line)
    server, results = os.environ["DATABASE_URL"], {}
    for inferences in options.inferences:
        with empty_database(server) as url:
            call_command = prepare_django(url)
            call_command("migrate", verbosity=0)
            began = time.perf_counter()
            with psycopg.connect(url, autocommit=True) as conn:
                fill(conn, inferences=inferences, charge_days=options.charge_days)
            took_s = time.perf_counter() - began
            print(
                f"{inferences:,} inferences over {DAYS} days, filled in {took_s:.0f} s; {options.times} requests each"
            )
            results[inferences] = measure(times=options.times, only=options.only)
            from django.db import connections

            connections.close_all()
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
