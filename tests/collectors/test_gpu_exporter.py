"""Our own exporter: readings become samples, and a machine without a GPU is told so in one sentence."""

import ctypes.util
import os
import subprocess
import sys

import pytest

from collectors.gpu_exporter import NO_GPU, Reading, Sender, make_exporter, table

UUID = "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"
GIB = 2**30
HAS_DRIVER = ctypes.util.find_library("nvidia-ml") is not None


def start(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "collectors.gpu_exporter", *arguments],
        env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def send(collector, key):
    sender = Sender(make_exporter(f"http://127.0.0.1:{collector.http_port}", key), {"host.name": "node-a"})
    yield sender.send
    sender.close()


def rows(conn, columns):
    return conn.execute(f"select {columns} from gpu_sample_full order by device_id").fetchall()


def test_a_reading_becomes_a_sample(send, conn):
    reading = Reading(UUID, 0, "NVIDIA H200", utilization=0.625, memory_used=3 * GIB, memory_total=141 * GIB,
                      power_w=300.25, energy_j=12_345.678, processes=1)  # fmt: skip
    assert send([reading])
    columns = "device_id, node, gpu_model, util_bp, memory_used_bytes, memory_total_bytes, power_mw, energy_mj, held"
    assert rows(conn, columns) == [
        (UUID, "node-a", "NVIDIA H200", 6_250, 3 * GIB, 141 * GIB, 300_250, 12_345_678, True)
    ]


def test_what_the_driver_does_not_tell_is_not_sent(send, conn):
    assert send([Reading(UUID, 0, "NVIDIA H200", power_w=70.0)])
    assert rows(conn, "util_bp, memory_used_bytes, energy_mj, held, power_mw") == [(None, None, None, None, 70_000)]


def test_slices_are_devices_and_the_whole_keeps_power_and_energy(send, conn):
    whole = Reading(UUID, 0, "NVIDIA A100", power_w=200.0, energy_j=5.0)
    part = Reading(f"{UUID}/3", 0, "NVIDIA A100", parent_id=UUID, mig_profile="2g.10gb", memory_used=GIB, processes=0)
    assert send([whole, part])
    assert rows(conn, "device_id, parent_id, mig_profile, is_split, power_mw, memory_used_bytes, held") == [
        (UUID, "", "", True, 200_000, None, None), (f"{UUID}/3", UUID, "2g.10gb", False, None, GIB, False),
    ]  # fmt: skip


def test_a_gpu_that_is_lost_is_no_longer_reported(send, conn):
    first, second = (Reading(f"{UUID[:-1]}{number}", number, "L4", power_w=20.0) for number in (1, 2))
    assert send([first, second])
    conn.execute("truncate gpu_sample")
    assert send([second])
    assert rows(conn, "device_id") == [(second.device_id,)]


def test_a_receiver_that_refuses_is_noticed(collector, conn):
    sender = Sender(make_exporter(f"http://127.0.0.1:{collector.http_port}", "ca_ing_wrong"), {})
    assert not sender.send([Reading(UUID, 0, "L4", power_w=20.0)])
    sender.close()


def test_readings_are_shown_to_people():
    shown = table([Reading(UUID, 0, "NVIDIA H200", utilization=0.5, processes=2)])
    assert f"GPU 0: NVIDIA H200, {UUID}" in shown
    assert "50.0% of the time" in shown
    assert "not told" in shown


@pytest.mark.skipif(HAS_DRIVER, reason="this machine has an NVIDIA driver")
def test_a_machine_without_a_gpu_is_told_so_in_one_sentence():
    found = start("--once", "--print")
    assert (found.returncode, found.stdout) == (NO_GPU, "")
    assert found.stderr.count("\n") == 1
    assert "no GPU to report" in found.stderr


@pytest.mark.skipif(not HAS_DRIVER, reason="this machine has no NVIDIA driver")
def test_the_gpus_of_this_machine_are_read():
    found = start("--once", "--print")
    assert (found.returncode, found.stderr) == (0, "")
    assert "GPU 0: " in found.stdout


def test_somewhere_to_send_to_must_be_named():
    found = start("--once", OTEL_EXPORTER_OTLP_ENDPOINT="", OTEL_EXPORTER_OTLP_METRICS_ENDPOINT="")
    assert found.returncode == 2
    assert "--endpoint" in found.stderr
