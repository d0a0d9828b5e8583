"""GPUs that stay when their traffic leaves, or become more than it needs: found, explained, and linked."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from costapp.models import GpuPool, Membership
from costapp.services.detect_anomalies import detect_anomalies
from costapp.storage import anomalies as store
from tests.anomalies.conftest import BROKE, START

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
GPUS, GPU_HOUR_NANO, HOUR_US = 8, 2_000_000_000, 3_600_000_000
COLUMNS = (
    "project_id", "pool_id", "hour_at", "node", "gpu_model", "gpus", "gpu_us", "attributed_us", "held_us",
    "cost_nano", "attributed_nano", "held_nano",
)  # fmt: skip
NOTHING = (
    "busy_nano", "free_nano", "unobserved_nano", "busy_us", "free_us", "unobserved_us", "unrated_us", "util_bp_s",
    "util_s", "memory_mib_s", "memory_total_mib_s", "memory_s", "energy_mj", "energy_us",
)  # fmt: skip
MODEL_NOTHING = (
    "cost_nano", "attributed_nano", "prefill_nano", "busy_nano", "held_nano", "free_nano", "unobserved_nano",
    "input_tokens", "cached_tokens", "output_tokens", "gpu_us", "active_us", "energy_mj",
)  # fmt: skip


@pytest.fixture(scope="module")
def pool(world, django_db_blocker):
    with django_db_blocker.unblock():
        yield GpuPool.objects.create(project=world.project, name="h100")


@pytest.fixture(autouse=True)
def no_gpus(world):
    world.conn.execute("truncate gpu_hour, gpu_model_hour")
    yield
    world.conn.execute("truncate gpu_hour, gpu_model_hour")


def hours(world, pool, until, *, since=None, traffic=1, gpus=GPUS):
    """Busy by day and calm by night; ``traffic`` and ``gpus`` hold from ``since`` on."""
    bills, uses, at = [], [], START
    while at < until:
        after = since is not None and at >= since
        share = (60 if 6 <= at.hour <= 18 else 25) + at.hour % 3
        count = gpus if after else GPUS
        worked_percent = share * (traffic if after else 1) * GPUS / count
        time_us, worked_us = count * HOUR_US, int(count * HOUR_US * worked_percent / 100)
        cost, worked = count * GPU_HOUR_NANO, count * GPU_HOUR_NANO * int(worked_percent * 100) // 10_000
        bills.append((world.project.pk, pool.pk, at, "n1", "H100", count, time_us, worked_us, time_us - worked_us,
                      cost, worked, cost - worked))  # fmt: skip
        uses.append((world.project.pk, pool.pk, at, int(100 * share * (traffic if after else 1))))
        at += HOUR
    with world.conn.cursor() as cursor:
        cursor.executemany(
            f"insert into gpu_hour ({', '.join((*COLUMNS, *NOTHING))})"
            f" values ({', '.join(['%s'] * len(COLUMNS) + ['0'] * len(NOTHING))})",
            bills,
        )
        cursor.executemany(
            f"insert into gpu_model_hour (project_id, pool_id, hour_at, model, requests, {', '.join(MODEL_NOTHING)})"
            f" values (%s, %s, %s, 'llama', %s, {', '.join(['0'] * len(MODEL_NOTHING))})",
            uses,
        )


def of_pools(world, at):
    detect_anomalies(world.conn, now=at + timedelta(minutes=2))
    return [each for each in store.since(world.conn, world.project.pk, START) if each.dimension == "gpu_pool"]


LEFT = BROKE - timedelta(hours=24)


def test_gpus_that_stay_when_traffic_leaves_are_found_with_the_reason(world, pool):
    hours(world, pool, BROKE, since=LEFT, traffic=0.1)
    (anomaly,) = of_pools(world, BROKE)
    assert (anomaly.value, anomaly.kind, anomaly.state) == (str(pool.pk), "idle_gpu", "open")
    assert LEFT - HOUR <= anomaly.start_at <= LEFT + HOUR
    assert anomaly.odd_at <= LEFT + 3 * HOUR
    assert re.fullmatch(
        r"Pool h100: \$[\d.]+ idle above expected since \d+ May, \d\d:\d\d: requests fell by (89|90|91) %\.",
        anomaly.title,
    )
    (idle,) = world.rows(
        "select sum(held_nano + free_nano) from gpu_hour where hour_at >= %s and hour_at < %s",
        anomaly.start_at, anomaly.end_at,
    )  # fmt: skip
    assert anomaly.actual_nano == idle
    assert 0 < anomaly.above_nano < idle
    assert world.rows("select subject from alert where source = 'anomaly'") == [{"gpu_pool": "h100"}]


def test_its_card_leads_to_the_gpus_of_the_pool_and_cost_charts_do_not_mark_it(world, pool):
    hours(world, pool, BROKE, since=LEFT, traffic=0.1)
    (anomaly,) = of_pools(world, BROKE)
    user = get_user_model().objects.create_user("mia")
    Membership.objects.create(project=world.project, user=user)
    client = Client()
    client.force_login(user)
    page = client.get(f"/p/acme/anomalies/?id={anomaly.id}").content.decode()
    assert anomaly.title in unescape(page)
    assert "Idle money in that time" in page
    assert "The calls of that time" not in page
    href = unescape(re.search(r'href="([^"]+)">Its GPUs in that time', page)[1])
    assert href.startswith(f"/p/acme/gpus/?pool={pool.pk}&from=")
    there = client.get(href)
    assert there.status_code == 200
    assert there.context["bill"].held_nano == anomaly.actual_nano
    assert store.marks(world.conn, world.project.pk, START, BROKE, None) == []


def test_more_gpus_for_the_same_traffic_are_said_as_that(world, pool):
    hours(world, pool, BROKE, since=LEFT, gpus=3 * GPUS)
    (anomaly,) = of_pools(world, BROKE)
    assert anomaly.kind in ("idle_gpu", "overprovisioned")
    assert anomaly.title.endswith("GPU time rose by 200 % and requests did not fall.")


def test_usual_nights_and_gpus_without_a_rate_are_no_anomaly(world, pool):
    hours(world, pool, BROKE)
    assert of_pools(world, BROKE) == []
    world.conn.execute("truncate gpu_hour, gpu_model_hour, anomaly_pulse")
    hours(world, pool, BROKE, since=LEFT, traffic=0.1)
    world.conn.execute("update gpu_hour set unrated_us = gpu_us, cost_nano = 0, attributed_nano = 0, held_nano = 0")
    assert of_pools(world, BROKE) == []
