"""What the names mean: one row per metric, one list of label names per thing a label can say. Data, no branches.

Label names are compared in lower case with dots as underscores, so `UUID` and `uuid`, `Hostname` and `hostname`,
`hw.id` and `hw_id` are the same name.
"""

from collections.abc import Mapping
from typing import NamedTuple

from costapp.core.gpu_samples import EngineKind, Source

UTIL, USED, FREE, RESERVED, TOTAL, POWER, ENERGY, HELD, PROCESS, UP = (
    "util", "used", "free", "reserved", "total", "power", "energy", "held", "process", "up",
)  # fmt: skip
_MIB = 2**20
_FULL = 10_000  # basis points


class Metric(NamedTuple):
    """How one metric is read: value x scale is the canonical unit of its field."""

    dialect: str  # Source or EngineKind
    field: str  # a field above, or a figure of EngineSample
    scale: int = 1
    rank: int = 0  # of several metrics for one field the lowest is taken
    only: Mapping[str, tuple[str, ...]] = {}  # label -> values read; "" = also without the label
    is_counter: bool = False


_GPU_TYPE = {"hw_type": ("gpu",)}
_WHOLE = {"hw_gpu_task": ("general", "")}  # encoder and decoder come on top, they are no share of the whole

#: util_bp: share x 10,000. Memory: bytes. Power: mW. Energy: mJ.
GPU: Mapping[str, Metric] = {
    # dcgm-exporter
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": Metric(Source.DCGM, UTIL, _FULL, 0),
    "DCGM_FI_DEV_GPU_UTIL": Metric(Source.DCGM, UTIL, 100, 1),
    "DCGM_FI_DEV_FB_USED": Metric(Source.DCGM, USED, _MIB),
    "DCGM_FI_DEV_FB_FREE": Metric(Source.DCGM, FREE, _MIB),
    "DCGM_FI_DEV_FB_RESERVED": Metric(Source.DCGM, RESERVED, _MIB),
    "DCGM_FI_DEV_FB_TOTAL": Metric(Source.DCGM, TOTAL, _MIB),
    "DCGM_FI_DEV_POWER_USAGE": Metric(Source.DCGM, POWER, 1000),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": Metric(Source.DCGM, ENERGY, is_counter=True),
    # OpenTelemetry conventions, and what OpenLIT's collector adds to them
    "hw.gpu.utilization": Metric(Source.HARDWARE, UTIL, _FULL, 2, _WHOLE),
    "hw.gpu.memory.usage": Metric(Source.HARDWARE, USED),
    "hw.gpu.memory.limit": Metric(Source.HARDWARE, TOTAL),
    "hw.power": Metric(Source.HARDWARE, POWER, 1000, 0, _GPU_TYPE),
    "hw.energy": Metric(Source.HARDWARE, ENERGY, 1000, 0, _GPU_TYPE, is_counter=True),
    "hw.gpu.power.draw": Metric(Source.HARDWARE, POWER, 1000, 1),
    "hw.gpu.energy.consumed": Metric(Source.HARDWARE, ENERGY, 1000, 1, is_counter=True),
    "hw.gpu.allocated": Metric(Source.HARDWARE, HELD),
    "hw.gpu.up": Metric(Source.HARDWARE, UP),
    "process.gpu.memory.usage": Metric(Source.HARDWARE, PROCESS),
    # OpenLIT's Python SDK: memory in MiB without a unit, 0 when a read fails
    "gpu.utilization": Metric(Source.OPENLIT, UTIL, 100, 3),
    "gpu.memory.used": Metric(Source.OPENLIT, USED, _MIB),
    "gpu.memory.total": Metric(Source.OPENLIT, TOTAL, _MIB),
    "gpu.power.draw": Metric(Source.OPENLIT, POWER, 1000),
    # Triton
    "nv_gpu_utilization": Metric(Source.TRITON, UTIL, _FULL, 2),
    "nv_gpu_memory_used_bytes": Metric(Source.TRITON, USED),
    "nv_gpu_memory_total_bytes": Metric(Source.TRITON, TOTAL),
    "nv_gpu_power_usage": Metric(Source.TRITON, POWER, 1000),
    "nv_energy_consumption": Metric(Source.TRITON, ENERGY, 1000, is_counter=True),
}
#: Known and left out on purpose: `hw.gpu.memory.utilization` is memory used in the conventions and activity of the
#: memory controller in OpenLIT; `hw.gpu.idle` is 1 - utilisation; DCGM_FI_DEV_MEM_COPY_UTIL is the memory controller.

_US = 1_000_000  # seconds -> microseconds
# Tensor- and pipeline-parallel ranks repeat the figures of the whole; priorities repeat them split.
_ONCE = {"tp_rank": ("0", ""), "pp_rank": ("0", ""), "priority": ("",)}


def _engine(kind: EngineKind, field: str, scale: int = 1, rank: int = 0, *, is_counter: bool = True) -> Metric:
    return Metric(kind, field, scale, rank, _ONCE, is_counter)


