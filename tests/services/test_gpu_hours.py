"""GPU hours end to end: samples, spans and rates in; bills, buckets, shares and charges out."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from django.core.management import call_command

from costapp.core.gpu_samples import EngineSample, Gap, GapKind, GpuSample, Holder
from costapp.core.values import Role
from costapp.models import EngineMapping, GpuPool, GpuRate
from costapp.services import allocate_gpu_hours
from costapp.services.allocate_gpu_hours import _apply, allocate_all
from costapp.services.drain import drain
from costapp.services.reprice import reprice
from costapp.services.verify_ledger import verify
from costapp.storage import gpu_apply, gpu_hours
from costapp.storage.gpu_samples import insert_engine_samples, insert_gaps, insert_samples
from tests.pipeline import (
    DERIVED_TABLES,
    SECOND_NS,
    call,
    empty,
    fingerprint,
    open_connection,
    price,
    root,
    store,
    totals,
    trace_id,
)

HOUR = timedelta(hours=1)
AT = datetime(2026, 5, 29, 12, tzinfo=UTC)
AT_NS = int(AT.timestamp()) * SECOND_NS
LATER = AT + timedelta(days=2)
DOLLAR = 10**9
GPU_TABLES = ("gpu_share", "gpu_hour", "gpu_model_hour", "gpu_use_hour")
BUCKETS = ("attributed", "busy", "held", "free", "unobserved")


@pytest.fixture
def pool(project):
    return GpuPool.objects.create(project=project, name="h100", node_pattern="node-*")


@pytest.fixture
def rate(pool):
    """$4 per GPU-hour."""
    return GpuRate.objects.create(pool=pool, usd_per_hour=Decimal(4))


def watch(conn, project, *, node="node-a", gpus=1, hours=1, start=AT, every=15, pod="llama-0", util=10_000, **fields):
    """Samples of the GPUs of one node, held by one pod."""
    holders = (Holder("prod", pod, "vllm"),) if pod else ()
    fields = {"util_bp": util, "util_rank": 0, "held": bool(pod), "gpu_model": "H100", **fields}
    samples = [
        GpuSample(f"GPU-{node}-{number}", start + timedelta(seconds=second), node=node, holders=holders,
                  served_model="llama" if pod else "", target=f"{node}:9400", **fields)
        for number in range(gpus)
        for second in range(0, int(hours * 3600), every)
    ]  # fmt: skip
    insert_samples(conn, project.id, samples)


def engine(conn, project, *, pod="llama-0", model="llama", node="node-a", start=AT, hours=1, host="10.0.0.7:8000"):
    samples = [
        EngineSample("vllm", host, model, start + timedelta(minutes=minute), node=node, namespace="prod", pod=pod)
        for minute in range(0, hours * 60, 5)
    ]
    insert_engine_samples(conn, project.id, samples)


def served(trace, span=2, *, at=600, seconds=36, **facts):
    """A call to the model server, `at` seconds into the hour."""
    facts = {
        "provider_raw": "vllm", "model_requested": "llama", "model_responded": "llama", "host": "10.0.0.7:8000",
        "duration_us": int(seconds * 1_000_000), **facts,
    }  # fmt: skip
    return call(trace, span, parent=facts.pop("parent", 1), start_ns=AT_NS + at * SECOND_NS, **facts)


def book(conn, now=LATER):
    drain(conn)
    allocate_all(conn, now=now)
    drain(conn)


def buckets(conn, columns="nano", where="true"):
    names = ", ".join(f"sum({name}_{columns})::bigint" for name in BUCKETS)
    found = conn.execute(f"select {names} from gpu_hour where {where}").fetchone()
    return dict(zip(BUCKETS, found, strict=True))


def holds(conn):
    """The product's own ledger check finds nothing."""
    results = [verified.result for verified in verify(conn)]
    found = {result.check.name: result.shown for result in results if result.differences}
    assert found == {}
    return True


