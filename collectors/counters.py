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
    "guard_total": "Questions to the guard answered, by decision and whether it was known.",
    "guard_read_errors_total": "Times the guard could not read its state.",
    "scrapes_total": "Scrapes of endpoints, by result.",
    "write_errors_total": "Transactions that failed, by kind.",
}
HISTOGRAMS = {
    "guard_seconds": ("Time to answer a question to the guard.", (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)),
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
        self._observed = {name: [0] * len(limits) for name, (_, limits) in HISTOGRAMS.items()}
        self._sums: dict[str, float] = dict.fromkeys(HISTOGRAMS, 0.0)
        self._counts: dict[str, int] = dict.fromkeys(HISTOGRAMS, 0)
        self._gauges: dict[str, int] = dict.fromkeys(GAUGES, 0)
        self._lock = Lock()  # the event loop and the writers count

    def add(self, name: str, amount: int = 1, **labels: str) -> None:
        if amount:
            with self._lock:
                self._values[name, tuple(labels.items())] += amount

    def set(self, name: str, value: int) -> None:
        self._gauges[name] = value

    def observe(self, name: str, seconds: float) -> None:
        """One measurement of a histogram."""
        with self._lock:
            self._sums[name] += seconds
            self._counts[name] += 1
            for place, limit in enumerate(HISTOGRAMS[name][1]):
                self._observed[name][place] += seconds <= limit

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
        lines += self._histograms()
        for name, meaning in GAUGES.items():
            lines += [f"# HELP {PREFIX}_{name} {meaning}", f"# TYPE {PREFIX}_{name} gauge"]
            lines.append(f"{PREFIX}_{name} {self._gauges[name]}")
        return "\n".join(lines) + "\n"

    def _histograms(self) -> list[str]:
        lines = []
        for name, (meaning, limits) in HISTOGRAMS.items():
            with self._lock:
                below, total, count = list(self._observed[name]), self._sums[name], self._counts[name]
            full = f"{PREFIX}_{name}"
            lines += [f"# HELP {full} {meaning}", f"# TYPE {full} histogram"]
            lines += [f'{full}_bucket{{le="{limit}"}} {seen}' for limit, seen in zip(limits, below, strict=True)]
            lines += [f'{full}_bucket{{le="+Inf"}} {count}', f"{full}_sum {total:.6f}", f"{full}_count {count}"]
        return lines


def _braces(labels: Labels) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in labels) + "}" if labels else ""
