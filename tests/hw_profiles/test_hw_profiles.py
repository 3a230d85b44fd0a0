"""Workloads, fused kernels, memory, devices, budgets, latency."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from hw_profiles import Budget, list_devices, load_device, profile
from hw_profiles import latency as latency_module
from hw_profiles.formats import TensorFormat
from hw_profiles.fusion import fuse
from hw_profiles.latency import compare, estimate, measure, median_interval
from hw_profiles.memory import plan
from hw_profiles.onnx_read import read_metadata, read_onnx
from hw_profiles.onnx_write import fixed_quantization, random_weights, weight_scales, write_onnx
from hw_profiles.workload import Workload, WorkloadBuilder
from search_spaces import Arch, preset, sample

ARCHS = [
    preset("resnet8"),
    preset("mobilenetv2_035", input_shape=(3, 96, 96)),
    *(sample("mobilenet", seed=seed) for seed in range(8)),
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(latency_module, "_NOMINAL_ROUNDS", 5)
    return tmp_path / "cache"


def written(workload: Workload, precision: str) -> bytes:
    return write_onnx(workload, quantization=fixed_quantization(workload) if precision == "int8" else None)


def optimised(data: bytes, folder: Path) -> Counter[str]:
    """How often each operation stands in the graph that ONNX Runtime runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.id)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_written_file_is_read_back(arch: Arch, precision: str) -> None:
    workload = arch.workload().with_precision(precision)
    read = read_onnx(written(arch.workload(), precision))
    assert read.macs == workload.macs
    assert read.weight_count == workload.weight_count
    assert read.shapes.values() == workload.shapes.values() or sorted(read.shapes.values()) == sorted(
        workload.shapes.values()
    )
    assert read.weight_bytes == workload.weight_bytes
    assert [op.kind for op in read.ops] == [op.kind for op in workload.ops]


@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.id)
def test_float_kernels_are_those_of_onnx_runtime(arch: Arch, tmp_path: Path) -> None:
    workload = arch.workload()
    kernels = Counter(kernel.kind for kernel in fuse(workload))
    runs = optimised(written(workload, "fp32"), tmp_path)
    assert kernels["conv"] + kernels["pointwise"] + kernels["depthwise"] == runs["Conv"] + runs["FusedConv"]
    assert kernels["add"] == runs["Add"]
    assert kernels["linear"] == runs["Gemm"]
    assert kernels["pool"] == runs["GlobalAveragePool"]


@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.id)
def test_integer_kernels_are_those_of_onnx_runtime(arch: Arch, tmp_path: Path) -> None:
    workload = arch.workload()
    kernels = Counter(kernel.kind for kernel in fuse(workload.with_precision("int8")))
    runs = optimised(written(workload, "int8"), tmp_path)
    assert kernels["conv"] + kernels["pointwise"] + kernels["depthwise"] == runs["QLinearConv"]
    assert (kernels["add"], kernels["linear"]) == (runs["QLinearAdd"], runs["QGemm"])
    assert kernels["mul"] == runs["QLinearMul"]
    assert kernels["pool"] == runs["QLinearGlobalAveragePool"]
    assert runs["Relu"] == runs["Clip"] == 0


def test_each_operation_is_in_one_kernel_and_none_is_lost() -> None:
    for arch in ARCHS:
        for precision in ("fp32", "int8"):
            workload = arch.workload().with_precision(precision)
            names = [op.name for kernel in fuse(workload) for op in kernel.ops]
            assert sorted([*names, "flatten"]) == sorted(op.name for op in workload.ops)
            assert sum(kernel.macs for kernel in fuse(workload)) == workload.macs


