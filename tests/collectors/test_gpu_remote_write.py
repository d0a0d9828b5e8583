"""Prometheus remote-write 1.0: from a real Prometheus, and the faults and limits of the door."""

import http.server
import math
import shutil
import struct
import subprocess
import threading
import time

import cramjam
import psycopg
import pytest

from collectors import wire
from tests.collectors.conftest import Collector, free_port
from tests.collectors.gpu_points import TEXTS

UUID = "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"
HEADERS = {"content_encoding": "snappy", "x_prometheus_remote_write_version": "0.1.0"}
STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: gpu
  metrics_path: /dcgm-kubernetes.txt
  static_configs: [{{targets: ["127.0.0.1:{texts}"], labels: {{node: rack-1}}}}]
- job_name: vllm
  metrics_path: /vllm.txt
  static_configs: [{{targets: ["127.0.0.1:{texts}"]}}]
- job_name: away
  static_configs: [{{targets: ["127.0.0.1:{nobody}"]}}]
remote_write:
- url: http://127.0.0.1:{costapp}/api/v1/write
  authorization: {{credentials: {key}}}
  queue_config: {{batch_send_deadline: 1s}}
"""


def request(*series):
    """Series are (labels, [(value, milliseconds), ...])."""
    message = wire.WriteRequest()
    for labels, samples in series:
        item = message.series.add()
        item.labels.extend(
            wire.Label(name=name.encode(), value=value.encode()).SerializeToString()
            for name, value in sorted(labels.items())
        )
        for value, at in samples:
            item.samples.add(value=value, time_ms=at)
    return bytes(cramjam.snappy.compress_raw(message.SerializeToString()))


def util(value, at=None, **labels):
    name = {"__name__": "DCGM_FI_DEV_GPU_UTIL", "UUID": UUID, "instance": "10.0.0.1:9400"}
    return name | labels, [(value, at or int(time.time() * 1000))]


def write(collector, key, body, **headers):
    sent = {"content_type": "application/x-protobuf"} | HEADERS | headers
    return collector.post(key, body, path="/api/v1/write", **sent)


def rows(conn, columns, table="gpu_sample_full", order="1"):
    return conn.execute(f"select {columns} from {table} order by {order}").fetchall()


def log_of(project):
    """Refusals of other tests are written down a little later."""
    return f"ingest_log where project_id = {project.id}"


def test_a_request_is_answered_204_once_it_is_stored(collector, key, conn, project):
    answer = write(collector, key, request(util(97), util(1, __name__="node_load1")))
    assert (answer.status, answer.body) == (204, b"")
    assert rows(conn, "device_id, util_bp, target, node") == [(UUID, 9_700, "10.0.0.1:9400", "10.0.0.1")]
    assert rows(conn, "received, stored, rejected, transport", log_of(project)) == [(2, 1, 0, "remote-write")]


def test_series_that_come_in_several_requests_fill_one_row(collector, key, conn):
    at = int(time.time() * 1000)
    for name, value in (("DCGM_FI_DEV_GPU_UTIL", 40), ("DCGM_FI_DEV_POWER_USAGE", 300),
                        ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 0.25)):  # fmt: skip
        assert write(collector, key, request(util(value, at, __name__=name))).status == 204
    assert rows(conn, "util_bp, power_mw") == [(2_500, 300_000)]


def test_a_stale_marker_is_a_gap_and_another_nan_is_no_value(collector, key, conn, project):
    at = int(time.time() * 1000)
    answer = write(collector, key, request(util(STALE, at), util(math.nan, at, UUID=UUID.replace("4", "5"))))
    assert answer.status == 204
    assert rows(conn, "kind, device_id", "gpu_gap") == [(2, UUID)]
    assert [util_bp for (util_bp,) in rows(conn, "util_bp")] == [None]
    assert rows(conn, "reasons", log_of(project)) == [({"gpu_not_a_number": 1},)]


def test_a_bad_series_does_not_refuse_the_good_ones(collector, key, conn, project):
    body = request(
        util(97), util(808_334_905, UUID=UUID.replace("4", "5")), ({"__name__": "DCGM_FI_DEV_GPU_UTIL"}, [(1, 1)])
    )
    assert write(collector, key, body).status == 204
    assert rows(conn, "count(util_bp)") == [(1,)]
    assert rows(conn, "reasons", log_of(project)) == [({"gpu_out_of_range": 1, "gpu_no_device": 1},)]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"no snappy", {}, 400),
        (b"", {}, 400),
        (bytes(cramjam.snappy.compress_raw(b"\xff\xff no message")), {}, 400),
        (b"\xff\xff\xff\xff\x0f" + b"x" * 50, {}, 413),  # says that it unpacks to 4 GiB
        (bytes(cramjam.snappy.compress_raw(bytes(3_000_000))), {}, 413),
        (request(), {"content_encoding": "gzip"}, 415),
        (request(), {"content_type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"}, 415),
        (request(), {"content_type": "text/plain"}, 415),
    ],
)
def test_faults_of_the_sender_are_never_retried(collector, key, conn, body, headers, status):
    answer = write(collector, key, body, **headers)
    assert answer.status == status
    assert answer.headers["content-type"] == "text/plain"
    assert answer.body.decode().strip().endswith((".", "."))
    assert rows(conn, "count(*)") == [(0,)]


def test_while_the_database_is_away_prometheus_is_told_to_send_again(database_url, key, conn):
    away = psycopg.conninfo.make_conninfo(database_url, host="127.0.0.1", port=free_port(), connect_timeout=1)
    process = Collector(away)
    try:
        answer = write(process, key, request(util(97)))
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
    finally:
        process.kill()
    assert rows(conn, "count(*)") == [(0,)]


def test_a_wrong_key_is_401_and_get_is_405(collector, key, conn):
    assert write(collector, "ca_ing_wrong", request(util(1))).status == 401
    assert collector.request("GET", "/api/v1/write").status == 405


@pytest.fixture
def texts():
    """Exporters on loopback that answer with the recorded texts."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(TEXTS))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def wait_for(found, seconds=30):
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, "nothing arrived in time"
        time.sleep(0.05)