def test_a_lone_call_is_charged_for_the_time_it_had_the_gpu(conn, project, rate):
    watch(conn, project, hours=3, start=AT - HOUR)
    engine(conn, project)
    store(conn, [root(1, feature="bot", user="ann", session="s1"), served(1)], project_id=project.id)
    drain(conn)
    assert totals(conn, "cost_nano, cost_status, provider") == (None, 0, "self-hosted")
    book(conn)
    assert totals(conn, "cost_nano, gpu_nano, cost_status, input_nano + output_nano") == (40_000_000, 40_000_000, 5, 0)
    assert buckets(conn, where=f"hour_at = '{AT}'") == {
        "attributed": DOLLAR // 25, "busy": 4 * DOLLAR - DOLLAR // 25, "held": 0, "free": 0, "unobserved": 0,
    }  # fmt: skip
    for table in ("rollup_5m", "rollup_hour", "rollup_day", "session_day", "user_day"):
        assert totals(conn, "sum(cost_nano)::int, sum(gpu_nano)::int", table) == (40_000_000, 40_000_000), table
    assert totals(conn, "feature, gpu_nano, requests", "gpu_use_hour") == ("bot", 40_000_000, 1)
    assert totals(conn, "count(*)", "charge_revision") == (0,)
    assert holds(conn)


def test_an_hour_without_calls_is_all_idle_and_says_which_kind(conn, project, rate):
    watch(conn, project, hours=0.5, util=0)
    watch(conn, project, node="node-b", util=0, pod="")
    book(conn)
    found = buckets(conn, where=f"hour_at = '{AT}'")
    # node-a was seen for half an hour, and its last sample speaks for two minutes more
    assert found["held"] == round(4 * DOLLAR * (1785 + 120) / 3600)
    assert found["free"] == 4 * DOLLAR
    assert found["attributed"] == found["busy"] == found["unobserved"] == 0


def test_the_hour_is_not_closed_before_it_has_ended_and_settled(conn, project, rate, settings):
    watch(conn, project)
    engine(conn, project)
    store(conn, [served(1, parent=0)], project_id=project.id)
    drain(conn)
    assert allocate_all(conn, now=AT + HOUR) == 0
    assert allocate_all(conn, now=AT + HOUR + timedelta(seconds=settings.GPU_HOUR_SETTLE_S)) == 1


def test_calls_share_an_engine_by_who_else_was_active(conn, project, rate):
    watch(conn, project, gpus=2, hours=2)
    engine(conn, project)
    store(conn, [served(1, at=0, seconds=3600, parent=0), served(2, at=1800, seconds=1800, parent=0)],
          project_id=project.id)  # fmt: skip
    book(conn)
    found = conn.execute("select gpu_nano from charge order by start_at").fetchall()
    assert found == [(6 * DOLLAR,), (2 * DOLLAR,)]
    assert holds(conn)


def test_a_call_across_hours_has_a_share_of_each(conn, project, rate):
    watch(conn, project, hours=3)
    engine(conn, project, hours=3)
    store(conn, [served(1, at=3540, seconds=3720, parent=0)], project_id=project.id)
    book(conn)
    shares = conn.execute("select gpu_nano from gpu_share order by hour_at").fetchall()
    assert [round(share / DOLLAR, 6) for (share,) in shares] == [0.066667, 4, 0.066667]
    assert totals(conn, "gpu_nano") == (sum(share for (share,) in shares),)
    assert holds(conn)


def wait_until_blocked(conn, other):
    sql = "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s"
    for _ in range(100_000):
        if conn.execute(sql, (other.info.backend_pid,)).fetchone() == (True,):
            return
    raise AssertionError("It does not wait.")


def test_two_workers_that_finish_the_same_hour_wait_for_each_other(conn, project, rate):
    watch(conn, project)
    engine(conn, project)
    store(conn, [root(1, feature="bot"), served(1)], project_id=project.id)
    book(conn)
    computed_at = totals(conn, "computed_at", f"gpu_hour_state where hour_at = '{AT}'")[0]

    with open_connection() as second, open_connection() as watcher, ThreadPoolExecutor(1) as thread:
        with conn.transaction():
            gpu_hours.lock(conn, project.id)
            hours = [gpu_hours.Unapplied(AT, computed_at, 1)]
            gpu_apply.finish(conn, project.id, hours=hours)
            other = thread.submit(_apply, second, project.id, hours)
            wait_until_blocked(watcher, second)
        other.result(60)

    assert totals(conn, "count(*), sum(gpu_nano)::int", f"gpu_use_hour where hour_at = '{AT}'") == (1, 40_000_000)


