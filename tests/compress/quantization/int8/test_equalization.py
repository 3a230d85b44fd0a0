"""Equalization changes the ranges of channels, not the function."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from compress.quantization.int8.activation_stats import channel_extents
from compress.quantization.int8.equalization import equalized, links
from hw_profiles.network.quantization import quantized_tensors
from hw_profiles.network.workload import Workload, WorkloadBuilder
from hw_profiles.onnx_io.writer import random_weights, write_onnx
from search_spaces import Arch, preset, sample

ARCHS = [
    preset("resnet8", input_shape=(3, 32, 32)),
    preset("mobilenetv1_025", input_shape=(3, 32, 32), num_classes=7),
    preset("mobilenetv3_small_050", input_shape=(3, 64, 64), num_classes=7),
    preset("semnasnet_050", input_shape=(3, 32, 32), num_classes=7),
    *(sample("mobilenet", seed=seed) for seed in range(6)),
    *(sample(name, seed=0) for name in ("efficientnet", "fused", "tiny")),
]


def uneven_weights(workload: Workload, seed: int = 0) -> dict[str, np.ndarray]:
    """Channels of one layer differ by an order of magnitude either way, and biases are there."""
    generator = np.random.default_rng(seed)
    return {
        name: (value * np.exp(generator.standard_normal(value.shape[:1] + (1,) * (value.ndim - 1)))).astype(np.float32)
        for name, value in random_weights(workload, seed).items()
    }


def images_for(workload: Workload) -> np.ndarray:
    shape = (4, *workload.shapes[workload.input][1:])
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def output(workload: Workload, weights: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(write_onnx(workload, weights), providers=["CPUExecutionProvider"])
    return session.run(None, {workload.input: images})[0]


@pytest.mark.parametrize("by_activations", [False, True])
@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.id)
def test_the_float_network_is_the_same_function(arch: Arch, by_activations: bool) -> None:
    workload = arch.workload()
    weights, images = uneven_weights(workload), images_for(workload)
    seen = (
        channel_extents(write_onnx(workload, weights), quantized_tensors(workload), images) if by_activations else None
    )
    changed = equalized(workload, weights, seen)
    before, after = output(workload, weights, images), output(workload, changed, images)
    # Random nets amplify: what float32 itself leaves open is found by weights that differ in the last bit.
    generator = np.random.default_rng(2)
    nearly = {
        name: (value * (1 + 6e-8 * generator.choice([-1, 1], value.shape))).astype(np.float32)
        for name, value in weights.items()
    }
    own = np.abs(output(workload, nearly, images) - before).max()
    assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max() + 10 * own
    if links(workload):
        assert any(not np.allclose(changed[name], weights[name], rtol=0.1) for name in weights)


def test_layers_that_alone_write_and_read_get_equal_ranges() -> None:
    """Equation 11 of 1906.04721: the ranges of both layers are equal in every channel."""
    builder = WorkloadBuilder("input", (1, 3, 8, 8))
    x = builder.activation("act", builder.conv("first", "input", 16, kernel_size=3), "relu")
    x = builder.conv("deep", x, 16, kernel_size=3, groups=16)
    builder.conv("last", builder.activation("act2", x, "relu"), 8, kernel_size=1)
    workload = builder.build()
    changed = equalized(workload, uneven_weights(workload))
    first, deep, last = (np.abs(changed[f"{name}.weight"]) for name in ("first", "deep", "last"))
    written, read = first.max(axis=(1, 2, 3)), deep.max(axis=(1, 2, 3))
    ratio = written / read
    np.testing.assert_allclose(ratio, np.full(16, ratio[0]), rtol=0.01)
    ratio = deep.max(axis=(1, 2, 3)) / last.max(axis=(0, 2, 3))
    np.testing.assert_allclose(ratio, np.full(16, ratio[0]), rtol=0.01)


def test_what_only_depthwise_layers_read_gets_channels_that_are_alike() -> None:
    builder = WorkloadBuilder("input", (1, 3, 16, 16))
    x = builder.activation("act", builder.conv("expand", "input", 32, kernel_size=1), "relu")
    x = builder.activation("act2", builder.conv("deep", x, 32, kernel_size=3, groups=32), "relu")
    builder.conv("project", x, 8, kernel_size=1)
    workload = builder.build()
    weights, images = uneven_weights(workload), images_for(workload)

    def extents(weights: dict[str, np.ndarray]) -> np.ndarray:
        out = torch.nn.functional.conv2d(
            torch.from_numpy(images),
            torch.from_numpy(weights["expand.weight"]),
            torch.from_numpy(weights["expand.bias"]),
        )
        return out.relu().amax((0, 2, 3)).numpy()

    seen = channel_extents(write_onnx(workload, weights), quantized_tensors(workload), images)
    np.testing.assert_allclose(seen["act"], extents(weights), rtol=1e-4)
    before, after = extents(weights), extents(equalized(workload, weights, seen))
    assert before.max() / np.median(before) > 3
    assert after.max() / after[after > 0].min() < 1.01


def test_dead_channels_are_left_alone() -> None:
    builder = WorkloadBuilder("input", (1, 3, 8, 8))
    x = builder.activation("act", builder.conv("first", "input", 8, kernel_size=1), "relu")
    builder.conv("last", x, 4, kernel_size=1)
    workload = builder.build()
    weights = uneven_weights(workload)
    weights["first.weight"][2] = 0
    weights["last.weight"][:, 5] = 0
    changed = equalized(workload, weights)
    assert all(np.isfinite(value).all() for value in changed.values())
    np.testing.assert_allclose(changed["last.weight"][:, 2], weights["last.weight"][:, 2], rtol=1e-6)
    np.testing.assert_allclose(changed["first.weight"][5], weights["first.weight"][5], rtol=1e-6)


@pytest.mark.parametrize("function", ["relu6", "hard_swish", "silu", "sigmoid"])
def test_no_factor_goes_through_a_function_that_it_would_change(function: str) -> None:
    builder = WorkloadBuilder("input", (1, 3, 8, 8))
    x = builder.activation("act", builder.conv("first", "input", 8, kernel_size=1), function)
    builder.conv("last", x, 4, kernel_size=1)
    assert links(builder.build()) == []


def test_what_lies_beside_a_weight_of_several_operations_stays() -> None:
    def chain(shared: str) -> Workload:
        builder = WorkloadBuilder("input", (1, 3, 8, 8))
        names = ["stem", "a", "b", "c", "end", "head"]
        for name, source in zip(names, ["input", *names], strict=False):
            builder.conv(name, source, 3, kernel_size=3)
        built = builder.build()
        return replace(
            built, ops=tuple(replace(op, shared_weight=shared) if op.name == "b" else op for op in built.ops)
        )

    assert [link.tensors for link in links(chain(""))] == [("stem",), ("a",), ("b",), ("c",), ("end",)]
    assert [link.tensors for link in links(chain("a.weight"))] == [("c",), ("end",)]


def test_what_the_caller_reads_is_not_scaled() -> None:
    """Features beside the classes that are worked out of them."""
    workload = preset("resnet8").workload()
    features = next(link for link in links(workload) if link.consumers[-1].name == "classifier")
    both = replace(workload, further_outputs=(features.tensors[-1],))
    assert [link.tensors for link in links(both)] == [
        link.tensors for link in links(workload) if link.tensors != features.tensors
    ]
