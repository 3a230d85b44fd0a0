"""What every part of a kind must keep, one suite per kind; a test gives each registered part as a parameter."""

from __future__ import annotations

import io
import tempfile
import warnings
from pathlib import Path

import onnxruntime
import torch
from torch import nn

from blocks.registry import build_block
from blocks.spec import BlockSpec
from hw_profiles.network.workload import Workload, WorkloadBuilder
from hw_profiles.onnx_io.reader import read_onnx
from search_spaces.arch import Arch
from search_spaces.lowering import lower_block
from search_spaces.model import build_model
from search_spaces.space import Space


def exported(model: nn.Module, shape: tuple[int, int, int]) -> bytes:
    """The file that torch's own exporter makes of a module, its constants computed and paddings joined by ONNX Runtime."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (torch.zeros(1, *shape),), buffer, dynamo=False, opset_version=20)
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = f"{folder}/basic.onnx"
        onnxruntime.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])
        return Path(f"{folder}/basic.onnx").read_bytes()


def assert_same_workload(one: Workload, other: Workload) -> None:
    """MACs, weights and tensors are equal."""
    assert one.macs == other.macs
    assert one.weight_count == other.weight_count
    assert sorted(one.shapes.values()) == sorted(other.shapes.values())


def with_random_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """Batch normalization that does something, so that folding it is seen."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
    return model.eval()


def check_block(spec: BlockSpec) -> None:
    """A block has the shape its spec says, survives JSON, trains, and does what its lowering says."""
    assert BlockSpec.from_dict(spec.to_dict()) == spec
    block = build_block(spec)
    x = torch.randn(2, spec.in_channels, 11, 9)
    y = block(x)
    sides = (1, 1) if spec.pools else (-(-11 // spec.stride), -(-9 // spec.stride))
    assert y.shape == (2, spec.out_channels, *sides)
    y.sum().backward()
    assert all(p.grad is not None for p in block.parameters())

    builder = WorkloadBuilder("input", (1, spec.in_channels, 11, 9))
    output = lower_block(builder, "block", "input", spec)
    workload = builder.build(output)
    assert workload.params == sum(p.numel() for p in block.parameters())
    assert_same_workload(workload, read_onnx(exported(block, (spec.in_channels, 11, 9))))
    names = {name for name, _ in block.named_modules()}
    for op in workload.ops:
        if op.kind in ("conv", "linear"):
            assert op.name.removeprefix("block").removeprefix(".") in names


def check_arch(arch: Arch) -> None:
    """An Arch survives JSON, and its operations are those of its module as torch exports it."""
    assert Arch.from_json(arch.to_json()) == arch
    assert Arch.from_json(arch.to_json()).id == arch.id
    model = build_model(arch)
    workload = arch.workload()
    assert workload.params == sum(p.numel() for p in model.parameters())
    assert_same_workload(workload, read_onnx(exported(model, arch.input_shape)))


def check_space(space: Space, num_classes: int) -> None:
    """Sampling repeats, differs by seed, and every sample can be built.

    It holds for a space of one combination too.
    """
    archs = [space.sample(seed) for seed in range(12)]
    assert archs == [space.sample(seed) for seed in range(12)]
    assert len({arch.id for arch in archs}) > min(8, space.size - 1)
    params = space.sample_params(0)
    assert space.build(params) == archs[0]
    for arch in {arch.id: arch for arch in archs}.values():
        assert arch.num_classes == num_classes
        assert build_model(arch).eval()(torch.zeros(1, *arch.input_shape)).shape == (1, num_classes)