def test_a_call_at_midnight_keeps_the_day_of_its_charge(conn, project, rate):
    midnight = datetime(2026, 5, 30, tzinfo=UTC)
    watch(conn, project, start=midnight - HOUR, hours=2)
    engine(conn, project, start=midnight - HOUR, hours=2)
    spans = [served(1, at=12 * 3600 - 60, seconds=120, parent=0)]
    store(conn, spans, project_id=project.id)
    book(conn)
    days = conn.execute("select day::text, hour_at::date::text from gpu_share order by hour_at").fetchall()
    assert days == [("2026-05-29", "2026-05-29"), ("2026-05-29", "2026-05-30")]
    assert totals(conn, "gpu_nano") == (2 * round(2 * DOLLAR / 30),)
    assert holds(conn)


def test_late_spans_work_the_hour_out_again(conn, project, rate):
    watch(conn, project, hours=2)
    engine(conn, project)
    store(conn, [served(1, parent=0)], project_id=project.id)
    book(conn)
    assert totals(conn, "gpu_nano") == (40_000_000,)
    store(conn, [served(2, parent=0)], project_id=project.id)
    book(conn)
    assert conn.execute("select gpu_nano from charge").fetchall() == [(20_000_000,), (20_000_000,)]
    assert totals(conn, "reason, old_cost_nano, new_cost_nano", "charge_revision") == (
        "GPU hour worked out again", 40_000_000, 20_000_000,
    )  # fmt: skip
    assert holds(conn)


def test_late_samples_turn_unobserved_time_into_what_it_was(conn, project, rate):
    watch(conn, project, hours=0.25, util=0)
    watch(conn, project, hours=1.25, start=AT + 0.75 * HOUR, util=0)
    book(conn)
    unobserved = buckets(conn, where=f"hour_at = '{AT}'")["unobserved"]
    assert unobserved == round(4 * DOLLAR * (1800 - 105) / 3600)
    watch(conn, project, hours=0.5, start=AT + 0.25 * HOUR, util=0)
    book(conn)
    assert buckets(conn, where=f"hour_at = '{AT}'") == {
        "attributed": 0, "busy": 0, "held": 4 * DOLLAR, "free": 0, "unobserved": 0,
    }  # fmt: skip


def test_a_failed_scrape_is_a_gap_and_not_idle(conn, project, rate):
    watch(conn, project, hours=2, util=0)
    insert_gaps(conn, project.id, [Gap(AT + timedelta(seconds=7), GapKind.TARGET_DOWN, "node-a:9400")])
    book(conn)
    assert buckets(conn, where=f"hour_at = '{AT}'")["unobserved"] == round(4 * DOLLAR * 8 / 3600)


def test_a_gpu_that_went_and_came_back_is_unobserved_in_between_only_up_to_an_hour(conn, project, rate):
    watch(conn, project, hours=1, util=0)
    watch(conn, project, start=AT + 3 * HOUR, util=0)
    book(conn)
    rows = conn.execute("select hour_at, cost_nano, unobserved_nano from gpu_hour order by 1").fetchall()
    assert [(at, cost > 0) for at, cost, _ in rows] == [
        (AT, True), (AT + HOUR, True), (AT + 3 * HOUR, True), (AT + 4 * HOUR, True),
    ]  # fmt: skip
    assert sum(unobserved for _, _, unobserved in rows) == 0


def test_samples_that_come_later_reopen_the_hour_that_took_the_gpu_as_gone(conn, project, rate):
    watch(conn, project, hours=0.5, util=0)
    book(conn)
    assert buckets(conn)["unobserved"] == 0
    watch(conn, project, start=AT + HOUR, hours=0.5, util=0)
    book(conn)
    assert buckets(conn, where=f"hour_at = '{AT}'")["unobserved"] == round(4 * DOLLAR * (1800 - 105) / 3600)


