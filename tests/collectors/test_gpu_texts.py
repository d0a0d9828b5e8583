"""What exporters' texts say about GPUs and inference servers, with every trap they are known for."""

import pytest

from collectors.gpu.tables import METRICS
from costapp.core.gpu_samples import NO_UTIL, GapKind, Holder
from tests.collectors.gpu_points import MIB, Read, read_file

BUSY, FREE = "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c", "GPU-9a1b33e0-5f2e-4d8c-8c2a-0f64a1f4d001"
UUID = 'UUID="GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c"'


def test_a_gpu_with_its_pod_is_read_from_dcgm_exporter():
    found = read_file("dcgm-kubernetes.txt")
    busy = found.devices[BUSY]
    assert (busy.util_bp, busy.util_rank) == (9_512, 0)  # of GR_ENGINE_ACTIVE, not the 97 % of GPU_UTIL
    assert busy.memory_used_bytes == 74_551 * MIB
    assert busy.memory_total_bytes == (6_480 + 74_551 + 528) * MIB
    assert (busy.power_mw, busy.energy_mj) == (612_305, 163_214_567_890)
    assert (busy.node, busy.gpu_model, busy.target) == ("node-a", "NVIDIA H100 80GB HBM3", "10.0.0.1:9400")
    assert (busy.held, busy.holders) == (True, (Holder("prod", "llama-0", "vllm"),))
    assert found.rejected == {}  # the placeholder is in a metric that nobody reads


def test_a_free_gpu_is_at_zero_and_nobody_is_known_to_hold_it():
    free = read_file("dcgm-kubernetes.txt").devices[FREE]
    assert (free.util_bp, free.power_mw, free.held, free.holders) == (0, 71_442, None, ())


def test_mig_slices_are_devices_and_their_power_is_that_of_the_whole_gpu():
    found = read_file("dcgm-mig.txt")
    parent = "GPU-0c2b3f6e-0000-4000-8000-000000000001"
    assert set(found.devices) == {parent, f"{parent}/1", f"{parent}/5"}
    one, whole = found.devices[f"{parent}/1"], found.devices[parent]
    assert (one.util_bp, one.util_rank, one.mig_profile, one.parent_id) == (4_123, 0, "3g.40gb", parent)
    assert (one.power_mw, one.energy_mj) == (None, None)
    assert (whole.power_mw, whole.energy_mj, whole.util_bp, whole.is_split) == (310_500, 77_000_000_000, None, True)
    assert (one.node, one.holders) == ("node-m", (Holder("ml", "slice-1", "main"),))
    assert whole.holders == ()
    assert found.odd == {"gpu_util_on_mig": 2}


def test_time_slicing_repeats_one_device_and_is_not_summed():
    device = read_file("dcgm-time-slicing.txt").device
    assert (device.util_bp, device.memory_used_bytes, device.power_mw) == (4_200, 9_000 * MIB, 55_100)
    assert [holder.pod for holder in device.holders] == ["notebook-0", "notebook-1", "notebook-2", "notebook-3"]


def test_parts_per_process_add_up_to_the_device():
    device = read_file("dcgm-per-process.txt").device
    assert (device.util_bp, device.memory_used_bytes) == (5_500, 5_000 * MIB)


def test_values_that_cannot_be_are_unknown_and_counted():
    found = read_file("dcgm-corrupt.txt")
    utils = {device_id[-1]: sample.util_bp for device_id, sample in found.devices.items()}
    assert utils == {"0": None, "1": None, "2": None, "3": None, "4": None, "5": 10_000, "6": None, "7": 0}
    assert found.devices["GPU-00000000-0000-4000-8000-000000000000"].power_mw is None
    assert found.devices["GPU-00000000-0000-4000-8000-000000000001"].power_mw is None
    above, idle = (found.devices[f"GPU-00000000-0000-4000-8000-00000000000{number}"] for number in (6, 7))
    assert (above.memory_used_bytes, above.memory_total_bytes) == (None, 24_576 * MIB)
    assert (idle.memory_used_bytes, idle.power_mw) == (0, 0)  # dcgm-exporter says 0 when it is 0
    assert found.rejected == {
        "gpu_out_of_range": 5, "gpu_sentinel": 3, "gpu_not_a_number": 1, "gpu_no_device": 1, "gpu_bad_line": 2,
    }  # fmt: skip
    assert found.odd == {"gpu_memory_above_total": 1}


def test_a_device_whose_every_value_was_rejected_has_no_utilisation():
    device = Read(f"DCGM_FI_DEV_GPU_UTIL{{{UUID}}} 808334905").device
    assert (device.util_bp, device.util_rank) == (None, NO_UTIL)


@pytest.mark.parametrize("label", ["Hostname", "hostname", "exported_hostname", "node", "kubernetes_node"])
def test_the_node_is_found_under_all_its_names(label):
    assert Read(f'DCGM_FI_DEV_GPU_UTIL{{{UUID},{label}="n1"}} 1').device.node == "n1"


def test_without_a_host_name_the_scraped_address_is_the_node():
    assert Read(f"DCGM_FI_DEV_GPU_UTIL{{{UUID}}} 1", target="gpu-7:9400").device.node == "gpu-7"


