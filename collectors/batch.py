"""What one request became: rows to store and counts to answer with. Passes from decode to writer to answer."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from collectors.dialects import MetricPoint
from collectors.errors import Refusal
from collectors.gpu.samples import Samples
from costapp.core.gpu_samples import EngineSample, Gap, GpuSample

TRACES, METRICS, LOGS = "traces", "metrics", "logs"
ITEMS = {TRACES: "spans", METRICS: "data points", LOGS: "log records"}


@dataclass(slots=True)
class Batch:
    project_id: int
    key_id: int | None  # None: scraped
    signal: str  # traces | metrics | logs
    transport: str  # http | grpc | remote-write | scrape
    wire_bytes: int
    rows: list[bytes] = field(default_factory=list)  # storage.spans rows
    content: list[tuple[bytes, str]] = field(default_factory=list)  # (row, JSON text), for projects that opted in
    points: list[MetricPoint] = field(default_factory=list)
    gpu_samples: list[GpuSample] = field(default_factory=list)
    engine_samples: list[EngineSample] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    gpu_points: int = 0  # data points that became samples
    received: int = 0
    ignored: int = 0  # carried no usage: log records, data points
    rejected: Counter[str] = field(default_factory=Counter)  # reason -> items not stored
    odd: Counter[str] = field(default_factory=Counter)  # reason -> values cut or flagged; the item was stored
    stored: int = 0  # set by the writer
    duplicates: int = 0
    conflicts: int = 0
    on_done: Callable[["Batch", Refusal | None], None] | None = None

    @property
    def weight(self) -> int:
        """Rows to write."""
        gpu = len(self.gpu_samples) + len(self.engine_samples) + len(self.gaps)
        return len(self.rows) + len(self.points) + gpu

    def add_samples(self, samples: Samples) -> None:
        """What the points of this request said about GPUs and inference servers."""
        self.gpu_samples, self.engine_samples, self.gaps = samples.result()
        self.gpu_points = samples.points
        self.rejected += samples.rejected
        self.odd += samples.odd
