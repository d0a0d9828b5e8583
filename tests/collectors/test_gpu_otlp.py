"""GPU metrics on the same door as spans: from the real OpenTelemetry SDK, and in the Collector's shapes."""

import time

import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

UUID = "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"
GIB = 2**30


def sdk(exporter, resource):
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    return MeterProvider(metric_readers=[reader], resource=Resource(resource), shutdown_on_exit=False)


def exporter_of(transport, collector, key):
    if transport == "grpc":
        return GrpcExporter(f"http://127.0.0.1:{collector.grpc_port}", insecure=True, headers={"x-api-key": key})
    return HttpExporter(f"http://127.0.0.1:{collector.http_port}/v1/metrics", headers={"x-api-key": key})


def rows(conn, columns, table="gpu_sample_full", order="device_id, sampled_at"):
    return conn.execute(f"select {columns} from {table} order by {order}").fetchall()


def attribute(key, value):
    return {"key": key, "value": {"stringValue": value}}


def point(value, *attributes, **fields):
    stated = [attribute(*pair) for pair in attributes]
    number = {"asDouble": value} if value is not None else {}
    return {"timeUnixNano": str(time.time_ns()), "attributes": stated} | number | fields


def metrics(resource, **found):
    """An OTLP/JSON request: metric names with underscores stand for names with dots."""
    items = [{"name": name, **data} for name, data in found.items()]
    return {"resourceMetrics": [{"resource": {"attributes": [attribute(*pair) for pair in resource.items()]},
                                 "scopeMetrics": [{"metrics": items}]}]}  # fmt: skip


def gauge(*points):
    return {"gauge": {"dataPoints": list(points)}}


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_conventional_metrics_of_a_real_sdk_become_a_sample(collector, key, conn, transport):
    provider = sdk(exporter_of(transport, collector, key), {"host.name": "node-a", "service.name": "exporter"})
    meter = provider.get_meter("test")
    who = {"hw.id": UUID, "hw.type": "gpu", "hw.name": "NVIDIA H200"}

    def gives(value, **more):
        return [lambda _: [Observation(value, who | more)]]

    meter.create_observable_gauge("hw.gpu.utilization", gives(0.75), "1")
    meter.create_observable_up_down_counter("hw.gpu.memory.usage", gives(10 * GIB), "By")
    meter.create_observable_up_down_counter("hw.gpu.memory.limit", gives(141 * GIB), "By")
    meter.create_observable_gauge("hw.power", gives(430.5), "W")
    meter.create_observable_counter("hw.energy", gives(123_456.789), "J")
    meter.create_observable_gauge("hw.gpu.allocated", gives(1))
    assert provider.force_flush()
    assert rows(conn, "device_id, node, gpu_model, util_bp, memory_used_bytes, memory_total_bytes, power_mw, energy_mj,"
                      " held, source") == [
        (UUID, "node-a", "NVIDIA H200", 7_500, 10 * GIB, 141 * GIB, 430_500, 123_456_789, True, "hw")
    ]  # fmt: skip
    sums = "sum(received), sum(stored), sum(rejected)"
    assert rows(conn, sums, "ingest_log where signal = 'metrics'", "1") == [(6, 6, 0)]
    provider.shutdown()


def test_encoder_and_decoder_do_not_come_on_top(collector, key, conn):
    body = metrics({"host.name": "n"}, **{"hw.gpu.utilization": gauge(
        point(0.4, ("hw.id", UUID), ("hw.gpu.task", "general")),
        point(0.9, ("hw.id", UUID), ("hw.gpu.task", "encoder")),
    )})  # fmt: skip
    assert collector.post(key, body, path="/v1/metrics").status == 200
    assert rows(conn, "util_bp") == [(4_000,)]


def test_power_of_other_hardware_is_not_a_gpus(collector, key, conn):
    body = metrics({"host.name": "n"}, **{"hw.power": gauge(point(90.0, ("hw.id", "cpu0"), ("hw.type", "cpu")))})
    assert collector.post(key, body, path="/v1/metrics").status == 200
    assert rows(conn, "device_id") == []


def test_openlits_collector_is_read_and_its_second_meaning_is_not(collector, key, conn):
    who = [("hw.id", UUID), ("hw.name", "NVIDIA L4")]
    body = metrics({"host.name": "n"}, **{
        "hw.gpu.utilization": gauge(point(0.1, *who)), "hw.gpu.memory.utilization": gauge(point(0.9, *who)),
        "hw.gpu.power.draw": gauge(point(33.0, *who)), "hw.gpu.allocated": gauge(point(0.0, *who)),
        "hw.gpu.energy.consumed": {"sum": {"isMonotonic": True, "aggregationTemporality": 2,
                                           "dataPoints": [point(7.5, *who)]}},
    })  # fmt: skip
    assert collector.post(key, body, path="/v1/metrics").status == 200
    assert rows(conn, "util_bp, memory_used_bytes, power_mw, energy_mj, held") == [(1_000, None, 33_000, 7_500, False)]


