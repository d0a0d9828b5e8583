"""The demo's exporters, live: what the GPUs do follows the calls that were just sent."""

from collections.abc import Iterable
from datetime import datetime
from random import Random

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from costapp.core.values import Role, Span
from costapp.services.seed_demo.gpu_otlp import metrics_request
from costapp.services.seed_demo.gpus import MACHINES, Machine, Minute, engine_sample, gpu_sample

EVERY_S = 15


class Exporters:
    """Remembers the calls since the last report."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._calls: list[Span] = []
        self._totals = {machine.node: [0, 0, 0] for machine in MACHINES}  # prompt and output tokens, requests
        self._reported_at: datetime | None = None

    def saw(self, spans: Iterable[Span]) -> None:
        self._calls += [span for span in spans if span.facts.role == Role.CALL]

    def report(self, now: datetime) -> ExportMetricsServiceRequest | None:
        """What the exporters say now; None if it is too early."""
        if self._reported_at is not None and (now - self._reported_at).total_seconds() < EVERY_S:
            return None
        self._reported_at, calls, self._calls = now, self._calls, []
        gpus, engines = [], []
        for machine in MACHINES:
            minute = self._minute(machine, calls)
            prompt, output, finished = self._totals[machine.node]
            gpus += [gpu_sample(machine, index, minute, now, self._rng) for index in range(machine.gpus)]
            engines.append(engine_sample(machine, minute, now, prompt=prompt, output=output, finished=finished))
        return metrics_request(gpus, engines)

    def _minute(self, machine: Machine, calls: Iterable[Span]) -> Minute:
        mine = [span.facts for span in calls if span.facts.host == machine.host]
        load = sum(facts.duration_us or 0 for facts in mine) / (EVERY_S * 1_000_000)
        prompt, output = sum(facts.input or 0 for facts in mine), sum(facts.output or 0 for facts in mine)
        totals = self._totals[machine.node]
        self._totals[machine.node] = [totals[0] + prompt, totals[1] + output, totals[2] + len(mine)]
        return Minute(min(1.0, load), load, len(mine), prompt, output)
