"""What pages will show of GPU hours: every figure adds up to the bill, and cost can be seen without GPU money."""

from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest

from costapp.models import GpuPool, GpuRate
from costapp.services.drain import drain
from costapp.storage.reports import activity, gpu, spend, state
from costapp.storage.reports.cells import Grain, Scope
from costapp.web.views.overview import matters
from tests.pipeline import call, price, root, store
from tests.services.test_gpu_hours import AT, DOLLAR, HOUR, book, engine, served, watch


@pytest.fixture
def scope(project):
    return Scope(project.id, "UTC", AT.replace(hour=0), AT.replace(hour=0) + timedelta(days=1), Grain.DAY)


@pytest.fixture
def fleet(conn, project):
    """Two pools and a node nobody priced: an afternoon of traffic on one, an idle one, and an unknown one."""
    price(project)
    busy = GpuPool.objects.create(
        project=project, name="h100", node_pattern="node-*", grams_per_kwh=400, pue=Decimal("1.5")
    )
    idle = GpuPool.objects.create(project=project, name="l4", node_pattern="cheap-*")
    GpuRate.objects.create(pool=busy, usd_per_hour=Decimal(4))
    GpuRate.objects.create(pool=idle, usd_per_hour=Decimal(1))
    watch(conn, project, gpus=2, hours=3, util=0, power_mw=300_000, memory_used_bytes=40 * 2**30,
          memory_total_bytes=80 * 2**30)  # fmt: skip
    watch(conn, project, node="cheap-1", hours=3, util=0, pod="", gpu_model="L4")
    watch(conn, project, node="stray", hours=3, util=9000, pod="")
    engine(conn, project, hours=3)
    spans = [root(n, feature=f"f{n % 2}", user=f"u{n % 3}", session="s", team="core") for n in range(1, 13)]
    spans += [served(n, at=n * 300, seconds=60, ttft_us=15_000_000, input=1000, output=200, cache_read=500)
              for n in range(1, 13)]  # fmt: skip
    store(conn, [*spans, call(1, 9)], project_id=project.id)
    book(conn)
    return busy, idle


def test_pools_hours_and_models_add_up_to_the_bill(conn, fleet, scope):
    total = gpu.total(conn, scope)
    assert total.cost_nano == sum(getattr(total, f"{name}_nano") for name in gpu.BUCKETS)
    assert total.gpu_us == sum(getattr(total, f"{name}_us") for name in gpu.BUCKETS)
    pools = gpu.pools(conn, scope)
    assert [(pool.name, pool.gpus, pool.has_rate) for pool in pools] == [
        ("h100", 2, True),
        ("l4", 1, True),
        ("", 1, False),
    ]
    assert sum(pool.bill.cost_nano for pool in pools) == total.cost_nano
    assert sum(model.cost_nano for model in gpu.models(conn, scope)) == total.cost_nano
    assert sum(node.bill.cost_nano for node in gpu.nodes(conn, scope)) == total.cost_nano
    hourly = scope._replace(grain=Grain.HOUR)
    for points in (gpu.course(conn, hourly), gpu.course(conn, scope)):
        assert sum(point.bill.cost_nano for point in points) == total.cost_nano
    fields = gpu.heat(conn, hourly, names=[node.node for node in gpu.nodes(conn, hourly)])
    assert sum(field.bill.gpu_us for field in fields) == total.gpu_us
    assert gpu.together(pool.bill for pool in gpu.pools(conn, scope)) == total
    assert sum(use.gpu_nano for use in gpu.uses(conn, scope)) == total.attributed_nano
    assert sum(use.gpu_nano for use in gpu.uses(conn, scope, by="team")) == total.attributed_nano
    assert sum(use.gpu_nano for use in gpu.users(conn, scope)) == total.attributed_nano
    assert spend.totals(conn, scope).gpu_nano == total.attributed_nano == 2 * 4 * DOLLAR * 12 // 60


def test_a_node_without_a_rate_comes_first_and_its_cost_is_unknown(conn, fleet, scope):
    first = gpu.nodes(conn, scope)[0]
    assert (first.node, first.pool, first.bill.known_cost_nano) == ("stray", "", None)
    assert first.bill.unrated_us == first.bill.gpu_us > 0


def test_figures_of_a_pool_are_those_of_its_samples(conn, fleet, scope):
    bill = gpu.pools(conn, scope)[0].bill
    assert bill.utilisation == 0.0
    assert bill.memory_used == 0.5
    assert bill.mean_watts == 300.0
    assert bill.per_gpu_hour_nano == 4 * DOLLAR
    assert bill.kwh == pytest.approx(2 * 0.3 * 3, rel=0.02)
    assert gpu.pools(conn, scope)[0].grams == pytest.approx(bill.kwh * 1.5 * 400)
    assert gpu.pools(conn, scope)[1].grams is None
    assert bill.efficiency == pytest.approx(12 * 60 * 2 / (bill.gpu_us / 1e6))


