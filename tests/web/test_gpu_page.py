"""The GPU page: its parts add up to the bill, its money is that of the other pages, and it says what is missing."""

import csv
import io
import json
import re
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import pytest

from costapp.core.gpu_samples import EngineSample, GpuSample, Holder
from costapp.models import GpuPool, GpuRate
from costapp.services.allocate_gpu_hours import allocate_all
from costapp.services.drain import drain
from costapp.storage.gpu_samples import insert_engine_samples, insert_samples
from costapp.web import format as fmt
from tests import pipeline
from tests.web.conftest import World

pytestmark = pytest.mark.django_db

HOURS = 6
HOST = "10.0.0.7:8000"
NANO = 10**9


@pytest.fixture(scope="module")
def fleet(world: World) -> World:
    """Two GPUs at $4 an hour for six hours with two calls on them, and a node nobody has set a rate for."""
    pool = GpuPool.objects.create(project=world.project, name="h100", node_pattern="node-a", grams_per_kwh=400)
    GpuRate.objects.create(pool=pool, usd_per_hour=Decimal(4))
    start = world.now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=30)
    holders = (Holder("prod", "llama-0", "vllm"),)
    insert_samples(world.conn, world.project.pk, [
        GpuSample(f"GPU-{node}-{number}", start + timedelta(minutes=minute), util_bp=300, util_rank=0, held=True,
                  power_mw=250_000, memory_used_bytes=70 << 30, memory_total_bytes=80 << 30, node=node,
                  gpu_model="H100 <b>", holders=holders if node == "node-a" else (), target=f"{node}:9400")
        for node in ("node-a", "node-<i>b</i>")
        for number in range(2)
        for minute in range(HOURS * 60)
    ])  # fmt: skip
    insert_engine_samples(world.conn, world.project.pk, [
        EngineSample("vllm", HOST, "llama", start + timedelta(minutes=minute), node="node-a", namespace="prod",
                     pod="llama-0")
        for minute in range(0, HOURS * 60, 5)
    ])  # fmt: skip
    at_ns = int(start.timestamp()) * pipeline.SECOND_NS
    spans = []
    for trace, second in ((900, 600), (901, 4000)):
        spans.append(pipeline.root(trace, start_ns=at_ns + second * pipeline.SECOND_NS, feature="checkout", team="core",
                                   user="u-1", session="s-1"))  # fmt: skip
        spans.append(pipeline.call(
            trace, start_ns=at_ns + second * pipeline.SECOND_NS, provider_raw="vllm", model_requested="llama",
            model_responded="llama", host=HOST, duration_us=36_000_000, input=1000, output=500,
        ))  # fmt: skip
    pipeline.store(world.conn, spans, project_id=world.project.pk)
    drain(world.conn)
    allocate_all(world.conn, now=world.now)
    drain(world.conn)
    return world


def page(world: World, query: str = "range=7d") -> str:
    answer = world.client().get(f"/p/{world.project.slug}/gpus/?{query}")
    assert answer.status_code == 200
    return answer.content.decode()


