"""`python -m collectors.gpu_exporter`: tell Costapp what the NVIDIA GPUs of this machine do.

Reads NVML (nvidia-ml-py) and sends OTLP metrics by the OpenTelemetry SDK, under the names of its hardware conventions.
Needs four packages: nvidia-ml-py, opentelemetry-sdk, opentelemetry-exporter-otlp-proto-http and what those pull in.
A figure that the driver does not give is left out, never sent as 0. Where it goes and with which key is said as for any
OpenTelemetry client (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS), or by --endpoint and COSTAPP_INGEST_KEY.
"""

import argparse
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

NO_GPU, CANNOT_SEND, CANNOT_RUN = 3, 4, 2  # exit codes
_Value = TypeVar("_Value")


class NoGpu(Exception):
    """There is nothing to report; the message is a sentence for whoever started this."""


class Reading(NamedTuple):
    """One GPU, or one MIG slice, at one moment. None: the driver does not tell."""

    device_id: str  # UUID; UUID/GPU instance of a slice, as dcgm-exporter names it
    number: int  # on this machine
    name: str
    parent_id: str = ""  # of a slice
    mig_profile: str = ""
    utilization: float | None = None  # share of time since the last reading, 0..1
    memory_used: int | None = None  # bytes
    memory_total: int | None = None
    power_w: float | None = None
    energy_j: float | None = None  # since the driver was loaded
    processes: int | None = None  # that use it


class Source(Protocol):
    def read(self) -> list[Reading]: ...


