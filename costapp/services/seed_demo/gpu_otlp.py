"""GPU and engine samples of the demo as OTLP metrics, as the Collector's prometheus receiver hands them over."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, Metric, ResourceMetrics

from costapp.core.gpu_samples import EngineSample, GpuSample

_MIB = 2**20


def metrics_request(gpus: Sequence[GpuSample], engines: Sequence[EngineSample]) -> ExportMetricsServiceRequest:
    """One export request: a resource per scraped target."""
    request = ExportMetricsServiceRequest()
    for number, sample in enumerate(gpus):
        metrics = _target(request, "dcgm-exporter", sample.target)
        for name, value in _device_figures(sample).items():
            _gauge(metrics, name, value, _device_labels(sample, number), sample.sampled_at)
    for engine in engines:
        metrics = _target(request, "vllm", engine.target)
        labels = {"model_name": engine.served_model, "engine": engine.replica, "pod": engine.pod,
                  "namespace": engine.namespace, "node": engine.node}  # fmt: skip
        _gauge(metrics, "vllm:num_requests_running", engine.running or 0, labels, engine.sampled_at)
        _gauge(metrics, "vllm:num_requests_waiting", engine.waiting or 0, labels, engine.sampled_at)
        _gauge(metrics, "vllm:kv_cache_usage_perc", (engine.kv_bp or 0) / 10_000, labels, engine.sampled_at)
        _counter(metrics, "vllm:prompt_tokens_total", engine.prompt_tokens or 0, labels, engine.sampled_at)
        _counter(metrics, "vllm:generation_tokens_total", engine.generation_tokens or 0, labels, engine.sampled_at)
    return request


def _device_figures(sample: GpuSample) -> Mapping[str, float]:
    used, total = sample.memory_used_bytes or 0, sample.memory_total_bytes or 0
    return {
        "DCGM_FI_DEV_GPU_UTIL": (sample.util_bp or 0) / 100,
        "DCGM_FI_DEV_FB_USED": used // _MIB,
        "DCGM_FI_DEV_FB_FREE": total // _MIB - used // _MIB,
        "DCGM_FI_DEV_POWER_USAGE": (sample.power_mw or 0) / 1000,
    }


def _device_labels(sample: GpuSample, number: int) -> Mapping[str, str]:
    holder = sample.holders[0]
    return {"UUID": sample.device_id, "gpu": str(number), "modelName": sample.gpu_model, "Hostname": sample.node,
            "namespace": holder.namespace, "pod": holder.pod, "container": holder.container}  # fmt: skip


def _target(request: ExportMetricsServiceRequest, job: str, target: str) -> ResourceMetrics:
    found = request.resource_metrics.add()
    host, _, port = target.rpartition(":")
    for key, value in (("service.name", job), ("service.instance.id", target), ("server.address", host),
                       ("server.port", port)):  # fmt: skip
        attribute = found.resource.attributes.add()
        attribute.key, attribute.value.string_value = key, value
    found.scope_metrics.add().scope.name = "prometheusreceiver"
    return found


def _gauge(target: ResourceMetrics, name: str, value: float, labels: Mapping[str, str], at: datetime) -> None:
    metric = target.scope_metrics[0].metrics.add()
    metric.name = name
    _point(metric.gauge.data_points.add(), value, labels, at)


def _counter(target: ResourceMetrics, name: str, value: float, labels: Mapping[str, str], at: datetime) -> None:
    metric: Metric = target.scope_metrics[0].metrics.add()
    metric.name = name
    metric.sum.is_monotonic = True
    metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
    _point(metric.sum.data_points.add(), value, labels, at)


def _point(point: object, value: float, labels: Mapping[str, str], at: datetime) -> None:
    point.as_double = float(value)  # type: ignore[attr-defined]
    point.time_unix_nano = int(at.timestamp() * 1000) * 1_000_000  # type: ignore[attr-defined]
    for key, text in labels.items():
        attribute = point.attributes.add()  # type: ignore[attr-defined]
        attribute.key, attribute.value.string_value = key, text
