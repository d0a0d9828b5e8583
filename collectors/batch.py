"""What one request became: rows to store and counts to answer with. Passes from decode to writer to answer."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from collectors.dialects import MetricPoint
from collectors.errors import Refusal

TRACES, METRICS, LOGS = "traces", "metrics", "logs"
ITEMS = {TRACES: "spans", METRICS: "data points", LOGS: "log records"}


@dataclass(slots=True)
class Batch:
    project_id: int
    key_id: int
    signal: str  # traces | metrics | logs
    transport: str  # http | grpc
    wire_bytes: int
    rows: list[bytes] = field(default_factory=list)  # storage.spans rows
    content: list[tuple[bytes, str]] = field(default_factory=list)  # (row, JSON text), for projects that opted in
    points: list[MetricPoint] = field(default_factory=list)
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
        return len(self.rows) + len(self.points)