def test_a_prometheus_that_renamed_the_workloads_labels_is_understood():
    labels = f'{UUID},pod="dcgm-exporter-x2k9s",namespace="gpu-operator",container="exporter"'
    held = f'{labels},exported_pod="llama-0",exported_namespace="prod",exported_container="vllm"'
    assert Read(f"DCGM_FI_DEV_GPU_UTIL{{{held}}} 1").device.holders == (Holder("prod", "llama-0", "vllm"),)
    partly = f'{labels},exported_pod="llama-0"'
    assert Read(f"DCGM_FI_DEV_GPU_UTIL{{{partly}}} 1").device.holders == (Holder("", "llama-0", ""),)
    free = Read(f"DCGM_FI_DEV_GPU_UTIL{{{labels}}} 1").device
    assert (free.holders, free.held) == ((), None)  # the exporter's own pod holds nothing


def test_old_pod_labels_are_read_too():
    labels = f'{UUID},pod_name="a",pod_namespace="b",container_name="c"'
    assert Read(f"DCGM_FI_DEV_GPU_UTIL{{{labels}}} 1").device.holders == (Holder("b", "a", "c"),)


def test_ids_that_are_unique_only_within_a_host_get_its_name():
    found = Read('hw_gpu_utilization_ratio{hw_id="0",host_name="n1"} 0.5\n'
                 'hw_gpu_utilization_ratio{hw_id="0",host_name="n2"} 0.25\n'
                 'DCGM_FI_DEV_GPU_UTIL{gpu="3",Hostname="n3"} 1\n')  # fmt: skip
    assert {device_id: sample.util_bp for device_id, sample in found.devices.items()} == {
        "n1/0": 5_000, "n2/0": 2_500, "n3/3": 100
    }  # fmt: skip


@pytest.mark.parametrize("name", ["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION_total"])
def test_counters_are_known_with_and_without_total(name):
    assert Read(f"{name}{{{UUID}}} 5").device.energy_mj == 5


def test_target_down_and_ended_series_are_gaps_not_zeros():
    found = Read('up{instance="a:9400",job="dcgm"} 0\nup{instance="b:9400"} 1\n')
    assert [(gap.kind, gap.target, gap.device_id) for gap in found.gaps] == [(GapKind.TARGET_DOWN, "a:9400", "")]
    assert found.devices == {}


def test_engines_of_vllm_are_told_apart():
    first, second = read_file("vllm.txt", target="10.0.0.9:8000").engines
    assert (first.kind, first.replica, second.replica) == ("vllm", "0", "1")
    assert first.served_model == "meta-llama/Llama-3.1-8B-Instruct"
    assert (first.running, first.waiting, first.kv_bp) == (6, 2, 4_200)
    assert (first.prompt_tokens, first.generation_tokens, first.cached_tokens) == (98_313_546, 826_123, 65_536)
    assert (first.queue_us, first.prefill_us, first.decode_us) == (12_500_000, 410_250_000, 3_600_125_000)
    assert (first.requests, first.preemptions) == (312, 3)
    assert (second.prompt_tokens, second.prefill_us) == (1_397, None)


def test_ranks_and_priorities_of_sglang_do_not_multiply():
    engine = read_file("sglang.txt").engine
    assert (engine.running, engine.waiting, engine.kv_bp) == (4, 3, 2_800)
    assert (engine.prompt_tokens, engine.generation_tokens) == (4_882_260, 139_795)


def test_tgi_without_labels_is_one_engine():
    engine = read_file("tgi.txt", target="tgi:8080").engine
    assert (engine.kind, engine.target, engine.running, engine.waiting) == ("tgi", "tgi:8080", 4, 7)
    assert (engine.prompt_tokens, engine.generation_tokens, engine.requests, engine.queue_us) == (
        512_004, 8_123, 1_004, 827_100
    )  # fmt: skip


def test_triton_reports_models_and_gpus():
    found = read_file("triton.txt")
    assert (found.engine.served_model, found.engine.requests, found.engine.waiting) == ("llama", 1_000, 17)
    device = found.device
    assert (device.device_id, device.util_bp, device.memory_total_bytes) == (
        "GPU-340cec52-80ba-c0df-8511-5f9680aae0ed", 2_500, 16_101_933_056
    )  # fmt: skip
    assert (device.power_mw, device.energy_mj) == (20_085, 1_234_560)


def test_labels_that_the_operator_adds_win():
    found = Read(f'DCGM_FI_DEV_GPU_UTIL{{{UUID},Hostname="pod-x"}} 1', added={"hostname": "rack-4"})
    assert found.device.node == "rack-4"


def test_a_text_of_too_many_lines_is_noticed():
    assert Read("a 1\n" * 10_005).lines == 10_001


def test_timestamps_exemplars_and_quotes_are_understood():
    text = f'DCGM_FI_DEV_GPU_UTIL{{{UUID},Hostname="a}} \\"b\\" # {{x"}} 12 # {{trace_id="1"}} 1.0\n# EOF\n'
    device = Read(text).device
    assert (device.node, device.util_bp) == ('a} "b" # {x', 1_200)


def test_a_point_from_another_age_is_rejected():
    found = Read(f"DCGM_FI_DEV_GPU_UTIL{{{UUID}}} 1 1000\nDCGM_FI_DEV_GPU_UTIL{{{UUID}}} 1 99999999999999\n")
    assert (found.devices, found.rejected) == ({}, {"gpu_time_out_of_range": 2})


def test_names_with_two_meanings_are_not_read():
    ambiguous = {"hw.gpu.memory.utilization", "hw_gpu_memory_utilization", "hw.gpu.idle", "DCGM_FI_DEV_MEM_COPY_UTIL"}
    assert not ambiguous & set(METRICS)