def test_counts_by_hand() -> None:
    b = WorkloadBuilder("input", (1, 4, 10, 8))
    x = b.conv("dw", "input", 4, kernel_size=3, stride=2, groups=4)
    x = b.conv("pw", x, 6, kernel_size=1)
    x = b.pool("mean", "avg_pool", x, kernel_size=2, stride=2)
    x = b.linear("fc", b.flatten("flat", x), 3)
    workload = b.build()
    assert workload.shapes["dw"] == (1, 4, 5, 4)
    assert workload.macs == 4 * 9 * 20 + 4 * 6 * 20 + 6 * 2 * 2 * 3
    assert workload.weight_count == (36 + 4) + (24 + 6) + (72 // 1 + 3)
    int8 = workload.with_precision("int8")
    assert int8.weight_bytes == 36 + 24 + 72 + 4 * (4 + 6 + 3) + 4 * (4 + 6 + 3)


def test_peak_is_the_largest_sum_of_live_tensors() -> None:
    """x lives until the sum: 8 channels of it, 32 expanded ones, and then 32 + 32 around the depthwise convolution."""
    b = WorkloadBuilder("input", (1, 8, 4, 4))
    y = b.conv("expand", "input", 32, kernel_size=1)
    y = b.conv("dw", y, 32, kernel_size=3, groups=32)
    y = b.conv("project", y, 8, kernel_size=1)
    b.binary("add", "add", "input", y)
    workload = b.build().with_precision("int8")
    schedule = plan(workload, fuse(workload))
    assert schedule.peak_bytes == (8 + 32 + 32) * 16
    assert schedule.peak_kernel.output == "dw"


@pytest.mark.parametrize("arch", ARCHS[:4], ids=lambda arch: arch.id)
def test_estimates_are_the_sum_of_the_table(arch: Arch) -> None:
    device = load_device("host")
    workload = arch.workload()
    kernels = fuse(workload)
    whole = estimate(workload, kernels, device)
    without_last = estimate(workload, kernels[:-1], device)
    cost = device.cost("fp32", "linear")
    moved = sum(workload.tensor_bytes(t) for t in (*kernels[-1].inputs, "classifier")) + kernels[-1].weight_bytes
    expected = cost.overhead_us + cost.us_per_mmac * kernels[-1].macs / 1e6 + cost.us_per_mbyte * moved / 1e6
    assert 1000 * (whole.ms - without_last.ms) == pytest.approx(expected)
    assert (whole.low_ms, whole.high_ms) == (whole.ms / 2, whole.ms * 2)


def test_measurements_have_an_interval_and_keep_the_nominal_time(cache: Path) -> None:
    data = written(preset("resnet8").workload(), "int8")
    found = measure(data, load_device("host"), max_rounds=15)
    assert 0 < found.low_ms <= found.ms <= found.high_ms
    assert found.source == "measured"
    assert found.raw_ms is not None
    [kept] = (cache / "fitnas").glob("host-*.json")
    before = kept.read_bytes()
    measure(data, load_device("host"), max_rounds=15)
    assert kept.read_bytes() == before


def test_a_network_of_many_more_operations_takes_longer(tmp_path: Path) -> None:
    for name, arch in (("small", preset("resnet8")), ("large", preset("mobilenetv2_100"))):
        (tmp_path / f"{name}.onnx").write_bytes(written(arch.workload(), "fp32"))
    median, low, high = compare(tmp_path / "large.onnx", tmp_path / "small.onnx", load_device("host"), max_rounds=15)
    assert 2 < low <= median <= high


def test_the_interval_of_the_median_holds_it_nine_times_in_ten() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        low, high = median_interval(generator.exponential(size=31).tolist())
        held += low <= np.log(2) <= high
    assert 0.86 < held / 2000 < 0.96


def test_profiles_of_arch_and_file_agree(tmp_path: Path, cache: Path) -> None:
    arch, device = preset("resnet8"), load_device("host")
    path = tmp_path / "m.onnx"
    path.write_bytes(written(arch.workload(), "int8"))
    of_arch, of_file = profile(arch, device, "int8"), profile(path, device)
    assert of_arch.latency_ms == pytest.approx(of_file.latency_ms)
    assert (of_arch.macs, of_arch.flash_bytes, of_arch.peak_ram_bytes) == (
        of_file.macs, of_file.flash_bytes, of_file.peak_ram_bytes
    )  # fmt: skip
    assert of_arch.latency_source == "estimated"
    assert (of_arch.params, of_file.params) == (78_042, None)
    assert profile(arch, device, "int8", measured=True).latency_source == "measured"


def test_budgets_say_how_far_off_a_profile_is() -> None:
    found = profile(preset("resnet8"), load_device("host"), "int8")
    excess = Budget(latency_ms=found.latency_ms / 2, peak_ram_bytes=found.peak_ram_bytes).violations(found)
    assert excess == {"latency_ms": pytest.approx(1.0), "peak_ram_bytes": 0.0}
    with pytest.raises(ValueError, match="energy_mj is limited, but nothing says what it is"):
        Budget(energy_mj=1).violations(found)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), True, "5"])