def test_owned_gpus_cost_money_in_hours_of_silence(conn, project, pool):
    GpuRate.objects.create(pool=pool, kind="owned", upfront_usd=Decimal(35064), term_years=Decimal(4))
    watch(conn, project, util=0)
    book(conn, now=AT + 4 * HOUR)
    rows = conn.execute("select hour_at, cost_nano, unobserved_nano from gpu_hour order by 1").fetchall()
    assert [(at, cost) for at, cost, _ in rows] == [(AT, DOLLAR), (AT + HOUR, DOLLAR), (AT + 2 * HOUR, DOLLAR)]
    assert rows[2][2] == DOLLAR


# -- rates ---------------------------------------------------------------------------------------------------------


def test_a_node_without_a_rate_is_shown_and_its_calls_stay_unpriced(conn, project):
    watch(conn, project)
    engine(conn, project)
    store(conn, [served(1, parent=0)], project_id=project.id)
    book(conn)
    assert totals(conn, "cost_nano, cost_status") == (None, 0)
    this_hour = f"gpu_hour where hour_at = '{AT}'"
    assert totals(conn, "node, pool_id, cost_nano, gpu_us = unrated_us, attributed_us", this_hour) == (
        "node-a", 0, 0, True, 36_000_000,
    )  # fmt: skip
    assert totals(conn, "sum(calls)::int, sum(unrated_calls)::int, sum(lost_calls)::int", "gpu_hour_state") == (1, 1, 0)
    assert holds(conn)


def test_a_new_rate_prices_the_hours_it_covers(conn, project, pool):
    watch(conn, project)
    engine(conn, project)
    store(conn, [served(1, parent=0)], project_id=project.id)
    book(conn)
    made = GpuRate.objects.create(pool=pool, usd_per_hour=Decimal(4))
    book(conn)
    assert totals(conn, "cost_nano, cost_status") == (40_000_000, 5)
    made.usd_per_hour = Decimal(8)
    made.save()
    book(conn)
    assert totals(conn, "cost_nano, cost_status") == (80_000_000, 5)
    made.delete()
    book(conn)
    assert totals(conn, "cost_nano, cost_status, gpu_nano") == (None, 0, None)
    assert holds(conn)


def test_the_rate_of_the_moment_counts(conn, project, pool):
    GpuRate.objects.create(pool=pool, kind="spot", usd_per_hour=Decimal(4))
    GpuRate.objects.create(pool=pool, kind="spot", usd_per_hour=Decimal(2), valid_from=AT + HOUR / 2)
    watch(conn, project, hours=2)
    engine(conn, project)
    store(conn, [served(1, at=0, parent=0), served(2, at=1800, parent=0)], project_id=project.id)
    book(conn)
    found = conn.execute("select gpu_nano from charge order by start_at").fetchall()
    assert found == [(40_000_000,), (20_000_000,)]
    assert totals(conn, "cost_nano", f"gpu_hour where hour_at = '{AT}'") == (3 * DOLLAR,)


@pytest.mark.parametrize(("fields", "nano"), [
    ({"usd_per_hour": Decimal("31.2"), "gpus": 8}, 3_900_000_000),
    ({"kind": "reserved", "usd_per_hour": Decimal(1), "upfront_usd": Decimal(8766), "term_years": Decimal(1)},
     2_000_000_000),
    ({"kind": "owned", "upfront_usd": Decimal(250_000), "residual_usd": Decimal(25_000), "term_years": Decimal(4),
      "gpus": 8, "watts": 10_000, "usd_per_kwh": Decimal("0.2"), "usd_per_hour": Decimal("0.8")},
     1_202_104_723),
])  # fmt: skip
def test_a_gpu_hour_is_worked_out_from_what_people_know(conn, pool, fields, nano):
    pool.pue = Decimal("1.2")
    pool.save()
    assert GpuRate.objects.create(pool=pool, **fields).nano_per_hour == nano


def test_electricity_follows_the_pue_of_the_pool(conn, pool):
    made = GpuRate.objects.create(pool=pool, kind="owned", watts=1000, usd_per_kwh=Decimal("0.5"))
    assert made.nano_per_hour == DOLLAR // 2
    pool.pue = Decimal("1.5")
    pool.save()
    made.refresh_from_db()
    assert made.nano_per_hour == DOLLAR * 3 // 4