def test_workers_that_all_report_one_gpu_are_one_sample(collector, key, conn):
    for _ in range(3):
        body = metrics({"host.name": "n", "service.name": "chat"}, **{
            "gpu.utilization": gauge(point(41, ("gpu.uuid", UUID))),
            "gpu.memory.used": gauge(point(2_048, ("gpu.uuid", UUID))),
            "gpu.memory.total": gauge(point(24_576, ("gpu.uuid", UUID))),
            "gpu.power.draw": gauge(point(50, ("gpu.uuid", UUID))),
        })  # fmt: skip
        assert collector.post(key, body, path="/v1/metrics").status == 200
    slots = rows(conn, "util_bp, memory_used_bytes, memory_total_bytes, power_mw, served_model, source")
    assert set(slots) == {(4_100, 2 * GIB, 24 * GIB, 50_000, "chat", "openlit")}
    assert len(slots) <= 2  # the three requests may lie on both sides of a slot's edge


@pytest.mark.parametrize(("power", "stored"), [(0, (None, None, None)), (31, (0, 0, 31_000))])
def test_zeros_of_openlits_sdk_are_believed_only_when_its_other_reads_worked(collector, key, conn, power, stored):
    who = ("gpu.uuid", UUID)
    body = metrics({"host.name": "n"}, **{
        "gpu.utilization": gauge(point(0, who)), "gpu.memory.used": gauge(point(0, who)),
        "gpu.memory.total": gauge(point(24_576, who)), "gpu.power.draw": gauge(point(power, who)),
    })  # fmt: skip
    assert collector.post(key, body, path="/v1/metrics").status == 200
    assert rows(conn, "util_bp, memory_used_bytes, power_mw") == [stored]


def test_the_collectors_prometheus_receiver_is_read(collector, key, conn):
    resource = {"service.name": "dcgm", "service.instance.id": "10.0.0.1:9400", "server.address": "10.0.0.1"}
    who = [("UUID", UUID), ("gpu", "0"), ("modelName", "NVIDIA H100"), ("pod", "llama-0"), ("namespace", "prod")]
    engine = [("model_name", "llama"), ("engine", "0")]
    body = metrics(resource, **{
        "DCGM_FI_DEV_GPU_UTIL": gauge(point(97.0, *who)),
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": {"sum": {"isMonotonic": True, "aggregationTemporality": 2,
                                                         "dataPoints": [point(5_000.0, *who)]}},
        "vllm:prompt_tokens": {"sum": {"isMonotonic": True, "aggregationTemporality": 2,
                                       "dataPoints": [point(77.0, *engine)]}},
        "vllm:request_prefill_time_seconds": {"histogram": {"aggregationTemporality": 2, "dataPoints": [
            point(None, *engine, sum=1.5, count="4", bucketCounts=["4"], explicitBounds=[])]}},
        "vllm:e2e_request_latency_seconds": {"histogram": {"aggregationTemporality": 2, "dataPoints": [
            point(None, *engine, sum=9.5, count="4", bucketCounts=["4"], explicitBounds=[])]}},
        "up": gauge(point(1.0)),
    })  # fmt: skip
    assert collector.post(key, body, path="/v1/metrics").status == 200
    assert rows(conn, "device_id, node, target, util_bp, energy_mj, pod, namespace") == [
        (UUID, "10.0.0.1", "10.0.0.1:9400", 9_700, 5_000, "llama-0", "prod")
    ]
    assert rows(conn, "target, served_model, prompt_tokens, prefill_us, requests", "engine_sample_full", "1") == [
        ("10.0.0.1:9400", "llama", 77, 1_500_000, 4)
    ]


def test_a_series_that_ended_and_a_target_that_is_down_are_gaps(collector, key, conn):
    ended = gauge(point(0, ("UUID", UUID), flags=1))
    body = metrics({"service.instance.id": "10.0.0.1:9400"}, DCGM_FI_DEV_GPU_UTIL=ended, up=gauge(point(0.0)))
    assert collector.post(key, body, path="/v1/metrics").status == 200
    assert rows(conn, "device_id") == []
    assert rows(conn, "kind, target, device_id", "gpu_gap", "kind") == [
        (1, "10.0.0.1:9400", ""), (2, "10.0.0.1:9400", UUID)
    ]  # fmt: skip
    assert rows(conn, "node", "dirty_gpu_hour", "1")


def test_what_is_not_believed_is_answered_and_logged(collector, key, conn, project):
    body = metrics({"host.name": "n"}, **{
        "hw.gpu.utilization": gauge(point(40.0, ("hw.id", UUID)), point("NaN", ("hw.id", UUID)), point(0.5)),
        "hw.energy": {"sum": {"isMonotonic": True, "aggregationTemporality": 1,
                              "dataPoints": [point(1.0, ("hw.id", UUID), ("hw.type", "gpu"))]}},
    })  # fmt: skip
    answer = collector.post(key, body, path="/v1/metrics")
    assert answer.status == 200
    assert answer.json["partialSuccess"]["rejectedDataPoints"] == "4"
    assert "no GPU or server can have such a value" in answer.json["partialSuccess"]["errorMessage"]
    (reasons,) = conn.execute("select reasons from ingest_log where project_id = %s", (project.id,)).fetchone()
    assert reasons == {"gpu_out_of_range": 1, "gpu_not_a_number": 1, "gpu_no_device": 1, "gpu_delta_counter": 1}


def test_resource_from_the_exporters_pod_holds_no_gpu(collector, key, conn):
    body = metrics({"host.name": "n", "k8s.pod.name": "my-gpu-collector-1"},
                   **{"hw.gpu.utilization": gauge(point(0.5, ("hw.id", UUID)))})  # fmt: skip
    assert collector.post(key, body, path="/v1/metrics").status == 200
    assert rows(conn, "held, holders") == [(None, [])]