def test_cost_per_million_tokens_with_and_without_idle_time(conn, fleet, scope):
    model = next(model for model in gpu.models(conn, scope) if model.model == "llama")
    assert (model.requests, model.input_tokens, model.output_tokens) == (12, 12 * 500, 12 * 200)
    for allocation, money in ((True, model.cost_nano), (False, model.attributed_nano)):
        tokens = {"input": model.input_tokens, "cached": model.cached_tokens, "output": model.output_tokens}
        worth = sum(model.per_million(kind, allocation=allocation) * count for kind, count in tokens.items())
        assert abs(worth - money * 10**6) < 10**6 * 20
        assert model.blended_per_million(allocation=allocation) == pytest.approx(money * 10**6 / sum(tokens.values()))
    assert model.prefill_nano == model.attributed_nano // 4
    assert model.per_million("cached", allocation=False) * 10 == pytest.approx(
        model.per_million("input", allocation=False)
    )
    assert model.grams_per_million == pytest.approx(model.kwh_per_million * 600)


def test_idle_money_by_pool_and_its_trend(conn, fleet, scope):
    rows = gpu.idle(conn, scope)
    assert [row.pool for row in rows] == ["h100", "l4", ""]
    assert (rows[1].held_nano, rows[1].free_nano > 2 * DOLLAR, rows[1].share, rows[1].before_nano) == (
        0,
        True,
        1.0,
        None,
    )
    later = scope.between(scope.end, scope.end + timedelta(days=1))
    assert gpu.idle(conn, later) == []
    half = scope._replace(start=AT + HOUR, end=AT + 2 * HOUR)
    assert gpu.idle(conn, half)[1].before_nano == DOLLAR


def test_break_even_compares_the_same_tokens(conn, fleet, scope):
    found = gpu.break_even(conn, scope, model="llama")
    api = found.api_nano(input_nano=DOLLAR, cached_nano=DOLLAR // 10, output_nano=4 * DOLLAR)
    assert api == 6000 * 1000 + 6000 * 100 + 2400 * 4000
    assert found.load_factor(api) == found.cost_nano / api
    assert gpu.break_even(conn, scope, pool_id=-1).load_factor(0) is None


def test_closing_says_what_could_not_be_split(conn, project, fleet, scope):
    other = {"model_requested": "unknown", "model_responded": "unknown", "host": "elsewhere.internal"}
    store(conn, [served(50, parent=0, **other)], project_id=project.id)
    book(conn)
    found = gpu.closing(conn, scope)
    assert (found.waiting, found.calls, found.lost_calls, found.unrated_calls) == (0, 13, 1, 0)


@pytest.mark.parametrize("by", ["feature", "user", "team", "model"])
def test_cost_without_gpu_money_is_what_others_bill(conn, fleet, scope, by):
    without = scope._replace(gpu=False)
    assert spend.totals(conn, scope).cost_nano == 3_500_000 + spend.totals(conn, scope).gpu_nano
    for table in (spend.split(conn, without, by), spend.split(conn, without.where(user=("u0", "u1", "u2")), by)):
        assert (table.total.cost_nano, table.total.gpu_nano) == (3_500_000, 0)
        assert sum(row.sums.cost_nano for row in table.rows) == 3_500_000
    assert sum(point.cost_nano for point in spend.series(conn, without, by, values=None, before=None)) == 3_500_000


def test_sessions_and_users_without_gpu_money(conn, fleet, scope):
    for wanted, nano in (
        (scope, 3_500_000 + spend.totals(conn, scope).gpu_nano),
        (scope._replace(gpu=False), 3_500_000),
    ):
        assert sum(session.cost_nano for session in activity.top_sessions(conn, wanted)) == nano
        assert sum(user.cost_nano for user in activity.top_users(conn, wanted)) == nano
        by_user = [activity.top_sessions_of_user(conn, wanted.where(user=(f"u{n}",))) for n in range(3)]
        assert sum(session.cost_nano for found in by_user for session in found) == nano


def test_calls_whose_hour_is_open_are_no_missing_price(conn, project, scope):

    store(
        conn,
        [served(1, parent=0), call(2, parent=0, model_requested="x-9", model_responded="x-9")],
        project_id=project.id,
    )
    drain(conn)
    gaps = state.unpriced_models(conn, scope)
    assert {(gap.model, gap.is_own) for gap in gaps} == {("x-9", False), ("llama", True)}
    report = SimpleNamespace(total=SimpleNamespace(now=spend.totals(conn, scope)), by="model")
    assert [(matter.level, matter.text.partition(":")[0]) for matter in matters(report, gaps)] == [
        ("bad", "1 requests to x-9 carry no price"),
        ("warn", "1 requests to llama on your own GPUs have no cost yet"),
    ]