@pytest.fixture
def prometheus(collector, key, texts, tmp_path):
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Prometheus is not installed (Debian: apt-get install prometheus)")
    port, nobody = free_port(), free_port()
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(texts=texts, nobody=nobody, costapp=collector.http_port, key=key))
    process = subprocess.Popen(
        [program, f"--config.file={configuration}", f"--storage.tsdb.path={tmp_path}/data",
         f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    yield nobody
    process.terminate()
    process.wait(20)


def test_a_real_prometheus_needs_one_line(conn, prometheus, texts, project):
    wait_for(lambda: rows(conn, "1", "gpu_gap") and rows(conn, "1", "engine_sample") and rows(conn, "1"))
    wait_for(lambda: rows(conn, "1", "gpu_sample_full where power_mw is not null and energy_mj is not null"))
    busy = f"gpu_sample_full where device_id = '{UUID}' and energy_mj is not null"
    columns = "util_bp, memory_total_bytes / 1048576, power_mw, energy_mj, node, target, holders"
    first = rows(conn, columns, busy)[0]
    assert first == (9_512, 81_559, 612_305, 163_214_567_890, "node-a", f"127.0.0.1:{texts}", ["prod/llama-0/vllm"])
    assert rows(conn, "distinct target", "gpu_gap") == [(f"127.0.0.1:{prometheus}",)]
    engine = rows(conn, "prompt_tokens, prefill_us, requests", "engine_sample_full where replica = '0'")[0]
    assert engine == (98_313_546, 410_250_000, 312)
    assert rows(conn, "reasons", f"{log_of(project)} and reasons is not null") == []