def figure(html: str, name: str) -> dict[str, Any]:
    found = re.search(rf'<script id="{name}" type="application/json">(.*?)</script>', html, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def booked(world: World) -> int:
    return int(world.scalar("select sum(gpu_nano) from charge"))


def test_the_five_parts_add_up_to_the_bill_to_the_nano_dollar(fleet: World) -> None:
    answer = fleet.client().get(f"/p/{fleet.project.slug}/gpus/?range=7d&format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode())))

    bill = sum(int(Decimal(row["bill_usd"]) * NANO) for row in rows)
    parts = [name for name in rows[0] if name.endswith("_usd") and name != "bill_usd"]
    assert len(parts) == 5
    for row in rows:
        assert sum(Decimal(row[name]) for name in parts) == Decimal(row["bill_usd"])
    assert bill == int(fleet.scalar("select sum(cost_nano) from gpu_hour"))
    assert bill >= HOURS * 2 * 4 * NANO
    assert sum(int(Decimal(row["attributed_usd"]) * NANO) for row in rows) == booked(fleet) > 0


def test_the_chart_draws_what_the_table_says(fleet: World) -> None:
    html = page(fleet)
    drawn = figure(html, "figure-gpu")["data"]
    assert [trace["name"] for trace in drawn] == [
        "Attributed to calls", "Busy, not traced", "Idle, model loaded", "Idle, empty", "No telemetry",
    ]  # fmt: skip
    total = sum(sum(trace["y"]) for trace in drawn)
    assert total == pytest.approx(int(fleet.scalar("select sum(cost_nano) from gpu_hour")) / NANO)
    heat = figure(html, "figure-heat")["data"][0]
    known = [value for row in heat["z"] for value in row if value is not None]
    assert known
    assert all(value == pytest.approx(0.03) for value in known)
    assert any(value is None for row in heat["z"] for value in row), "a gap is a gap, not 0"


def test_a_node_without_a_rate_is_shown_and_its_cost_is_unknown_not_zero(fleet: World) -> None:
    html = page(fleet)
    assert "no rate yet" in html
    assert "have no rate yet: their cost is unknown and not in the bill" in html
    assert "node-&lt;i&gt;b&lt;/i&gt;" in html
    assert "<i>b</i>" not in html


def test_gpu_money_is_in_the_cost_of_the_feature_and_can_be_taken_out(fleet: World) -> None:
    def total(query: str) -> int:
        answer = fleet.client().get(f"/p/{fleet.project.slug}/?range=7d&format=json{query}")
        return int(Decimal(answer.json()["total"]["cost_usd"]) * NANO)

    assert total("") - total("&gpu=0") == booked(fleet)
    with_gpu = fleet.client().get(f"/p/{fleet.project.slug}/feature/?is=checkout&range=7d").content.decode()
    assert "of which own GPUs" in with_gpu
    assert 'aria-pressed="true" title="Costs include what calls caused on your own GPUs"' in with_gpu
    without = fleet.client().get(f"/p/{fleet.project.slug}/feature/?is=checkout&range=7d&gpu=0").content.decode()
    assert "without own GPUs" in without


def test_a_session_says_how_much_of_its_cost_is_gpu_money(fleet: World) -> None:
    html = fleet.client().get(f"/p/{fleet.project.slug}/session/?is=s-1").content.decode()
    nano = booked(fleet)
    assert f'of which own GPUs <span class="money" title="${nano // NANO}.{nano % NANO:09d}">' in html


def test_one_pool_is_shown_alone_and_an_unknown_one_is_all(fleet: World) -> None:
    pool = GpuPool.objects.get(project=fleet.project)
    alone = page(fleet, f"range=7d&pool={pool.pk}")
    assert "<h1>GPUs: h100</h1>" in alone
    assert "node-a" in alone
    assert "node-&lt;i&gt;" not in alone
    assert "<h1>GPUs</h1>" in page(fleet, "range=7d&pool=99999999")


def test_unit_costs_stand_on_both_bases(fleet: World) -> None:
    html = page(fleet)
    assert "allocation</td>" in html
    assert "usage</td>" in html
    attributed = booked(fleet)
    blended = (2 * attributed * 1_000_000 + 3000) // (2 * 3000)
    assert f'title="${blended // NANO}.{blended % NANO:09d}"' in html


def test_the_comparison_follows_every_assumption(fleet: World) -> None:
    cheap_api = page(fleet, "range=7d&api-input=1&api-cached=1&api-output=1")
    assert "the API costs" in cheap_api
    dear_api = page(fleet, "range=7d&api-input=100000&api-cached=1&api-output=100000")
    assert "the GPUs cost" in dear_api
    free_gpus = page(fleet, "range=7d&gpu-hour=0.000001&api-input=1&api-cached=1&api-output=1")
    assert "the GPUs cost" in free_gpus
    twice = page(fleet, "range=7d&load=200&api-input=1&api-cached=1&api-output=1")
    assert "6k tokens" in twice


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("api-input=cheap", "The API&#x27;s price of input must be an amount of dollars"),
        ("api-output=-1", "The API&#x27;s price of output must be an amount of dollars"),
        ("gpu-hour=NaN", "The price of a GPU-hour must be an amount of dollars"),
        ("load=much", "Traffic must be a whole number of percent"),
    ],
)
def test_an_assumption_that_cannot_be_read_is_said_in_words(fleet: World, query: str, words: str) -> None:
    assert words in page(fleet, f"range=7d&{query}")


def test_users_are_listed_for_short_ranges_only(fleet: World) -> None:
    assert "Users are listed for ranges of up to eight days with at most 20,000 calls." in page(fleet, "range=30d")
    assert "u-1</a>" in page(fleet, "range=7d")


def test_without_gpus_the_page_says_how_to_send_them(fleet: World) -> None:
    html = page(fleet, "from=2024-01-01&to=2024-01-02")
    assert "No GPU was seen in this range" in html
    assert "Pools are set up" in html


def call_page(world: World, trace: int) -> str:
    address = f"/p/{world.project.slug}/trace/{pipeline.trace_id(trace).hex()}/{2:016x}/"
    answer = world.client().get(address)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_the_page_of_a_call_says_which_gpu_hour_it_paid_for(fleet: World) -> None:
    html = call_page(fleet, 900)
    start = world_start(fleet)
    assert 'h100 <span class="muted">processor sharing</span>' in html
    assert urlencode({"from": start.isoformat()}) in html
    assert '<td class="r nowrap">36.00 s</td><td class="r">100%</td>' in html
    own = int(fleet.scalar(f"select gpu_nano from charge where trace_id = '{pipeline.trace_id(900).hex()}'"))
    assert f'<span class="money">${fmt.exact_usd(own)}</span>' in html


def test_the_page_of_a_call_whose_hour_is_open_says_so(fleet: World) -> None:
    at_ns = int(fleet.now.timestamp()) * pipeline.SECOND_NS - 60 * pipeline.SECOND_NS
    spans = [pipeline.call(902, parent=0, start_ns=at_ns, provider_raw="vllm", model_requested="llama",
                           model_responded="llama", host=HOST, duration_us=1_000_000)]  # fmt: skip
    pipeline.store(fleet.conn, spans, project_id=fleet.project.pk)
    drain(fleet.conn)
    html = call_page(fleet, 902)
    assert "still open: it is worked out ten minutes after it ended" in html
    assert "Why it has no cost yet" in html
    listed = fleet.client().get(f"/p/{fleet.project.slug}/calls/?range=24h").content.decode()
    assert listed.count("no GPU share yet") == 1


def test_the_page_of_another_call_has_no_gpu_hours(fleet: World) -> None:
    assert "GPU hour" not in call_page(fleet, 1)


def world_start(world: World) -> datetime:
    return world.now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=30)
