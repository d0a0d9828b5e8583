"""The invented company's GPUs: their hours are paid to the last nano-dollar, and what they do follows the calls."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import psycopg
import pytest
from django.contrib.auth import get_user_model

from collectors.batch import METRICS, Batch
from collectors.decode import make_decoder
from collectors.dialects import Recogniser
from collectors.settings import Settings
from costapp.core.gpu_samples import Gap, GpuSample
from costapp.core.values import Role, Span, SpanFacts
from costapp.models import GpuPool
from costapp.services.seed_demo import gpus
from costapp.services.seed_demo.gpus import MACHINES, MINUTES
from costapp.services.seed_demo.live_gpus import EVERY_S, Exporters
from costapp.services.seed_demo.seed import seed_demo
from tests import pipeline

Connection = psycopg.Connection[Any]
DAY = date(2026, 3, 12)
MIDNIGHT_NS = int(datetime(2026, 3, 12, tzinfo=UTC).timestamp()) * 10**9
L40S, H100 = MACHINES


def call(start_s: float, seconds: float, host: str = L40S.host) -> Span:
    facts = SpanFacts(role=Role.CALL, host=host, duration_us=int(seconds * 1e6), input=100, output=20)
    return Span(bytes(16), 1, 0, MIDNIGHT_NS + int(start_s * 1e9), facts)


def test_two_calls_at_once_fill_the_minute_once_and_count_as_load_twice() -> None:
    minutes = gpus.minutes_of(L40S, [call(30, 60), call(30, 60), call(0, 5, host="api.example.com")], DAY)

    assert [minute.busy for minute in minutes[:3]] == [0.5, 0.5, 0.0]
    assert [minute.load for minute in minutes[:3]] == [1.0, 1.0, 0.0]
    assert [minute.finished for minute in minutes[:3]] == [0, 2, 0]
    assert minutes[1].prompt_tokens == 200
    assert len(minutes) == MINUTES


def test_a_call_over_midnight_counts_only_what_lies_in_the_day() -> None:
    minutes = gpus.minutes_of(L40S, [call(86_390, 30)], DAY)
    assert minutes[-1].busy == pytest.approx(10 / 60)


def test_the_morning_without_telemetry_is_a_gap_and_not_a_row_of_zeros() -> None:
    anchor = DAY + timedelta(days=gpus.SILENT_DAYS_AGO)
    told = list(gpus.day_samples(L40S, gpus.minutes_of(L40S, [], DAY), DAY, anchor=anchor, until=later()))

    assert sum(isinstance(item, Gap) for item in told) == 1
    hours = {item.sampled_at.hour for item in told if isinstance(item, GpuSample)}
    assert hours == set(range(24)) - set(gpus.SILENT_HOURS)


def test_somebodys_notebook_keeps_one_gpu_busy_without_a_call() -> None:
    told = gpus.day_samples(H100, gpus.minutes_of(H100, [], DAY), DAY, anchor=DAY + timedelta(days=1), until=later())
    busy = [item for item in told if isinstance(item, GpuSample) and (item.util_bp or 0) > 1000]
    assert {item.device_id for item in busy} == {H100.device_id(H100.gpus - 1)}
    assert {item.sampled_at.hour for item in busy} == set(gpus.NOTEBOOK_HOURS)


def later() -> datetime:
    return datetime(2027, 1, 1, tzinfo=UTC)


def test_live_exporters_are_read_by_the_collectors_as_the_same_devices_and_engines() -> None:
    now = datetime.now(UTC)
    exporters = Exporters(Random(1))
    exporters.saw([call(0, EVERY_S)])

    request = exporters.report(now)
    assert request is not None
    batch = Batch(1, 1, METRICS, "http", 0)
    decoder = make_decoder(Recogniser({}, hash_secret=bytes(32)), Settings(), is_json=False)
    for _ in decoder.decode(request.SerializeToString(), batch):
        pass

    assert exporters.report(now + timedelta(seconds=1)) is None
    assert {sample.device_id for sample in batch.gpu_samples} == {
        machine.device_id(index) for machine in MACHINES for index in range(machine.gpus)
    }
    by_node = {sample.node: sample for sample in batch.gpu_samples}
    assert (by_node[L40S.node].util_bp or 0) > 5_000 > (by_node[H100.node].util_bp or 0)
    assert by_node[H100.node].memory_total_bytes == H100.memory_gib * 2**30
    assert {(e.target, e.served_model, e.pod) for e in batch.engine_samples} == {
        (machine.host, machine.served_model, machine.holder.pod) for machine in MACHINES
    }
    assert {e.target: e.prompt_tokens for e in batch.engine_samples} == {L40S.host: 100, H100.host: 0}
    assert not batch.rejected


@pytest.fixture
def conn(transactional_db: None) -> Iterator[Connection]:
    with pipeline.open_connection() as connection:
        pipeline.empty(connection)
        yield connection


@pytest.mark.django_db(transaction=True)
def test_the_hours_of_both_pools_add_up_to_the_bill_and_the_night_is_idle(conn: Connection) -> None:
    get_user_model().objects.create_superuser("boss")
    now = datetime.now(UTC).replace(hour=6, minute=0, second=0, microsecond=0)

    project = seed_demo(conn, now=now, days=2, scale=0.3)

    assert [pool.name for pool in GpuPool.objects.filter(project=project)] == [m.pool for m in MACHINES]
    rows = conn.execute(
        "select node, sum(cost_nano), sum(attributed_nano), sum(busy_nano), sum(held_nano + free_nano),"
        " sum(unobserved_nano) from gpu_hour where project_id = %s and hour_at < %s group by node order by node",
        (project.pk, now),
    ).fetchall()
    assert [row[0] for row in rows] == ["gpu-h100-1", "gpu-l40s-1"]
    for _, cost, *buckets in rows:
        assert cost == sum(buckets) > 0
        attributed, _, idle, _ = buckets
        assert 0 < attributed < idle
    booked = conn.execute("select sum(gpu_nano), sum(cost_nano) from charge where gpu_nano is not null").fetchone()
    assert booked is not None
    assert booked[0] == sum(row[2] for row in rows)
    hourly = conn.execute("select sum(gpu_nano) from rollup_hour where project_id = %s", (project.pk,)).fetchone()
    assert hourly == (booked[0],)