_V, _S, _T, _N = EngineKind.VLLM, EngineKind.SGLANG, EngineKind.TGI, EngineKind.TRITON
ENGINES: Mapping[str, Metric] = {
    "vllm:num_requests_running": _engine(_V, "running", is_counter=False),
    "vllm:num_requests_waiting": _engine(_V, "waiting", is_counter=False),
    "vllm:kv_cache_usage_perc": _engine(_V, "kv_bp", _FULL, is_counter=False),
    "vllm:gpu_cache_usage_perc": _engine(_V, "kv_bp", _FULL, 1, is_counter=False),
    "vllm:prompt_tokens_total": _engine(_V, "prompt_tokens"),
    "vllm:generation_tokens_total": _engine(_V, "generation_tokens"),
    "vllm:prefix_cache_hits_total": _engine(_V, "cached_tokens"),
    "vllm:gpu_prefix_cache_hits_total": _engine(_V, "cached_tokens", 1, 1),
    "vllm:e2e_request_latency_seconds_count": _engine(_V, "requests"),
    "vllm:request_queue_time_seconds_sum": _engine(_V, "queue_us", _US),
    "vllm:request_prefill_time_seconds_sum": _engine(_V, "prefill_us", _US),
    "vllm:request_decode_time_seconds_sum": _engine(_V, "decode_us", _US),
    "vllm:num_preemptions_total": _engine(_V, "preemptions"),
    "sglang:num_running_reqs": _engine(_S, "running", is_counter=False),
    "sglang:num_queue_reqs": _engine(_S, "waiting", is_counter=False),
    "sglang:token_usage": _engine(_S, "kv_bp", _FULL, is_counter=False),
    "sglang:prompt_tokens_total": _engine(_S, "prompt_tokens"),
    "sglang:generation_tokens_total": _engine(_S, "generation_tokens"),
    "sglang:cached_tokens_total": _engine(_S, "cached_tokens"),
    "sglang:e2e_request_latency_seconds_count": _engine(_S, "requests"),
    "tgi_batch_current_size": _engine(_T, "running", is_counter=False),
    "tgi_queue_size": _engine(_T, "waiting", is_counter=False),
    "tgi_request_input_length_sum": _engine(_T, "prompt_tokens"),
    "tgi_request_generated_tokens_sum": _engine(_T, "generation_tokens"),
    "tgi_request_count": _engine(_T, "requests"),
    "tgi_request_queue_duration_sum": _engine(_T, "queue_us", _US),
    "nv_inference_pending_request_count": _engine(_N, "waiting", is_counter=False),
    "nv_inference_request_success": _engine(_N, "requests"),
    "nv_inference_queue_duration_us": _engine(_N, "queue_us"),
}

#: Prometheus' own series: 0 = the target could not be scraped, so nothing is known about what it reports.
TARGET_UP = "up"

# --- labels, best first

DEVICE_IDS = ("uuid", "gpu_uuid", "hw_id")
DEVICE_NUMBERS = ("gpu", "gpu_index", "index", "gpu_id")  # unique only within a host
MIG_IDS = ("gpu_i_id", "gpu_mig_gi_id", "gpu_mig_instance_id")
MIG_PROFILES = ("gpu_i_profile", "gpu_mig_profile")
PARENTS = ("gpu_parent_uuid", "hw_parent")
NODES = ("exported_hostname", "hostname", "k8s_node_name", "host_name", "node", "kubernetes_node", "node_name",
         "server_address", "net_host_name", "host_id")  # fmt: skip
GPU_MODELS = ("modelname", "hw_model", "hw_name", "gpu_name", "gpu_model", "model_name_gpu")
#: A Prometheus that does not honour labels renames those of the workload to exported_*.
NAMESPACES = ("exported_namespace", "namespace", "pod_namespace", "k8s_namespace_name")
PODS = ("exported_pod", "pod", "pod_name", "k8s_pod_name")
CONTAINERS = ("exported_container", "container", "container_name", "k8s_container_name")
SERVED_MODELS = ("model_name", "served_model_name", "model", "model_id", "gen_ai_request_model")
REPLICAS = ("engine", "dp_rank", "engine_index", "version")
TARGETS = ("instance", "service_instance_id")
ADDRESSES = (("server_address", "server_port"), ("net_host_name", "net_host_port"), ("host_name", "port"))

#: Pods that export metrics: the `pod` label of an exporter that no workload's label replaced is no holder.
EXPORTER_PODS = ("dcgm-exporter", "nvidia-dcgm-exporter", "gpu-exporter", "nvidia-gpu-exporter", "prometheus-dcgm",
                 "opentelemetry-gpu-collector", "otel-gpu-collector")  # fmt: skip

#: Metrics with dots, as OpenTelemetry's exporters for Prometheus spell them.
_UNIT_SUFFIXES = ("", "_ratio", "_percent", "_bytes", "_mebibytes", "_watts", "_joules")


def _spellings(name: str) -> set[str]:
    flat = name.replace(".", "_")
    return {name} | {flat + suffix for suffix in _UNIT_SUFFIXES} if "." in name else {name}


#: Every spelling -> what it means. Counters are known with and without `_total`: Prometheus' own parser adds it, the
#: Collector can trim it.
METRICS: Mapping[str, Metric] = {
    spelling: metric
    for name, metric in {**GPU, **ENGINES}.items()
    for base in _spellings(name)
    for spelling in ({base, base.removesuffix("_total"), f"{base}_total"} if metric.is_counter else {base})
}
