"""Inference servers that trace their own requests (vLLM with --otlp-traces-endpoint): how long each phase took."""

from collectors.dialects.rules import Table, duration, text

TABLE: Table = {
    "gen_ai.latency.time_in_queue": duration("queue_us", 10, per_second=1),
    "gen_ai.latency.time_in_model_prefill": duration("prefill_us", 10, per_second=1),
    "gen_ai.latency.time_in_model_decode": duration("decode_us", 10, per_second=1),
    "gen_ai.latency.time_to_first_token": duration("ttft_us", 12, per_second=1),
    # of the resource: which replica speaks. In a pod the host has the pod's name.
    "k8s.pod.name": text("instance", 10),
    "host.name": text("instance", 11),
    "service.instance.id": text("instance", 12),
}
