"""GPU and engine samples: one per slot, gaps filled, hours marked."""

from datetime import UTC, datetime, timedelta

import pytest

from costapp.core.gpu_samples import SLOT_SECONDS, EngineSample, Gap, GapKind, GpuSample, Holder, slot_of
from costapp.storage.engine_figures import engine_figures
from costapp.storage.gpu_samples import insert_engine_samples, insert_gaps, insert_samples

AT = datetime(2026, 11, 20, 10, 30, tzinfo=UTC)
SLOT = timedelta(seconds=SLOT_SECONDS)
GPU = "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"


def sample(at=AT, device_id=GPU, **fields):
    return GpuSample(device_id, at, **{"node": "node-a", "gpu_model": "NVIDIA H100 80GB HBM3"} | fields)


def rows(conn, columns, table="gpu_sample_full", order="device_id, sampled_at"):
    return conn.execute(f"select {columns} from {table} order by {order}").fetchall()


def marks(conn):
    return conn.execute("select distinct hour_at, node from dirty_gpu_hour order by 1, 2").fetchall()


def test_a_sample_is_stored_as_it_was_stated(conn, project):
    stated = sample(util_bp=9_700, util_rank=0, memory_used_bytes=60 * 2**30, memory_total_bytes=80 * 2**30,
                    power_mw=512_300, energy_mj=163_214_567_890, held=True, served_model="llama",
                    holders=(Holder("prod", "llama-0", "vllm"),), target="10.0.0.1:9400", source="dcgm")  # fmt: skip
    assert insert_samples(conn, project.id, [stated]) == 1
    assert rows(conn, "device_id, node, util_bp, memory_used_bytes, memory_total_bytes, power_mw, energy_mj, held") == [
        (GPU, "node-a", 9_700, 60 * 2**30, 80 * 2**30, 512_300, 163_214_567_890, True)
    ]
    assert rows(conn, "gpu_model, namespace, pod, container, served_model, holders, target, source, day") == [
        ("NVIDIA H100 80GB HBM3", "prod", "llama-0", "vllm", "llama", ["prod/llama-0/vllm"], "10.0.0.1:9400", "dcgm",
         AT.date())
    ]  # fmt: skip


def test_what_was_not_stated_stays_unknown_and_zero_stays_zero(conn, project):
    insert_samples(conn, project.id, [sample(), sample(AT + SLOT, util_bp=0, util_rank=0, power_mw=0)])
    assert rows(conn, "util_bp, power_mw, energy_mj, memory_used_bytes, held") == [
        (None, None, None, None, None), (0, 0, None, None, None)
    ]  # fmt: skip


def test_sending_again_changes_nothing_and_marks_nothing(conn, project):
    stated = [sample(util_bp=5, util_rank=1, power_mw=7), sample(AT + SLOT)]
    assert insert_samples(conn, project.id, stated) == 2
    conn.execute("truncate dirty_gpu_hour")
    before = rows(conn, "*")
    assert insert_samples(conn, project.id, stated) == 0
    assert rows(conn, "*") == before
    assert marks(conn) == []


@pytest.mark.parametrize("together", [True, False])
def test_messages_of_one_slot_fill_each_others_gaps(conn, project, together):
    parts = [sample(power_mw=300_000), sample(util_bp=4_000, util_rank=1), sample(util_bp=1, util_rank=5, held=False),
             sample(util_bp=4_123, util_rank=0), sample(power_mw=999)]  # fmt: skip
    if together:
        assert insert_samples(conn, project.id, parts) == 1
    else:
        assert [insert_samples(conn, project.id, [part]) for part in parts] == [1, 0, 0, 0, 0]
    assert rows(conn, "util_bp, util_rank, power_mw, held") == [(4_123, 0, 300_000, False)]


def test_the_hours_a_sample_can_stand_for_are_marked(conn, project):
    hour = AT.replace(minute=0)
    insert_samples(conn, project.id, [sample(AT)])
    assert marks(conn) == [(hour, "node-a")]
    insert_samples(conn, project.id, [sample(hour + timedelta(minutes=59, seconds=45))])
    assert marks(conn) == [(hour, "node-a"), (hour + timedelta(hours=1), "node-a")]


def test_devices_are_an_inventory_that_follows_moves(conn, project):
    day = timedelta(days=1)
    insert_samples(conn, project.id, [sample(AT), sample(AT, device_id=f"{GPU}/1", mig_profile="3g.40gb")])
    insert_samples(conn, project.id, [sample(AT + day, node="node-b", memory_total_bytes=80)])
    insert_samples(conn, project.id, [sample(AT - day, node="node-z", memory_total_bytes=70)])
    assert rows(conn, "device_id, parent_id, node, mig_profile, first_at, last_at, memory_total_bytes", "gpu_device",
                "device_id") == [
        (GPU, "", "node-b", "", AT - day, AT + day, 80),
        (f"{GPU}/1", GPU, "node-a", "3g.40gb", AT, AT, None),
    ]  # fmt: skip
    assert [node for (node,) in rows(conn, "node")] == ["node-z", "node-a", "node-b", "node-a"]


