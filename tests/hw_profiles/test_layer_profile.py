"""A network by layer: the parts are those of independent tools, and together they are the whole."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis
from onnx import load_from_string

from hw_profiles import load_device, profile
from hw_profiles.layer_profile import profile_layers
from hw_profiles.network.quantization import fixed_quantization, with_in_float
from hw_profiles.network.workload import Op, WorkloadBuilder
from hw_profiles.onnx_io.reader import read_onnx
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.profiling import workload_of
from search_spaces import preset

HOST = load_device("host")
_FREE = ("Flatten", "Reshape")
MODELS = ("resnet8", "mobilenetv2_035", "mobilenetv3_small_050", "efficientnet_b0")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_layers_add_up_to_the_whole(name: str, precision: str) -> None:
    workload = preset(name, input_shape=(3, 64, 64)).workload().with_precision(precision)
    found, whole = profile_layers(workload, HOST), profile(workload, HOST, precision)
    microseconds = sum(layer.microseconds for layer in found.layers) + found.call_microseconds
    assert microseconds == pytest.approx(1000 * whole.latency_ms, rel=1e-9)
    assert sum(layer.share for layer in found.layers) + found.call_share == pytest.approx(1)
    assert found.latency.low_ms < found.latency.ms < found.latency.high_ms
    assert found.macs == whole.macs
    assert found.weight_bytes == whole.flash_bytes
    assert found.peak.live_bytes == max(layer.live_bytes for layer in found.layers) == whole.peak_ram_bytes


@pytest.mark.parametrize("in_float", [["classifier"], ["stem"], ["stem", "stages.1.0.conv1"]])
def test_layers_of_a_network_of_both_precisions_add_up_to_the_whole(in_float: list[str], tmp_path: Path) -> None:
    workload = preset("resnet8").workload()
    mixed = with_in_float(workload, fixed_quantization(workload), in_float)
    (tmp_path / "m.onnx").write_bytes(write_onnx(workload, quantization=mixed))
    found, whole = profile_layers(tmp_path / "m.onnx", HOST), profile(tmp_path / "m.onnx", HOST)
    microseconds = sum(layer.microseconds for layer in found.layers) + found.call_microseconds
    assert microseconds == pytest.approx(1000 * whole.latency_ms, rel=1e-9)


def test_macs_of_each_layer_are_those_that_fvcore_counts_for_its_module() -> None:
    module = timm.create_model("resnet18").eval()
    counted = FlopCountAnalysis(module, torch.zeros(1, 3, 64, 64))
    counted.unsupported_ops_warnings(False)
    expected = {name: counted.by_module()[name] for name, m in module.named_modules() if isinstance(m, torch.nn.Conv2d)}
    found = {layer.name: layer.macs for layer in profile_layers(workload_of(module, (3, 64, 64)), HOST).layers}
    assert len(expected) == 20
    assert {name: found[name] for name in expected} == expected


def test_layers_run_what_onnx_runtime_runs_in_the_same_order(tmp_path: Path) -> None:
    workload = preset("resnet8").workload()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(write_onnx(workload), options, providers=["CPUExecutionProvider"])
    optimized = load_from_string((tmp_path / "optimized.onnx").read_bytes())
    wanted = [node.op_type for node in optimized.graph.node if node.op_type not in _FREE]
    assert [node for layer in profile_layers(workload, HOST).layers for node in layer.nodes] == wanted


def test_a_layer_says_what_it_reads_writes_and_stores() -> None:
    builder = WorkloadBuilder("input", (1, 3, 8, 8))
    x = builder.activation("act", builder.conv("first", "input", 16, kernel_size=3), "relu")
    workload = builder.build(builder.conv("second", x, 32, kernel_size=1, stride=2)).with_precision("int8")
    found = {layer.name: layer for layer in profile_layers(workload, HOST).layers}
    first, second = found["first"], found["second"]
    assert (first.ops, first.kind, second.kind) == (("first", "act"), "conv", "pointwise")
    assert (second.input_shape, second.output_shape) == ((1, 16, 8, 8), (1, 32, 4, 4))
    assert (second.input_bits, second.weight_bits) == (8, 8)
    assert second.activation_bytes == 16 * 8 * 8 + 32 * 4 * 4
    assert (
        second.weight_bytes == 32 * 16 + 4 * 32 + 4 * 32
    )  # int8 weights, int32 biases, a float scale for each channel
    assert second.live_bytes == 16 * 8 * 8 + 32 * 4 * 4
    kinds = [layer.kind for layer in profile_layers(workload, HOST).layers]
    assert (kinds[0], kinds[-1]) == ("quantize", "dequantize")
    assert found["quantize input"].weight_bits is None


def test_the_peak_is_where_a_residual_block_holds_three_tensors() -> None:
    found = profile_layers(preset("resnet8").workload().with_precision("int8"), HOST)
    assert found.peak.live_bytes == 3 * 16 * 32 * 32
    assert found.peak.ops == ("stages.0.0.conv2",)


def test_unknown_operations_are_named_and_counted() -> None:
    builder = WorkloadBuilder("input", (1, 3, 8, 8))
    x = builder.conv("conv", "input", 8, kernel_size=3)
    for name, function in (("a", "Mystery"), ("b", "Mystery"), ("c", "Riddle")):
        x = builder.append(Op(name, "other", (x,), function=function), (1, 8, 8, 8))
    found = profile_layers(builder.build(x), HOST)
    assert dict(found.unknown) == {"Mystery": 2, "Riddle": 1}
    assert [layer.function for layer in found.layers if layer.kind == "other"] == ["Mystery", "Mystery", "Riddle"]


def test_a_kernel_without_a_cost_is_said_to_borrow_one() -> None:
    builder = WorkloadBuilder("input", (1, 16, 8, 8))
    workload = builder.build(builder.conv("conv", "input", 16, kernel_size=3))
    own = profile_layers(workload, HOST)
    table = {kind: cost for kind, cost in HOST.costs["fp32"].items() if kind != "conv/conv.blocked"}
    borrowed = profile_layers(workload, replace(HOST, costs={**HOST.costs, "fp32": table}))
    assert [layer.fallback_cost for layer in own.layers if layer.kind == "conv"] == [False]
    assert [layer.fallback_cost for layer in borrowed.layers if layer.kind == "conv"] == [True]
    widths = [math.log(found.latency.high_ms / found.latency.ms) for found in (own, borrowed)]
    assert widths[0] < widths[1]


def test_a_file_in_integers_is_taken_apart_like_the_network_that_it_was_written_from() -> None:
    workload = preset("mobilenetv2_035", input_shape=(3, 32, 32)).workload().with_precision("int8")
    read = profile_layers(read_onnx(write_onnx(workload, quantization=fixed_quantization(workload))), HOST)
    wanted = profile_layers(workload, HOST)
    for name in ("kind", "macs", "live_bytes", "input_bits", "weight_bits", "output_shape"):
        assert [getattr(layer, name) for layer in read.layers] == [getattr(layer, name) for layer in wanted.layers]
