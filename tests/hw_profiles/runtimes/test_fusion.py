"""Kernels, held against the graphs that ONNX Runtime saves after its optimization."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from compress.pruning.arch_widths import prunable_groups, pruned_arch
from hw_profiles.measurement.random_networks import is_attention, micro_network
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.network.workload import VIEWS, Workload, WorkloadBuilder
from hw_profiles.onnx_io.reader import read_onnx
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.runtimes.fusion import fuse
from hw_profiles.torch_io.timm_models import timm_module
from hw_profiles.torch_io.trace import export, trace
from search_spaces import build_model, list_presets, list_spaces, preset, sample
from tests.parameters import quick, slow

PRECISIONS = ("fp32", "int8")
SMALL = (3, 64, 64)
QUICK_SPACES = ("mobilenet", "tiny")
QUICK_PRESETS = ("resnet8", "mobilenetv3_small_050", "efficientnet_lite0")
OF_TIMM = ("mobilenetv2_035", "mobilenetv3_small_050", "efficientnet_lite0", "mnasnet_100", "mobilenetv1_100")

Unequal = list[tuple[str, dict[str, int]]]


def written(workload: Workload, precision: str) -> bytes:
    return write_onnx(workload, quantization=fixed_quantization(workload) if precision == "int8" else None)


def runs(data: bytes, folder: Path) -> Counter[str]:
    """How often each operation stands in the graph that ONNX Runtime runs; views cost nothing."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)
    return Counter({name: count for name, count in names.items() if name not in ("Flatten", "Reshape")})


def nodes(workload: Workload) -> Counter[str]:
    return Counter(node for kernel in fuse(workload) for node in kernel.nodes)


def kinds(workload: Workload) -> Counter[str]:
    return Counter(kernel.kind for kernel in fuse(workload))


def unequal(networks: Iterable[tuple[str, Workload]], precision: str, folder: Path) -> Unequal:
    """The networks whose kernels are not those of ONNX Runtime: how many nodes of each kind it runs more."""
    found: Unequal = []
    for name, workload in networks:
        there, ours = runs(written(workload, precision), folder), nodes(workload.with_precision(precision))
        if there != ours:
            found.append((name, {kind: there[kind] - ours[kind] for kind in there | ours if there[kind] != ours[kind]}))
    return found


def pruned(space: str, seed: int) -> Workload:
    """A random network of a space with each group of channels cut, to multiples of 1, 1, 2 or 4."""
    arch = sample(space, seed=seed)
    groups, draw, multiple = prunable_groups(arch), random.Random(seed), (1, 1, 2, 4)[seed % 4]
    kept = {}
    for group in groups.prunable():
        count = max(1, round(groups.width[group] * draw.uniform(0.4, 1) / multiple)) * multiple
        kept[group] = torch.arange(min(count, groups.width[group]))
    return pruned_arch(arch, groups, kept).workload()


@pytest.mark.slow
@pytest.mark.parametrize("precision", quick(PRECISIONS, {"int8"}))
def test_every_preset_has_the_kernels_of_onnx_runtime(precision: str, tmp_path: Path) -> None:
    networks = ((name, preset(name, input_shape=SMALL).workload()) for name in list_presets())
    assert unequal(networks, precision, tmp_path) == []


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("space", quick(list_spaces(), QUICK_SPACES))
def test_networks_of_every_space_have_the_kernels_of_onnx_runtime(space: str, precision: str, tmp_path: Path) -> None:
    networks = ((f"{space} {seed}", sample(space, seed=seed).workload()) for seed in range(25))
    assert unequal(networks, precision, tmp_path) == []


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("space", quick(list_spaces(), QUICK_SPACES))
def test_pruned_networks_of_odd_widths_have_the_kernels_of_onnx_runtime(
    space: str, precision: str, tmp_path: Path
) -> None:
    networks = [(f"{space} {seed}", pruned(space, seed)) for seed in range(25)]
    assert any(shape[1] % 2 for _, workload in networks for shape in workload.shapes.values())
    assert unequal(networks, precision, tmp_path) == []


@pytest.mark.parametrize(
    ("precision", "count", "most"), [("fp32", 12, 0), slow(("fp32", 61, 0)), slow(("int8", 61, 6))]
)
def test_random_networks_have_the_kernels_of_onnx_runtime(
    precision: str, count: int, most: int, tmp_path: Path
) -> None:
    """In int8 some differ: ONNX Runtime drops a ReLU of what a ReLU made."""
    seeds = [seed for seed in range(count) if precision == "fp32" or not is_attention(seed)]
    networks = ((f"micro {seed}", micro_network(seed)) for seed in seeds)
    found = unequal(networks, precision, tmp_path)
    assert len(found) <= most, found


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", quick(list_presets(), QUICK_PRESETS))
def test_arch_module_and_file_have_the_same_kernels(name: str, precision: str) -> None:
    arch = preset(name, input_shape=SMALL)
    stated = arch.workload().with_precision(precision)
    traced = trace(build_model(arch), SMALL).with_precision(precision)
    for other in (traced, read_onnx(written(arch.workload(), precision))):
        assert (kinds(other), nodes(other)) == (kinds(stated), nodes(stated))


@pytest.mark.parametrize("name", quick(OF_TIMM, QUICK_PRESETS))
def test_what_torch_exports_of_a_model_of_timm_has_the_kernels_of_the_preset(name: str) -> None:
    stated = preset(name, input_shape=SMALL).workload()
    exported = read_onnx(export(timm_module(name, SMALL), SMALL))
    for precision in PRECISIONS:
        one, other = stated.with_precision(precision), exported.with_precision(precision)
        assert (kinds(other), nodes(other)) == (kinds(one), nodes(one))


@pytest.mark.parametrize("runtime", ["ort", "c99"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_operation_is_in_one_kernel_and_none_is_lost(precision: str, runtime: str) -> None:
    for network in (*(sample(space, seed=0).workload() for space in list_spaces()), *map(micro_network, range(30))):
        workload = network.with_precision(precision)
        kernels = fuse(workload, runtime)
        fused = sorted(op.name for kernel in kernels for op in kernel.ops)
        assert fused == sorted(op.name for op in workload.ops if op.kind not in VIEWS)
        assert sum(kernel.macs for kernel in kernels) == workload.macs


@pytest.mark.parametrize("precision", PRECISIONS)
def test_kernels_read_only_what_is_there(precision: str) -> None:
    for network in (*(preset(name).workload() for name in list_presets()), *map(micro_network, range(30))):
        workload = network.with_precision(precision)
        views = {op.name: op.inputs[0] for op in workload.ops if op.kind in VIEWS}
        made = {workload.input}
        for kernel in fuse(workload):
            assert {views.get(name, name) for name in kernel.inputs} <= made | set(views), kernel
            made.add(kernel.output)


def test_plain_c_takes_up_activations_and_nothing_else() -> None:
    b = WorkloadBuilder("input", (1, 3, 8, 8))
    x = b.activation("act", b.conv("stem", "input", 8, kernel_size=3), "hard_swish")
    y = b.conv("project", x, 8, kernel_size=1)
    b.activation("last", b.binary("add", "add", x, y), "relu")
    kernels = fuse(b.build(), "c99")
    assert [[op.name for op in kernel.ops] for kernel in kernels] == [["stem", "act"], ["project"], ["add", "last"]]
    assert kernels[2].inputs == ("act", "project")


def test_runtimes_are_named() -> None:
    with pytest.raises(ValueError, match="runtime must be one of ort, c99, tflite, ncnn, torch, got 'onnx'"):
        fuse(preset("resnet8").workload(), "onnx")