# -- engines and calls ---------------------------------------------------------------------------------------------


def test_a_self_hosted_call_never_gets_a_public_price(conn, project, rate):
    """A public list sells this very name, and the client says so."""
    price(project)
    watch(conn, project)
    engine(conn, project, model="gpt-4o-mini")
    mine = {"provider_raw": "openai", "model_requested": "gpt-4o-mini", "model_responded": "gpt-4o-mini"}
    EngineMapping.objects.create(project=project, host="llm.example.com", served_model="gpt-4o-mini")
    store(conn, [served(1, parent=0, host="llm.example.com", **mine)], project_id=project.id)
    drain(conn)
    assert totals(conn, "provider, cost_nano") == ("self-hosted", None)
    book(conn)
    assert totals(conn, "provider, cost_nano, cost_status") == ("self-hosted", 40_000_000, 5)


def test_a_new_mapping_looks_at_recent_traces_again(conn, project, rate):
    price(project)
    watch(conn, project)
    engine(conn, project, model="gpt-4o-mini", host="10.9.9.9:1")
    mine = {"provider_raw": "openai", "model_requested": "gpt-4o-mini", "model_responded": "gpt-4o-mini"}
    store(conn, [served(1, parent=0, host="llm.example.com", **mine)], project_id=project.id)
    book(conn)
    assert totals(conn, "provider, cost_nano") == ("openai", 3_500_000)
    EngineMapping.objects.create(project=project, host="llm.*", served_model="gpt-4o-mini")
    book(conn)
    book(conn)
    assert totals(conn, "provider, cost_nano, rate_id") == ("self-hosted", 40_000_000, None)
    assert holds(conn)


def test_own_token_prices_stand_in_until_the_hour_is_closed(conn, project, rate):
    from costapp.models import PriceList, RateSet

    own = PriceList.objects.create(project=project, name="internal")
    RateSet.objects.create(price_list=own, provider="self-hosted", model="llama", rates={"input": {"nano": 10**9}})
    watch(conn, project)
    engine(conn, project)
    store(conn, [served(1, parent=0, output=0)], project_id=project.id)
    drain(conn)
    assert totals(conn, "cost_nano, cost_status") == (1_000_000, 1)
    book(conn)
    assert totals(conn, "cost_nano, cost_status, rate_id") == (40_000_000, 5, None)
    assert holds(conn)


def test_the_servers_own_span_says_when_it_worked_and_who_it_was(conn, project, rate):
    """The app saw 60 seconds; the server says 10 of queue, 6 of prefill and 30 of decode, in pod llama-1."""
    for number in (0, 1):
        watch(conn, project, node=f"node-{number}", pod=f"llama-{number}")
        engine(conn, project, node=f"node-{number}", pod=f"llama-{number}", host=f"10.0.0.{number}:8000")
    app = served(1, seconds=60, host="llama.svc", provider_raw="openai")
    own = call(1, 3, parent=2, start_ns=AT_NS + 605 * SECOND_NS, provider_raw=None, role=Role.MAYBE, scope="vllm",
               model_requested=None, model_responded="llama", duration_us=46_000_000, queue_us=10_000_000,
               prefill_us=6_000_000, decode_us=30_000_000, instance="llama-1", response_id=None,
               operation=None)  # fmt: skip
    store(conn, [root(1, feature="bot"), app, own], project_id=project.id)
    book(conn)
    assert totals(conn, "count(*), sum(gpu_nano)::int, min(feature)") == (1, 40_000_000, "bot")
    assert totals(conn, "node", "gpu_hour where attributed_nano > 0") == ("node-1",)
    read, attributed = totals(conn, "sum(prefill_nano)::int, sum(attributed_nano)::int", "gpu_model_hour")
    assert (read, attributed) == (round(40_000_000 / 6), 40_000_000)


def test_replicas_that_nobody_tells_apart_are_one_server(conn, project, rate):
    for number in (0, 1):
        watch(conn, project, node=f"node-{number}", pod=f"llama-{number}", util=0)
        engine(conn, project, node=f"node-{number}", pod=f"llama-{number}", host=f"10.0.0.{number}:8000")
    store(conn, [served(1, parent=0, host="gateway.internal")], project_id=project.id)
    book(conn)
    assert totals(conn, "gpu_nano") == (80_000_000,)
    assert holds(conn)


