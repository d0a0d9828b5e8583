"""What one exporter said about one GPU or one inference server in one slot of time, in canonical units.

Every dialect (dcgm-exporter, ``hw.gpu.*``, OpenLIT, Triton, our own exporter) becomes these values. ``None`` is
"not stated, or not believable"; it never becomes 0, because an idle GPU costs money and an unknown one is a gap.
"""

from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import NamedTuple

#: Samples are kept one per device and slot: many workers may report one GPU, each at its own moment.
SLOT_SECONDS = 15
#: A sample stands until the next one of its device, but no longer than this; then nothing is known.
MAX_GAP_SECONDS = 120
#: The whole scale of a share in basis points.
FULL_BP = 10_000
#: `util_rank` of a sample that states no utilisation.
NO_UTIL = 99


class Source(StrEnum):
    """The dialect a sample was told in."""

    DCGM = "dcgm"
    HARDWARE = "hw"  # OpenTelemetry conventions, OpenLIT's collector, our own exporter
    OPENLIT = "openlit"  # OpenLIT's Python SDK
    TRITON = "triton"


class EngineKind(StrEnum):
    VLLM = "vllm"
    SGLANG = "sglang"
    TGI = "tgi"
    TRITON = "triton"


class GapKind(IntEnum):
    TARGET_DOWN = 1  #: `up` was 0, or our own scrape failed
    SERIES_ENDED = 2  #: a point without recorded value, or Prometheus' stale marker


class Holder(NamedTuple):
    """A pod that a device was given to."""

    namespace: str
    pod: str
    container: str

    def __str__(self) -> str:
        return "/".join(self)


class GpuSample(NamedTuple):
    """One device in one slot."""

    device_id: str  # UUID; UUID/GPU_I_ID of a MIG slice; host/id where ids are unique only within a host
    sampled_at: datetime  # start of the slot
    util_bp: int | None = None  # busy share of time, 0..FULL_BP
    util_rank: int = NO_UTIL  # how good that figure is, 0 = best
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_mw: int | None = None
    energy_mj: int | None = None  # counter as seen
    held: bool | None = None  # a process or a pod holds the device
    node: str = ""
    gpu_model: str = ""
    mig_profile: str = ""
    holders: tuple[Holder, ...] = ()  # more than one: time-slicing or MPS
    served_model: str = ""
    target: str = ""  # who told: host:port or instance
    source: str = Source.HARDWARE
    parent_id: str = ""  # the physical GPU of a slice, where device_id does not say it
    is_split: bool = False  # a physical GPU that is split: it has power and energy, its slices do the work


class Gap(NamedTuple):
    """From this slot on nothing is known about a device, or about all devices of a target."""

    at: datetime
    kind: GapKind
    target: str = ""
    device_id: str = ""


class EngineSample(NamedTuple):
    """One inference server (one served model of one replica) in one slot. Counters as seen, since its start."""

    kind: str
    target: str
    served_model: str
    sampled_at: datetime
    replica: str = ""
    node: str = ""
    namespace: str = ""
    pod: str = ""
    running: int | None = None
    waiting: int | None = None
    kv_bp: int | None = None
    prompt_tokens: int | None = None
    generation_tokens: int | None = None
    cached_tokens: int | None = None
    requests: int | None = None
    queue_us: int | None = None
    prefill_us: int | None = None
    decode_us: int | None = None
    preemptions: int | None = None


def parent_of(device_id: str, mig_profile: str) -> str:
    """The physical GPU of a MIG slice; "" for a GPU that is one itself."""
    return device_id.rpartition("/")[0] if mig_profile else ""


def slot_of(time_ns: int) -> datetime:
    """The start of the slot that holds this Unix time."""
    seconds = time_ns // 1_000_000_000
    return datetime.fromtimestamp(seconds - seconds % SLOT_SECONDS, UTC)
