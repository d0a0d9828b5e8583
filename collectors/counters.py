"""Own counters of a collector process, shown as Prometheus text on /metrics. Never holds payload."""

from collections import Counter
from threading import Lock

PREFIX = "costapp_collector"
HELP = {
    "requests_total": "Requests answered, by signal, transport and HTTP status (or its gRPC equivalent).",
    "received_total": "Spans, log records and data points read.",
    "stored_total": "Spans and data points stored for the first time.",
    "duplicates_total": "Spans and data points that were stored already.",
    "conflicts_total": "Spans that were stored already with other content; the first copy stays.",
    "rejected_total": "Items or requests not stored, by reason.",
    "odd_total": "Values cut to a limit or flagged, by reason; the span itself was stored.",
    "ignored_total": "Log records and data points that carry no usage, by signal.",
    "bytes_total": "Bytes received, as on the wire.",
    "commits_total": "Transactions committed.",
    "slow_path_total": "Transactions that met a duplicate and went through the staging table.",
    "write_errors_total": "Transactions that failed, by kind.",
}
GAUGES = {
    "queue_spans": "Spans waiting for their commit.",
    "memory_bytes": "Sum of the bodies being handled.",
    "database_up": "1 if the last transaction or check reached the database.",
}

Labels = tuple[tuple[str, str], ...]


class Counters:
    def __init__(self) -> None:
        self._values: Counter[tuple[str, Labels]] = Counter()
        self._gauges: dict[str, int] = dict.fromkeys(GAUGES, 0)
        self._lock = Lock()  # the event loop and the writers count

    def add(self, name: str, amount: int = 1, **labels: str) -> None:
        if amount:
            with self._lock:
                self._values[name, tuple(labels.items())] += amount

    def set(self, name: str, value: int) -> None:
        self._gauges[name] = value

    def get(self, name: str, **labels: str) -> int:
        """The sum over all series of that name that carry these labels."""
        wanted = set(labels.items())
        with self._lock:
            return sum(value for (own, series), value in self._values.items() if own == name and wanted <= set(series))

    def text(self) -> str:
        with self._lock:
            values = sorted(self._values.items())
        lines = []
        for name, meaning in HELP.items():
            lines += [f"# HELP {PREFIX}_{name} {meaning}", f"# TYPE {PREFIX}_{name} counter"]
            lines += [f"{PREFIX}_{name}{_braces(labels)} {value}" for (own, labels), value in values if own == name]
        for name, meaning in GAUGES.items():
            lines += [f"# HELP {PREFIX}_{name} {meaning}", f"# TYPE {PREFIX}_{name} gauge"]
            lines.append(f"{PREFIX}_{name} {self._gauges[name]}")
        return "\n".join(lines) + "\n"


def _braces(labels: Labels) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in labels) + "}" if labels else ""