def test_engines_that_share_a_gpu_share_its_price(conn, project, rate):
    """Time-slicing: two pods hold one GPU; both are active for 36 seconds."""
    holders = (Holder("prod", "llama-0", "vllm"), Holder("prod", "mistral-0", "vllm"))
    insert_samples(conn, project.id, [
        GpuSample("GPU-1", AT + timedelta(seconds=s), util_bp=9000, util_rank=0, node="node-a", holders=holders)
        for s in range(0, 3600, 15)
    ])  # fmt: skip
    engine(conn, project)
    engine(conn, project, pod="mistral-0", model="mistral", host="10.0.0.8:8000")
    other = {"model_requested": "mistral", "model_responded": "mistral", "host": "10.0.0.8:8000"}
    store(conn, [served(1, parent=0), served(2, parent=0, **other)], project_id=project.id)
    book(conn)
    assert conn.execute("select gpu_nano from charge").fetchall() == [(20_000_000,), (20_000_000,)]
    assert totals(conn, "cost_nano, gpus", f"gpu_hour where hour_at = '{AT}'") == (4 * DOLLAR, 1)
    assert holds(conn)


def test_mig_slices_cost_sevenths_and_what_no_slice_has_is_idle(conn, project, pool):
    GpuRate.objects.create(pool=pool, usd_per_hour=Decimal(7))
    for number, profile in ((1, "3g.40gb"), (2, "2g.20gb")):
        insert_samples(conn, project.id, [
            GpuSample(f"GPU-1/{number}", AT + timedelta(seconds=s), util_bp=0, util_rank=0, held=True, node="node-a",
                      mig_profile=profile, holders=(Holder("prod", f"llama-{number}", "vllm"),), target="node-a:9400")
            for s in range(0, 7200, 15)
        ])  # fmt: skip
    insert_samples(conn, project.id, [
        GpuSample("GPU-1", AT + timedelta(seconds=s), power_mw=360_000, node="node-a") for s in range(0, 7200, 15)
    ])  # fmt: skip
    engine(conn, project, pod="llama-1")
    store(conn, [served(1, parent=0)], project_id=project.id)
    book(conn)
    assert totals(conn, "gpu_nano") == (30_000_000,)
    assert buckets(conn, where=f"hour_at = '{AT}'") == {
        "attributed": 30_000_000, "busy": 0, "held": 5 * DOLLAR - 30_000_000, "free": 2 * DOLLAR, "unobserved": 0,
    }  # fmt: skip
    assert totals(conn, "sum(energy_mj)::bigint, sum(gpus)", f"gpu_hour where hour_at = '{AT}'") == (360_000 * 3600, 2)
    assert holds(conn)


