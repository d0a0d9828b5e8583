"""Prometheus text of one target -> points. Series repeat with every scrape, so each is parsed once and remembered.

Only lines of metrics in `tables` are looked at. Labels are read by prometheus_client, whose full parser also works but
takes ten times as long for a text that it has seen before (benchmarks/gpu.py).
"""

from collections import Counter
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from collectors.gpu.samples import Samples
from collectors.gpu.series import Series, is_wanted, plain_name, resolve

_KNOWN = 50_000  # series remembered per target
_UNSEEN = object()


class TextReader:
    """Reads the texts of one target. `added`: labels that the operator gave the target; they win."""

    def __init__(self, target: str, added: Mapping[str, str] | None = None, origin: Mapping[str, str] | None = None
                 ) -> None:  # fmt: skip
        self._added = {plain_name(name): value for name, value in (added or {}).items()}
        self._origin = {"instance": target} | dict(origin or {})
        self._known: dict[str, Series | str | None] = {}

    def read(self, text: str, samples: Samples, *, time_ns: int, limit: int) -> int:
        """Add the points of a text; returns how many series lines it has, at most `limit` + 1 are looked at."""
        count = 0
        for line in text.split("\n"):
            if not line or line[0] == "#" or line.isspace():
                continue
            count += 1
            if count > limit:
                return count
            brace = line.find("{")
            name = line[:brace].rstrip() if brace >= 0 else line.split(None, 1)[0]
            if is_wanted(name):
                self._line(name, line, samples, time_ns)
        return count

    def _line(self, name: str, line: str, samples: Samples, time_ns: int) -> None:
        if " # {" in line:  # an exemplar
            line = line[: line.rindex(" # {")]
        end = line.rfind("}") + 1 or len(name)
        prefix, rest = line[:end], line[end:].split()
        series = self._known.get(prefix, _UNSEEN)
        if series is _UNSEEN:
            series = self._resolve(name, prefix, samples.rejected)
        if series is None:
            return
        try:
            value = float(rest[0])
            at_ns = int(rest[1]) * 1_000_000 if len(rest) > 1 else time_ns
        except (ValueError, IndexError):
            samples.rejected["gpu_bad_line"] += 1
            return
        if isinstance(series, str):
            samples.rejected[series] += 1
        elif isinstance(series, Series):
            samples.add(series, value, at_ns, prefix)

    def _resolve(self, name: str, prefix: str, rejected: Counter[str]) -> Series | str | None:
        try:
            (family,) = text_string_to_metric_families(f"{prefix} 1\n")
            stated = family.samples[0].labels
        except (ValueError, IndexError, KeyError):
            rejected["gpu_bad_line"] += 1
            return None
        labels = {plain_name(label): value for label, value in stated.items()} | self._added
        found = resolve(name, labels, self._origin)
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[prefix] = found
        return found