def test_budgets_are_positive_numbers(limit: float) -> None:
    with pytest.raises(ValueError, match=r"Budget.latency_ms must be a positive number"):
        Budget(latency_ms=limit)


def test_formats_count_bytes() -> None:
    assert TensorFormat(bits=4).bytes(5) == 3
    assert TensorFormat(bits=32, density=0.25).bytes(100) == 100
    with pytest.raises(ValueError, match="density must be in"):
        TensorFormat(density=0)
    with pytest.raises(ValueError, match="precision must be one of fp32, int8, got 'int4'"):
        profile(preset("resnet8"), load_device("host"), "int4")


@pytest.mark.parametrize("name", list_devices())
def test_every_device_loads_and_prices_every_network(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    assert device.source
    for arch in ARCHS:
        assert profile(arch, device).latency_ms > 0
        assert profile(arch, device, "int8").latency_ms > 0


HOST = (Path(__file__).parents[2] / "hw_profiles/devices/host.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("threads = 1", "", "threads is missing"),
        ("threads = 1", "threads = 0", "must be at least 1"),
        ("threads = 1", 'threads = "1"', "threads must be of type int"),
        ("schema = 1", "schema = 7", "schema must be 1, got 7"),
        ("measurable = true", "measurable = true\ncolour = 1", "unknown entry 'colour'"),
        ("us_per_mmac = ", "us_per_mmac = -", "must be a number of at least 0, got -"),
        ("us_per_mmac", "us_per_gmac", "us_per_gmac"),
        ("kernels.fp32.", "kernels.fp33.", "precision must be one of"),
        ("schema = 1", "schema 1", "device file"),
    ],
)
def test_bad_device_files_are_refused_by_name(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in HOST
    path = tmp_path / "mine.toml"
    path.write_text(HOST.replace(old, new))
    with pytest.raises(ValueError, match=said):
        load_device(path)


def test_devices_that_do_not_exist_and_kernels_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="did you mean 'host'"):
        load_device("hots")
    with pytest.raises(ValueError, match="device host has no cost for 'matmul' kernels in fp32"):
        load_device("host").cost("fp32", "matmul")


def graph(nodes: list[onnx.NodeProto], shape: list[object], initializers: list[onnx.TensorProto]) -> bytes:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", None))]
    made = helper.make_graph(nodes, "g", [ends[0]], [ends[1]], initializers)
    data: bytes = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    return data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"not a model", "not an ONNX"),
        (graph([helper.make_node("Einsum", ["x"], ["y"])], [1, 3], []), "the operation Einsum is not known"),
        (graph([helper.make_node("Relu", ["x"], ["y"])], [1, "height", 3], []), "must have fixed sizes"),
        (graph([helper.make_node("Relu", ["z"], ["y"])], [1, 3], []), "must be made by an earlier node"),
    ],
)
def test_files_that_cannot_be_read_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_onnx(data)


def test_weights_outside_the_file_are_refused(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(written(preset("resnet8").workload(), "fp32"))
    for tensor in model.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, "../../etc/passwd")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="weights must be inside the file"):
        read_onnx(tmp_path / "m.onnx")


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone.onnx: cannot be read"):
        read_onnx(tmp_path / "gone.onnx")


def test_metadata_travels_with_the_file() -> None:
    workload = preset("resnet8").workload()
    assert read_metadata(write_onnx(workload, metadata={"a": "ü"})) == {"a": "ü"}


def test_weights_of_a_wrong_shape_are_named() -> None:
    workload = preset("resnet8").workload()
    weights = random_weights(workload)
    weights["stem.bias"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"weight stem.bias must have the shape \(16,\), got \(3,\)"):
        write_onnx(workload, weights)


def test_quantized_weights_are_within_half_a_step_of_the_float_ones() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    scales = weight_scales(weight)
    integers = np.rint(weight / scales.reshape(-1, 1, 1, 1))
    assert np.abs(integers).max() == 127
    assert (np.abs(integers * scales.reshape(-1, 1, 1, 1) - weight).max(axis=(1, 2, 3)) <= scales / 2 * 1.001).all()


def test_only_one_process_measures_at_a_time() -> None:
    import fcntl
    import tempfile

    with latency_module.measuring_lock():
        other = os.open(Path(tempfile.gettempdir()) / "fitnas-measuring.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