def test_prefill_and_decode_on_different_pods(conn, project, rate):
    for number, name in enumerate(("prefill", "decode")):
        watch(conn, project, node=f"node-{name}", pod=f"{name}-0")
        engine(conn, project, node=f"node-{name}", pod=f"{name}-0", host=f"10.0.1.{number}:8000")
        EngineMapping.objects.create(project=project, model="llama", pod=f"{name}-*", role=name)
    store(conn, [served(1, parent=0, seconds=48, ttft_us=12_000_000, host="gateway.internal")], project_id=project.id)
    book(conn)
    rows = conn.execute("select node, attributed_us from gpu_hour where attributed_us > 0 order by node").fetchall()
    assert rows == [("node-decode", 36_000_000), ("node-prefill", 12_000_000)]
    assert abs(totals(conn, "gpu_nano")[0] - 48 * 4 * DOLLAR // 3600) <= 2
    assert totals(conn, "sum(requests)::int", "gpu_model_hour where model = 'llama'") == (1,)
    assert holds(conn)


def test_a_call_without_an_engine_is_counted_and_stays_unpriced(conn, project, rate):
    watch(conn, project)
    engine(conn, project)
    other = {"model_requested": "unknown", "model_responded": "unknown", "host": "elsewhere.internal"}
    store(conn, [served(1, parent=0, **other)], project_id=project.id)
    book(conn)
    assert totals(conn, "cost_nano, cost_status") == (None, 0)
    assert totals(conn, "calls, lost_calls", f"gpu_hour_state where hour_at = '{AT}'") == (1, 1)


@pytest.mark.parametrize("method", ["sharing", "tokens", "phases", "capacity"])
def test_every_method_books_what_it_attributes(conn, project, pool, rate, method):
    pool.method, pool.capacity_tokens = method, 10**7
    pool.save()
    watch(conn, project, gpus=2, hours=2)
    engine(conn, project)
    rng = random.Random(5)
    store(conn, [served(n, at=rng.randrange(3700), seconds=rng.randrange(1, 90), input=rng.randrange(9000),
                        output=rng.randrange(900), parent=0) for n in range(1, 60)], project_id=project.id)  # fmt: skip
    book(conn)
    assert totals(conn, "count(*) filter (where cost_status = 5)::int") == (59,)
    assert totals(conn, "sum(gpu_nano)::bigint") == totals(conn, "sum(attributed_nano)::bigint", "gpu_hour")
    assert totals(conn, "sum(attributed_nano)::bigint", "gpu_model_hour") == totals(conn, "sum(gpu_nano)::bigint")
    assert totals(conn, "sum(cost_nano)::bigint", "gpu_model_hour") == totals(
        conn, "sum(cost_nano)::bigint", "gpu_hour"
    )
    assert holds(conn)


# -- nothing is lost -----------------------------------------------------------------------------------------------


def test_resolving_and_repricing_again_keep_the_gpu_money(conn, project, rate):
    price(project)
    watch(conn, project)
    engine(conn, project)
    store(conn, [served(1, parent=1), call(1, 9)], project_id=project.id)
    book(conn)
    before = fingerprint(conn, ["charge"])
    store(conn, [root(1, feature="late")], project_id=project.id)
    drain(conn)
    assert totals(conn, "sum(gpu_nano)::int, count(*) filter (where feature = 'late')::int") == (40_000_000, 2)
    assert fingerprint(conn, ["charge"]) != before
    assert reprice(conn, project).changed == 0
    book(conn)
    assert totals(conn, "feature, gpu_nano", "gpu_use_hour") == ("late", 40_000_000)
    assert holds(conn)


def again(conn, hour_at=AT):
    conn.execute("insert into dirty_gpu_hour (project_id, hour_at, node) select project_id, hour_at, '' from"
                 " gpu_hour_state where hour_at = %s", (hour_at,))  # fmt: skip


def test_an_hour_worked_out_again_writes_only_what_differs(conn, project, rate):
    watch(conn, project)
    engine(conn, project)
    store(conn, [served(1, parent=0), served(2, parent=0, at=1200)], project_id=project.id)
    book(conn)
    places = conn.execute("select ctid, xmin, trace_id from gpu_share order by trace_id").fetchall()
    again(conn)
    assert allocate_all(conn, now=LATER) == 1
    assert conn.execute("select ctid, xmin, trace_id from gpu_share order by trace_id").fetchall() == places
    store(conn, [served(3, parent=0, at=1210)], project_id=project.id)
    book(conn)
    assert conn.execute("select ctid, xmin, trace_id from gpu_share order by trace_id").fetchall()[0] == places[0]
    assert totals(conn, "count(*), sum(gpu_nano)::bigint") == (3, 40_000_000 + round(46 * 4 * DOLLAR / 3600))
    assert totals(conn, "count(*)", "charge_revision") == (1,)
    assert holds(conn)


def test_shares_that_a_worker_left_behind_are_brought_into_charges_by_the_next(conn, project, pool, rate, monkeypatch):
    watch(conn, project)
    engine(conn, project)
    store(conn, [served(1, parent=0)], project_id=project.id)
    book(conn)
    GpuRate.objects.filter(pool=pool).update(nano_per_hour=8 * DOLLAR)
    with monkeypatch.context() as patched, open_connection() as other:
        patched.setattr(gpu_apply, "stage", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            allocate_all(other, now=LATER)
    assert totals(conn, "gpu_nano") == (40_000_000,)
    assert totals(conn, "gpu_nano", "gpu_share") == (80_000_000,)
    again(conn)  # and it is worked out once more before they are
    book(conn)
    assert totals(conn, "gpu_nano") == (80_000_000,)
    assert holds(conn)


def test_explain_names_the_gpu_hours_of_a_call(conn, project, rate, settings, capsys):
    settings.DATABASE_URL = conn.info.dsn + f" password={conn.info.password}"
    watch(conn, project)
    engine(conn, project)
    store(conn, [served(1, parent=0)], project_id=project.id)
    drain(conn)
    call_command("explain", trace_id(1).hex())
    assert "GPU hour 2026-05-29 12:00 UTC: still open" in capsys.readouterr().out
    book(conn)
    call_command("explain", trace_id(1).hex())
    text = capsys.readouterr().out
    assert "GPU hour 2026-05-29 12:00 UTC: $0.04 of pool h100, in which it ran for 36.000 s." in text


def test_many_calls_are_brought_into_charges_some_shards_at_a_time(conn, project, rate, monkeypatch):
    monkeypatch.setattr(allocate_gpu_hours, "CALLS_AT_ONCE", 5)
    watch(conn, project, hours=2)
    engine(conn, project)
    store(conn, company(), project_id=project.id)
    book(conn)
    assert totals(conn, "count(*) filter (where gpu_nano > 0)::int") == (36,)
    assert holds(conn)


def company():
    spans = [root(n, feature=f"f{n % 3}", user=f"u{n % 4}", session=f"s{n % 5}") for n in range(1, 25)]
    spans += [served(n, 2, at=120 * n, seconds=200 + n) for n in range(1, 25)]
    spans += [served(n, 3, at=120 * n + 7, seconds=50, ttft_us=9_000_000) for n in range(1, 25, 2)]
    return spans + [call(n, 4) for n in range(1, 25, 3)]


def test_any_order_of_spans_samples_and_jobs_gives_the_same_bytes(conn, project, pool, rate):
    price(project)
    tables = [*DERIVED_TABLES, *GPU_TABLES]

    def deliver(order):
        for step in order:
            step()
        book(conn)
        found = fingerprint(conn, tables)
        empty(conn)
        return found

    spans = company()
    steps = [
        lambda: store(conn, spans[:20], project_id=project.id),
        lambda: store(conn, spans[20:], project_id=project.id),
        lambda: (watch(conn, project, gpus=2), engine(conn, project, hours=2)),
        lambda: watch(conn, project, gpus=2, start=AT + HOUR),
        lambda: book(conn),
        lambda: drain(conn),
        lambda: store(conn, spans[::3], project_id=project.id),
    ]
    expected = deliver(steps)
    assert any(expected["gpu_share"])
    for seed in range(6):
        random.Random(seed).shuffle(steps)
        assert deliver(steps) == expected


@pytest.mark.parametrize(("spoil", "names"), [
    ("update charge set gpu_nano = gpu_nano + 1, cost_nano = cost_nano + 1", {"gpu-charges-are-shares"}),
    ("update charge set gpu_nano = null, cost_nano = null, cost_status = 0", {"gpu-charges-are-shares"}),
    ("delete from gpu_share", {"gpu-charges-are-shares", "gpu-shares-are-attributed"}),
    ("update gpu_share set gpu_nano = gpu_nano - 1", {"gpu-charges-are-shares", "gpu-shares-are-attributed"}),
    ("update gpu_model_hour set cost_nano = cost_nano - 1", {"gpu-models-are-hours"}),
])  # fmt: skip
def test_the_ledger_check_finds_gpu_money_that_does_not_add_up(conn, project, rate, spoil, names):
    watch(conn, project)
    engine(conn, project)
    store(conn, [served(1, parent=0)], project_id=project.id)
    book(conn)
    assert holds(conn)
    conn.execute(spoil)
    found = {verified.result.check.name for verified in verify(conn) if verified.result.differences}
    assert {name for name in found if name.startswith("gpu-")} == names


def test_the_database_refuses_an_hour_that_does_not_add_up(conn, project, rate):
    watch(conn, project)
    book(conn)
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("update gpu_hour set cost_nano = cost_nano + 1")
