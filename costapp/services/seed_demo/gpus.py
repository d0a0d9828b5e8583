"""The invented company's own GPUs: two machines, what they cost, and what their exporters would have said.

Utilisation follows the calls that were generated for the models they serve, so hours of the bill and calls fit
together: busy days, idle nights, somebody's notebook that no span explains, and a morning without telemetry.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple

import psycopg

from costapp.core.gpu_samples import EngineKind, EngineSample, Gap, GapKind, GpuSample, Holder, Source
from costapp.core.values import Role, Span
from costapp.models import GpuPool, GpuRate, Project
from costapp.storage.gpu_samples import insert_engine_samples, insert_gaps, insert_samples

Connection = psycopg.Connection[Any]

DAYS = 28
STEP_S = 60
MINUTES = 24 * 60
_GIB = 2**30
_NAMESPACE = "inference"


class Machine(NamedTuple):
    """A node whose GPUs serve one model. Prices are illustrative."""

    pool: str
    node: str
    gpus: int
    gpu_model: str
    memory_gib: int
    served_model: str
    host: str  # of the server's metrics, and where calls go
    idle_w: int
    busy_w: int
    rate: dict[str, Any]

    @property
    def holder(self) -> Holder:
        return Holder(_NAMESPACE, f"{self.served_model}-0", "vllm")

    @property
    def exporter(self) -> str:
        return f"{self.node}:9400"

    def device_id(self, index: int) -> str:
        rng = Random(f"{self.node}/{index}")
        return f"GPU-{rng.getrandbits(32):08x}-{rng.getrandbits(16):04x}-4000-8000-{rng.getrandbits(48):012x}"


MACHINES = (
    Machine(
        "storefront-l40s", "gpu-l40s-1", 2, "NVIDIA L40S", 48, "larkfield-fit-7b", "vllm.larkfield.internal:8000",
        90, 310, {"kind": GpuRate.Kind.ON_DEMAND, "usd_per_hour": Decimal("1.10")},
    ),
    Machine(
        "catalogue-h100", "gpu-h100-1", 4, "NVIDIA H100 80GB HBM3", 80, "llama-3.3-70b-instruct",
        "llm.larkfield.internal:8000", 110, 610,
        {"kind": GpuRate.Kind.RESERVED, "gpus": 4, "usd_per_hour": Decimal("3.20"), "upfront_usd": Decimal(36_000),
         "term_years": Decimal(1)},
    ),
)  # fmt: skip
#: The last GPU of this node is somebody's on these afternoons (UTC hours), without a span that says so.
NOTEBOOK_NODE, NOTEBOOK_EVERY_DAYS, NOTEBOOK_HOURS = "gpu-h100-1", 5, range(12, 16)
#: The exporter of this node was down on this morning.
SILENT_NODE, SILENT_DAYS_AGO, SILENT_HOURS = "gpu-l40s-1", 11, range(1, 5)


class Minute(NamedTuple):
    """What the calls of one machine did in one minute."""

    busy: float = 0.0  # share of the minute with at least one call
    load: float = 0.0  # calls at the same time, on average
    finished: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0


def set_up(project: Project) -> bool:
    """The pools and their rates, unless the project has some."""
    if GpuPool.objects.filter(project=project).exists():
        return False
    for machine in MACHINES:
        pool = GpuPool.objects.create(
            project=project, name=machine.pool, node_pattern=machine.node, grams_per_kwh=344, pue=Decimal("1.25")
        )
        GpuRate.objects.create(pool=pool, source="Illustrative figure of the demo.", **machine.rate)
    return True


def insert_day(
    conn: Connection, project_id: int, day: date, traces: Iterable[list[Span]], *, anchor: date, until: datetime
) -> None:
    """What the exporters would have said on one UTC day with these traces, up to ``until``."""
    calls = [span for trace in traces for span in trace if span.facts.role == Role.CALL]
    for machine in MACHINES:
        minutes = minutes_of(machine, calls, day)
        samples = list(day_samples(machine, minutes, day, anchor=anchor, until=until))
        engines = list(engine_samples(machine, minutes, day, until=until))
        with conn.transaction():
            insert_samples(conn, project_id, [sample for sample in samples if isinstance(sample, GpuSample)])
            insert_gaps(conn, project_id, [gap for gap in samples if isinstance(gap, Gap)])
            insert_engine_samples(conn, project_id, engines)


def minutes_of(machine: Machine, calls: Iterable[Span], day: date) -> list[Minute]:
    """The calls to this machine, minute by minute of the day."""
    midnight_us = _midnight_us(day)
    spread = [[0, 0, 0, 0] for _ in range(MINUTES)]  # call time in us, finished, prompt and output tokens
    covered = [0] * MINUTES
    reached_us = 0
    for span in sorted((span for span in calls if span.facts.host == machine.host), key=lambda span: span.start_ns):
        start_us = span.start_ns // 1000 - midnight_us
        end_us = start_us + (span.facts.duration_us or 0)
        for minute, part_us in _over_minutes(start_us, end_us):
            spread[minute][0] += part_us
        for minute, part_us in _over_minutes(max(start_us, reached_us), end_us):
            covered[minute] += part_us
        reached_us = max(reached_us, end_us)
        last = end_us // (STEP_S * 10**6)
        if 0 <= last < MINUTES:
            tokens = (1, span.facts.input or 0, span.facts.output or 0)
            spread[last][1:] = [old + new for old, new in zip(spread[last][1:], tokens, strict=True)]
    step_us = STEP_S * 10**6
    return [
        Minute(busy / step_us, work / step_us, *counts) for busy, (work, *counts) in zip(covered, spread, strict=True)
    ]


def _over_minutes(start_us: int, end_us: int) -> Iterator[tuple[int, int]]:
    """(minute, microseconds in it) of an interval, as far as it lies in the day."""
    step_us = STEP_S * 10**6
    for minute in range(max(0, start_us // step_us), min(MINUTES, -(-end_us // step_us))):
        part_us = min(end_us, (minute + 1) * step_us) - max(start_us, minute * step_us)
        if part_us > 0:
            yield minute, part_us


def day_samples(
    machine: Machine, minutes: list[Minute], day: date, *, anchor: date, until: datetime
) -> Iterator[GpuSample | Gap]:
    """One sample per GPU and minute; the morning without telemetry is a gap."""
    days_ago = (anchor - day).days
    rng = Random(f"gpu:{machine.node}:{day}")
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    is_silent_day = machine.node == SILENT_NODE and days_ago == SILENT_DAYS_AGO
    for number, minute in enumerate(minutes):
        at = midnight + timedelta(seconds=number * STEP_S)
        if at >= until:
            return
        if is_silent_day and at.hour in SILENT_HOURS:
            if number == SILENT_HOURS.start * 60:
                yield Gap(at, GapKind.TARGET_DOWN, machine.exporter)
            continue
        for index in range(machine.gpus):
            yield gpu_sample(machine, index, minute, at, rng, notebook=_is_notebook(machine, index, at, days_ago))


def gpu_sample(
    machine: Machine, index: int, minute: Minute, at: datetime, rng: Random, *, notebook: bool = False
) -> GpuSample:
    """What the exporter says about one GPU. More calls at once use more of it, ever less of it each."""
    share = minute.busy * (0.62 + 0.35 * (1 - 1 / (1 + minute.load)))
    if notebook:
        share = max(share, rng.uniform(0.55, 0.92))
    share = min(0.99, share * rng.uniform(0.94, 1.04))
    held_gib = machine.memory_gib * 0.88
    return GpuSample(
        machine.device_id(index), at, util_bp=int(share * 10_000), util_rank=1,
        memory_used_bytes=int(held_gib * _GIB), memory_total_bytes=machine.memory_gib * _GIB,
        power_mw=int(1000 * (machine.idle_w + (machine.busy_w - machine.idle_w) * share)), held=True,
        node=machine.node, gpu_model=machine.gpu_model, holders=(machine.holder,), served_model=machine.served_model,
        target=machine.exporter, source=Source.DCGM,
    )  # fmt: skip


def _is_notebook(machine: Machine, index: int, at: datetime, days_ago: int) -> bool:
    return (
        machine.node == NOTEBOOK_NODE
        and index == machine.gpus - 1
        and days_ago % NOTEBOOK_EVERY_DAYS == 1
        and at.hour in NOTEBOOK_HOURS
    )


def engine_samples(machine: Machine, minutes: list[Minute], day: date, *, until: datetime) -> Iterator[EngineSample]:
    """The counters of the inference server, which is restarted each midnight."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    prompt = output = finished = 0
    for number, minute in enumerate(minutes):
        at = midnight + timedelta(seconds=number * STEP_S)
        if at >= until:
            return
        prompt, output, finished = (
            prompt + minute.prompt_tokens, output + minute.output_tokens, finished + minute.finished
        )  # fmt: skip
        yield engine_sample(machine, minute, at, prompt=prompt, output=output, finished=finished)


def engine_sample(
    machine: Machine, minute: Minute, at: datetime, *, prompt: int, output: int, finished: int
) -> EngineSample:
    return EngineSample(
        EngineKind.VLLM, machine.host, machine.served_model, at, replica="0", node=machine.node,
        namespace=_NAMESPACE, pod=machine.holder.pod, running=round(minute.load), waiting=0,
        kv_bp=min(10_000, int(minute.load * 420)), prompt_tokens=prompt, generation_tokens=output, requests=finished,
    )  # fmt: skip


def _midnight_us(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 10**6
