"""Evaluation of alert rules: `python -m benchmarks.rules [--rules 1000] [--subjects 1000]`.

A project with many features, and rules of mixed metrics, conditions and windows, each with one state per feature.
Measured on one connection and one core, windows moving on by five minutes:

    calm        one rule in fifty has a threshold that a few subjects pass: what installations look like
    remembered  every state is remembered, because every subject passes a threshold that must last: the worst case
"""

import argparse
import json
import os
import resource
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from benchmarks import conditions
from benchmarks.pages import empty_database, prepare_django

METRICS = ("cost", "cost_per_1k", "tokens_per_request", "error_rate", "cache_hit", "retry_rate", "unpriced_share")
WINDOWS = ("5m", "15m", "30m", "1h", "3h")
CONDITIONS = ("above", "rises", "over_band", "below")
#: Per metric: a threshold that hardly any subject passes, in what people type.
FAR = {"cost": 1000, "cost_per_1k": 1000, "tokens_per_request": 10**6, "error_rate": 90, "cache_hit": 99.9,
       "retry_rate": 90, "unpriced_share": 90}  # fmt: skip
CELLS = """
insert into {table} (bucket_at, project_id, feature, team, environment, service, span_name, provider, model, variant,
    prompt_version, requests, errors, retries, unpriced, estimated, usage_unknown, input_tokens, cache_read_tokens,
    cache_write_tokens, output_tokens, reasoning_tokens, priced_tokens, duration_us, input_nano, cache_read_nano,
    cache_write_nano, output_nano, other_nano, gpu_nano, cost_nano, possible_nano, reported_nano, avoided_nano)
select at, 1, 'feature-' || n, 'team', 'production', 'service', 'chat', 'openai', 'gpt-4o', '', '',
       r, r / 20, r / 50, r / 40, 0, 0, r * 900, r * 300, 0, r * 150, 0, r * 1350, r * 1400000,
       r * 2250000, r * 250000, 0, r * 1500000, 0, 0, r * 4000000, 0, 0, 0
from generate_series(1, %(subjects)s) n,
     generate_series(%(first)s::timestamptz, %(last)s::timestamptz, '5 minutes') at,
     lateral (select 40 + mod(n * 31 + extract(epoch from at)::bigint / 300 * 7, 20) as r) size
"""


def fill(conn: psycopg.Connection[Any], now: datetime, *, subjects: int) -> None:
    """Cells of the last seven hours, and of the same hours of the four weeks before."""
    for weeks in range(5):
        last = now - timedelta(weeks=weeks) + timedelta(hours=1, minutes=-5 if weeks == 0 else 0)
        values = {"subjects": subjects, "first": last - timedelta(hours=8), "last": last}
        conn.execute(CELLS.format(table="rollup_5m").encode(), values)
    conn.execute("vacuum analyze")


def make_rules(count: int) -> None:
    from costapp.models import AlertRule, Project

    project, _ = Project.objects.get_or_create(pk=1, defaults={"slug": "bench", "name": "Bench"})
    AlertRule.objects.bulk_create(
        AlertRule(
            project=project, name=f"rule {number}", metric=metric, by="feature",
            window=WINDOWS[number // 7 % len(WINDOWS)], condition=condition,
            warning=_threshold(metric, condition, number), minimum_requests=number % 5,
            remind_minutes=1440,
        )
        for number in range(count)
        for metric in [METRICS[number % len(METRICS)]]
        for condition in [CONDITIONS[number // 35 % len(CONDITIONS)]]
    )  # fmt: skip


def _threshold(metric: str, condition: str, number: int) -> float:
    if condition == "below":
        return 0 if number % 50 else FAR[metric]
    if condition == "above":
        return FAR[metric]
    return 0.5 if number % 50 == 0 else 10_000


def remember_everything() -> None:
    from costapp.models import AlertRule

    AlertRule.objects.update(condition="above", warning=0, lasting_minutes=43200, minimum_requests=0, metric="cost")


def evaluate(conn: psycopg.Connection[Any], name: str, now: datetime) -> dict[str, float]:
    from costapp.services.evaluate_rules import evaluate_rules

    cpu, began = time.process_time(), time.perf_counter()
    tally = evaluate_rules(conn, now=now)
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    row = conn.execute("select count(*) from rule_state").fetchone()
    remembered = row[0] if row else 0
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"  {name:36}{wall_s:6.2f} s ({cpu_s:5.2f} s of it in Python)   {tally.rules:,} rules,"
        f" {tally.subjects:,} states judged, {remembered:,} remembered, {tally.opened:,} alerts opened,"
        f" {memory_mib:.0f} MiB"
    )
    return {"wall_s": wall_s, "cpu_s": cpu_s, "states": tally.subjects, "remembered": remembered, "mib": memory_mib}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rules", type=int, default=1000)
    parser.add_argument("--subjects", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for line in conditions.lines():
        print(line)
    results = {}
    # an hour ago: evaluation judges nothing that lies ahead of the database's clock
    now = datetime.fromtimestamp((int(time.time()) // 3600 - 1) * 3600, UTC)
    with empty_database(os.environ["DATABASE_URL"]) as url:
        prepare_django(url)("migrate", verbosity=0)
        from costapp.storage.connection import connect

        with connect(url) as conn:
            fill(conn, now, subjects=options.subjects)
            make_rules(options.rules)
            print(
                f"{options.rules:,} rules x {options.subjects:,} features, seven metrics, five windows, four conditions"
            )
            moments = [now + timedelta(minutes=2 + 5 * place) for place in range(6)]
            results["first"] = evaluate(conn, "calm, first evaluation", moments[0])
            results["calm"] = evaluate(conn, "calm, the next window", moments[1])
            results["idle"] = evaluate(conn, "calm, no window has ended", moments[1] + timedelta(minutes=1))
            remember_everything()
            results["forget"] = evaluate(conn, "remembered, first (all are written)", moments[2])
            conn.execute("vacuum analyze rule_state")
            results["remembered"] = evaluate(conn, "remembered, the next window", moments[3])
        from django.db import connections

        connections.close_all()
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