class Nvml:
    """The GPUs of this machine. NoGpu if there is none."""

    def __init__(self) -> None:
        try:
            import pynvml  # type: ignore[import-untyped]
        except ImportError:
            raise NoGpu("The package nvidia-ml-py is not installed: pip install nvidia-ml-py.") from None
        self._nvml: Any = pynvml
        self._seen_us: dict[str, int] = {}  # per GPU: up to when its utilisation was read
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise NoGpu(f"No NVIDIA driver answers on this machine ({error}): there is no GPU to report.") from None
        if not count:
            raise NoGpu("The NVIDIA driver knows no GPU on this machine: there is nothing to report.")

    def read(self) -> list[Reading]:
        nvml = self._nvml
        count = self._try(nvml.nvmlDeviceGetCount) or 0
        return [reading for index in range(count) for reading in self._of_gpu(index)]

    def _of_gpu(self, index: int) -> Iterator[Reading]:
        nvml = self._nvml
        handle = self._try(lambda: nvml.nvmlDeviceGetHandleByIndex(index))
        if handle is None:  # lost, for example after an error on the bus
            return
        uuid, name = _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle))
        power_mw = self._try(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        energy_mj = self._try(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        whole = Reading(
            uuid, index, name,
            power_w=power_mw / 1000 if power_mw is not None else None,
            energy_j=energy_mj / 1000 if energy_mj is not None else None,
        )  # fmt: skip
        slices = list(self._slices(handle, whole))
        if slices:  # the slices do the work; power and energy are only known of the whole
            yield whole
            yield from slices
            return
        memory = self._try(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        yield whole._replace(
            utilization=self._utilization(handle, uuid),
            memory_used=memory.used if memory else None,
            memory_total=memory.total if memory else None,
            processes=self._processes(handle),
        )

    def _slices(self, handle: Any, whole: Reading) -> Iterator[Reading]:
        nvml = self._nvml
        mode = self._try(lambda: nvml.nvmlDeviceGetMigMode(handle))
        if not mode or not mode[0]:
            return
        for number in range(self._try(lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0):
            part = self._try(lambda number=number: nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))  # type: ignore[misc]
            if part is None:
                continue
            instance = self._try(lambda part=part: nvml.nvmlDeviceGetGpuInstanceId(part))  # type: ignore[misc]
            memory = self._try(lambda part=part: nvml.nvmlDeviceGetMemoryInfo(part))  # type: ignore[misc]
            name = self._try(lambda part=part: _text(nvml.nvmlDeviceGetName(part))) or ""  # type: ignore[misc]
            yield Reading(
                f"{whole.device_id}/{number if instance is None else instance}", whole.number, whole.name,
                parent_id=whole.device_id, mig_profile=name.rpartition("MIG ")[2] or "?",
                memory_used=memory.used if memory else None, memory_total=memory.total if memory else None,
                processes=self._processes(part),
            )  # fmt: skip

    def _utilization(self, handle: Any, uuid: str) -> float | None:
        """The mean since the last reading, from the driver's own samples; else its figure for the last moment."""
        nvml = self._nvml
        since_us = self._seen_us.get(uuid, 0)
        found = self._try(lambda: nvml.nvmlDeviceGetSamples(handle, nvml.NVML_GPU_UTILIZATION_SAMPLES, since_us))
        samples = [item for item in found[1] if item.timeStamp > since_us] if found else []
        if samples:
            self._seen_us[uuid] = max(item.timeStamp for item in samples)
            values = [item.sampleValue.uiVal for item in samples if item.sampleValue.uiVal <= 100]
            if values:
                return float(sum(values)) / len(values) / 100
        rates = self._try(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        return float(rates.gpu) / 100 if rates is not None and rates.gpu <= 100 else None

    def _processes(self, handle: Any) -> int | None:
        nvml = self._nvml
        found = [
            self._try(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
            self._try(lambda: nvml.nvmlDeviceGetGraphicsRunningProcesses(handle)),
        ]
        known = [{process.pid for process in processes} for processes in found if processes is not None]
        return len(set().union(*known)) if known else None

    def _try(self, call: Callable[[], _Value]) -> _Value | None:
        try:
            return call()
        except self._nvml.NVMLError:  # not supported, no permission, lost
            return None


class Sender:
    """Readings -> one OTLP export, by the OpenTelemetry SDK."""

    def __init__(self, exporter: Any, resource: dict[str, str]) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.resources import Resource

        self._exporter = exporter
        self._readings: Sequence[Reading] = ()
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider(
            metric_readers=[self._reader], resource=Resource.create(resource), shutdown_on_exit=False
        )
        meter = self._provider.get_meter("costapp.gpu_exporter")
        for name, kind, unit, description, value in _INSTRUMENTS:
            make = getattr(meter, f"create_observable_{kind}")
            make(name, [self._callback(value)], unit, description)

    def _callback(self, value: Callable[[Reading], float | None]) -> Callable[[Any], list[Any]]:
        from opentelemetry.metrics import Observation

        return lambda _: [
            Observation(found, _attributes(reading))
            for reading in self._readings
            if (found := value(reading)) is not None
        ]

    def send(self, readings: Sequence[Reading]) -> bool:
        """Whether the receiver took them."""
        from opentelemetry.sdk.metrics.export import MetricExportResult

        self._readings = readings
        data = self._reader.get_metrics_data()
        return data is not None and self._exporter.export(data) is MetricExportResult.SUCCESS

    def close(self) -> None:
        self._provider.shutdown()
        self._exporter.shutdown()


def _allocated(reading: Reading) -> float | None:
    return None if reading.processes is None else float(reading.processes > 0)


_INSTRUMENTS: tuple[tuple[str, str, str, str, Callable[[Reading], float | None]], ...] = (
    ("hw.gpu.utilization", "gauge", "1", "Share of time that the GPU was busy.", lambda r: r.utilization),
    ("hw.gpu.memory.usage", "up_down_counter", "By", "GPU memory in use.", lambda r: r.memory_used),
    ("hw.gpu.memory.limit", "up_down_counter", "By", "GPU memory there is.", lambda r: r.memory_total),
    ("hw.power", "gauge", "W", "Power drawn by the GPU.", lambda r: r.power_w),
    ("hw.energy", "counter", "J", "Energy used since the driver was loaded.", lambda r: r.energy_j),
    ("hw.gpu.allocated", "gauge", "1", "1 if a process uses the GPU.", _allocated),
)


def _attributes(reading: Reading) -> dict[str, str | int]:
    stated: dict[str, str | int] = {
        "hw.id": reading.device_id, "hw.type": "gpu", "hw.name": reading.name, "hw.vendor": "NVIDIA",
        "gpu.index": reading.number,
    }  # fmt: skip
    if reading.mig_profile:
        stated |= {"hw.parent": reading.parent_id, "gpu.mig.profile": reading.mig_profile}
    return stated


def resource() -> dict[str, str]:
    """Who reports: the node, as Kubernetes calls it where it says so."""
    host = os.environ.get("NODE_NAME") or socket.gethostname()
    return {"service.name": "costapp-gpu-exporter", "host.name": host, "service.instance.id": host}


def make_exporter(endpoint: str, key: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    address = f"{endpoint.rstrip('/')}/v1/metrics" if endpoint else None  # None: OTEL_EXPORTER_OTLP_*
    return OTLPMetricExporter(address, headers={"x-api-key": key} if key else None)


def table(readings: Sequence[Reading]) -> str:
    """What was read, for people."""
    lines = []
    for reading in readings:
        share = f"{reading.mig_profile} slice of " if reading.mig_profile else ""
        lines.append(f"GPU {reading.number}: {share}{reading.name}, {reading.device_id}")
        facts = {
            "busy": _shown(reading.utilization, "{:.1%} of the time since the last reading"),
            "memory used": _shown(reading.memory_used, "{:,} bytes"),
            "memory": _shown(reading.memory_total, "{:,} bytes"),
            "power": _shown(reading.power_w, "{:.1f} W"),
            "energy": _shown(reading.energy_j, "{:,.0f} J since the driver was loaded"),
            "processes": _shown(reading.processes, "{}"),
        }
        lines += [f"  {name:<12} {fact}" for name, fact in facts.items()]
    return "\n".join(lines)


def _shown(value: float | None, form: str) -> str:
    return "not told" if value is None else form.format(value)


def run(source: Source, options: argparse.Namespace, stop: threading.Event) -> int:
    sender = None if options.print_only else Sender(make_exporter(options.endpoint, options.key), resource())
    took = True
    try:
        while True:
            began = time.monotonic()
            readings = source.read()
            if options.print:
                _say(table(readings))
            if sender is not None:
                took = sender.send(readings)
                if not took:
                    _say("The readings could not be sent; the next ones are tried.", error=True)
            if options.once or stop.wait(max(0.0, options.interval - (time.monotonic() - began))):
                return 0 if took or not options.once else CANNOT_SEND
    finally:
        if sender is not None:
            sender.close()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m collectors.gpu_exporter",
        description="Sends what this machine's NVIDIA GPUs do as OTLP metrics.",
    )
    parser.add_argument("--endpoint", default="", help="Costapp's address, such as http://costapp:4318")
    parser.add_argument("--interval", type=float, default=15.0, help="seconds between readings (15)")
    parser.add_argument("--once", action="store_true", help="read once and end; the exit code says whether it was sent")
    parser.add_argument("--print", action="store_true", help="print what is read; without an endpoint nothing is sent")
    found = parser.parse_args(arguments)
    found.key = os.environ.get("COSTAPP_INGEST_KEY", "")  # no argument: everybody on a machine sees those
    named = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT") for name in ("", "METRICS_"))
    found.print_only = found.print and not found.endpoint and not named
    if not (found.endpoint or named or found.print):
        parser.error("say where to send to with --endpoint or OTEL_EXPORTER_OTLP_ENDPOINT, or use --print")
    if found.interval < 1:
        parser.error("--interval must be at least 1 second")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        source = Nvml()
    except NoGpu as problem:
        _say(str(problem), error=True)
        return NO_GPU
    try:
        return run(source, options, stop)
    except ImportError as problem:
        _say(f"A package is missing ({problem.name}): pip install opentelemetry-exporter-otlp-proto-http.", error=True)
        return CANNOT_RUN


def _say(text: str, *, error: bool = False) -> None:
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


if __name__ == "__main__":
    sys.exit(main())