def test_projects_do_not_share_devices(conn, project):
    insert_samples(conn, project.id, [sample(node="ours")])
    insert_samples(conn, project.id + 1, [sample(node="theirs")])
    assert rows(conn, "project_id, node", order="project_id") == [(project.id, "ours"), (project.id + 1, "theirs")]


def test_gaps_are_kept_once_and_mark_their_hour(conn, project):
    gaps = [Gap(AT, GapKind.TARGET_DOWN, "10.0.0.1:9400"), Gap(AT, GapKind.SERIES_ENDED, "10.0.0.1:9400", GPU)]
    assert insert_gaps(conn, project.id, gaps) == 2
    assert marks(conn) == [(AT.replace(minute=0), "")]
    conn.execute("truncate dirty_gpu_hour")
    assert insert_gaps(conn, project.id, gaps) == 0
    assert marks(conn) == []


def test_engine_samples_keep_counters_as_seen(conn, project):
    def engine(at, **fields):
        return EngineSample("vllm", "10.0.0.1:8000", "llama", at, replica="0", node="node-a", **fields)

    first = engine(AT, running=3, waiting=0, kv_bp=4_200, prompt_tokens=2**40, prefill_us=1)
    assert insert_engine_samples(conn, project.id, [first, engine(AT + SLOT, prompt_tokens=5)]) == 2
    assert insert_engine_samples(conn, project.id, [first, engine(AT, generation_tokens=9)]) == 0
    assert rows(conn, "kind, served_model, node, running, waiting, kv_bp, prompt_tokens, generation_tokens, prefill_us",
                "engine_sample_full", "sampled_at") == [
        ("vllm", "llama", "node-a", 3, 0, 4_200, 2**40, 9, 1),
        ("vllm", "llama", "node-a", None, None, None, 5, None, None),
    ]  # fmt: skip
    assert marks(conn) == [(AT.replace(minute=0), "node-a")]


def test_a_slot_holds_all_moments_up_to_the_next():
    first_ns = int(AT.timestamp()) * 1_000_000_000
    assert slot_of(first_ns) == slot_of(first_ns + SLOT_SECONDS * 1_000_000_000 - 1) == AT
    assert slot_of(first_ns + SLOT_SECONDS * 1_000_000_000) == AT + SLOT


def test_odd_texts_are_stored_as_text(conn, project):
    odd = "a\0b'\"\n/{}," + "x" * 900
    stated = sample(device_id=odd, node=odd, holders=(Holder(odd, odd, odd),), target=odd)
    insert_samples(conn, project.id, [stated])
    insert_samples(conn, project.id, [stated])
    ((device_id, node, pod),) = rows(conn, "device_id, node, pod")
    assert device_id == node == pod == odd.replace("\0", "")[:500]


def told(conn, project, first=AT, end=AT + timedelta(hours=1)):
    return engine_figures(conn, project.id, first=first, end=end)


def store_engine(conn, project, *values, **fields):
    """One sample per minute, each with this many tokens; None leaves the minute out."""
    samples = [
        EngineSample("vllm", "a:8000", "llama", AT + timedelta(minutes=minute), generation_tokens=value, **fields)
        for minute, value in enumerate(values)
        if value is not None
    ]
    insert_engine_samples(conn, project.id, samples)


def test_counters_of_an_engine_that_restarted_go_on_from_zero(conn, project):
    store_engine(conn, project, 100, 150, 20, 60)
    (figures,) = told(conn, project)
    assert (figures.generation_tokens, figures.restarts) == (50 + 20 + 40, 1)
    assert figures.prefill_us is None
    assert figures.known_us == 180_000_000


def test_what_grew_while_nobody_looked_counts_but_the_time_is_unknown(conn, project):
    store_engine(conn, project, 100, *[None] * 9, 400)
    (figures,) = told(conn, project)
    assert (figures.generation_tokens, figures.known_us, figures.restarts) == (300, 0, 0)


def test_spans_of_time_that_follow_each_other_add_up(conn, project):
    store_engine(conn, project, *[7 * minute % 50 for minute in range(60)])
    middle = AT + timedelta(minutes=23)
    parts = told(conn, project, end=middle) + told(conn, project, first=middle)
    (whole,) = told(conn, project)
    assert sum(part.generation_tokens for part in parts) == whole.generation_tokens
    assert sum(part.restarts for part in parts) == whole.restarts > 0
