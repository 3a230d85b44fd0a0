"""Int8 in PyTorch beside the exported file in ONNX Runtime and beside the numpy reference of the C99 program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compress import Artifact, Preprocessing
from compress.c99.network_reader import read_network
from compress.c99.numpy_reference import quantize_images, run_layers
from compress.networks.onnx_export import folded_weights, onnx_bytes
from compress.quantization.int8.activation_stats import histograms
from compress.quantization.int8.learned_integers import LearnedIntegers
from compress.quantization.int8.ptq import activation_scales
from compress.quantization.simulator.integer_ops import Grid, added, quantized, rounded
from compress.quantization.simulator.simulator import Simulated, run_step, simulated, steps
from hw_profiles.network.quantization import Quantization, fixed_quantization, quantized_tensors, with_in_float
from hw_profiles.network.workload import WEIGHTED, Op, Workload, WorkloadBuilder
from hw_profiles.onnx_io.session import open_session
from hw_profiles.onnx_io.writer import random_weights, write_onnx
from search_spaces import Arch, build_model, preset, sample
from tests.compress.c99.files import onnx_layers
from tests.contracts import with_random_statistics

ARCHS = [
    preset("resnet8"),
    preset("mobilenetv2_050", input_shape=(3, 32, 32), num_classes=10),
    preset("mobilenetv3_small_050", input_shape=(3, 32, 32), num_classes=10),
    *(sample(space, seed=seed) for space in ("mobilenet", "efficientnet", "tiny") for seed in (2, 7)),
]


def images_for(arch: Arch, count: int = 24) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((count, *arch.input_shape)).astype(np.float32)


def quantized_artifact(arch: Arch, *, signed: bool = False) -> Artifact:
    """Random weights, batch normalization that does something, and scales from images."""
    names = tuple(map(str, range(arch.num_classes)))
    c, h, w = arch.input_shape
    record = Preprocessing(channels=c, sizes=((h, w),), mean=(0.5,) * c, std=(0.25,) * c, class_names=names)
    model = with_random_statistics(build_model(arch))
    workload = arch.workload()
    file = write_onnx(workload, folded_weights(model, workload))
    seen = histograms(file, quantized_tensors(workload), images_for(arch))
    scales = activation_scales(workload, seen, "minmax", signed=signed)
    artifact = Artifact(source=arch, weights={}, preprocessing=record).with_model(model)
    return replace(artifact, quantization=Quantization(activations=scales, signed=signed))


def run_file(file: bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = open_session(file).run(None, {"input": x})[0]
    return logits


def run_simulated(module: torch.nn.Module, x: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = module(torch.from_numpy(x)).numpy()
    return found


@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.id)
def test_the_simulation_gives_the_files_logits(arch: Arch) -> None:
    artifact, x = quantized_artifact(arch), images_for(arch)
    expected, got = run_file(onnx_bytes(artifact), x), run_simulated(simulated(artifact), x)
    assert np.ptp(expected, axis=0).max() > 0
    assert np.mean(got == expected) > 0.99


def test_signed_activations_are_simulated() -> None:
    artifact, x = quantized_artifact(ARCHS[1], signed=True), images_for(ARCHS[1])
    expected, got = run_file(onnx_bytes(artifact), x), run_simulated(simulated(artifact), x)
    # On x86 the runtime computes some convolutions of signed integers in float.
    assert np.abs(got - expected).max() < 0.1 * np.ptp(expected)
    assert np.mean(got == expected) > 0.9


def test_operations_in_float_and_scales_of_whole_weights_are_simulated() -> None:
    artifact, x = quantized_artifact(ARCHS[1]), images_for(ARCHS[1])
    assert artifact.quantization is not None
    whole = {"classifier.weight": np.float32(0.01)}
    in_float = frozenset({"stem", "stages.2.1.depthwise", "stages.3.0.project"})
    mixed = replace(artifact, quantization=replace(artifact.quantization, weights=whole, in_float=in_float))
    expected, got = run_file(onnx_bytes(mixed), x), run_simulated(simulated(mixed), x)
    # Sums in float are added in another order, so that a number near the middle of two integers may go either way.
    assert np.abs(got - expected).max() < 0.1 * np.ptp(expected)
    assert np.mean(got == expected) > 0.5
    assert np.mean(run_simulated(simulated(artifact), x) == expected) < 0.5


# Between operations in integers, at either end, and whole parts of the network, gates and shortcuts among them.
FLOAT_PARTS = {
    "ends": (ARCHS[2], lambda name: name in ("stem", "classifier")),
    "middle": (ARCHS[2], lambda name: name.startswith(("stages.1", "stages.2"))),
    "shortcuts": (ARCHS[0], lambda name: name.startswith("stages.1") or name == "classifier"),
    "all": (ARCHS[2], lambda name: True),
}


def mixed_artifact(part: str) -> Artifact:
    arch, chosen = FLOAT_PARTS[part]
    artifact = quantized_artifact(arch)
    assert artifact.quantization is not None
    workload = artifact.arch.workload()
    names = [op.name for op in workload.ops if op.kind in WEIGHTED and chosen(op.name)]
    return replace(artifact, quantization=with_in_float(workload, artifact.quantization, names))


@pytest.mark.parametrize("part", FLOAT_PARTS)
def test_tensors_that_stay_float_are_simulated(part: str) -> None:
    artifact, x = mixed_artifact(part), images_for(FLOAT_PARTS[part][0])
    assert artifact.quantization is not None
    assert set(quantized_tensors(artifact.arch.workload())) - set(artifact.quantization.activations)
    expected, got = run_file(onnx_bytes(artifact), x), run_simulated(simulated(artifact), x)
    whole = run_simulated(simulated(quantized_artifact(FLOAT_PARTS[part][0])), x)
    # Sums in float are added in another order, so that a number near the middle of two integers may go either way.
    assert np.abs(got - expected).max() < 0.05 * np.ptp(expected)
    assert np.abs(got - expected).mean() < 0.2 * np.abs(whole - expected).mean()


def test_tensors_that_stay_float_are_learnt_in() -> None:
    artifact, x = mixed_artifact("middle"), torch.from_numpy(images_for(ARCHS[2], 4))
    assert artifact.quantization is not None
    workload = artifact.arch.workload()
    weights = folded_weights(artifact.model(), workload)
    model = LearnedIntegers(workload, weights, artifact.quantization)
    logits = model(x)
    np.testing.assert_allclose(logits.detach(), simulated(artifact)(x), atol=0.05 * float(np.ptp(logits.detach())))
    logits.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.weights)
    again = Simulated(workload, weights | model.weights_on_the_grid(), model.quantization())
    with torch.no_grad():
        assert torch.equal(again(x).argmax(1), model(x).argmax(1))


def pooled_workload() -> Workload:
    builder = WorkloadBuilder("input", (1, 8, 9, 9))
    x = builder.conv("a", "input", 8, kernel_size=3, padding=(1, 1, 1, 1))
    y = builder.pool("means", "avg_pool", x, kernel_size=3, stride=2, padding=(1, 0, 0, 1))
    z = builder.pool("largest", "max_pool", x, kernel_size=3, stride=2, padding=(1, 1, 0, 0))
    x = builder.append(Op("both", "concat", (y, z)), (1, 16, *builder.shapes[y][2:]))
    builder.linear("classifier", builder.flatten("flat", builder.global_avg_pool("mean", x)), 5)
    return builder.build()


def case(name: str) -> tuple[Workload, Mapping[str, NDArray[np.float32]], Quantization]:
    """A network with every operation that the simulation knows among the cases."""
    if name == "pools":
        workload = pooled_workload()
        return workload, random_weights(workload), fixed_quantization(workload)
    artifact = quantized_artifact({"resnet8": ARCHS[0], "mobilenetv3": ARCHS[2]}[name])
    assert artifact.quantization is not None
    workload = artifact.arch.workload()
    return workload, folded_weights(artifact.model(), workload), artifact.quantization


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv3", "pools"])
def test_every_node_is_that_of_the_numpy_reference_and_of_the_runtime(name: str, tmp_path: Path) -> None:
    """Each is given the reference's inputs. Sums of products are equal, other nodes differ by one step at most."""
    workload, weights, quantization = case(name)
    path = tmp_path / "model.onnx"
    path.write_bytes(write_onnx(workload, weights, quantization=quantization))
    network, numbers = read_network(path), Simulated(workload, weights, quantization).numbers
    zeros = {t.name: t.quantization.zero_point for layer in network.layers for t in (*layer.inputs, layer.output)}
    x = np.random.default_rng(3).standard_normal((1, *workload.shapes[workload.input][1:])).astype(np.float32)
    reference = run_layers(network, quantize_images(network, x)[0])
    runtime = onnx_layers(path, network, reference)
    given = {key: torch.from_numpy(less_zero(v, zeros[key])) for key, v in reference.items()}
    seen = set()
    for step in steps(workload):
        made = f"{step.output}.float" if step.output == workload.output else step.output
        inputs = [given[read] for read in step.op.inputs]
        with torch.no_grad():
            found = run_step(step, [each.clone() for each in inputs], numbers)
        if made in reference:
            seen.add(made)
            ours = found.numpy()
            shape = ours.shape
            others = [less_zero(v[made], zeros[made]).reshape(shape) for v in (reference, runtime)]
            assert all(np.abs(ours - other).max() <= 1 for other in others), made
            exact = step.op.kind in WEIGHTED
            assert np.mean(ours == others[0]) >= (1 if exact else 0.97), made
        given.setdefault(step.output, found)
        given[step.output] = given[step.output].reshape(found.shape)
    assert seen == {layer.output.name for layer in network.layers}


def less_zero(integers: NDArray[np.int8] | NDArray[np.int64], zero: int) -> NDArray[np.float32]:
    """An image (height, width, channels) as the simulation holds it: (1, channels, height, width), zero at zero."""
    return (integers.astype(np.float32) - zero).transpose(2, 0, 1)[None]


@pytest.mark.parametrize("kind", ["avg_pool", "max_pool", "concat", "relu6"])
def test_operations_beside_those_of_the_spaces_are_simulated(kind: str) -> None:
    builder = WorkloadBuilder("input", (1, 8, 9, 9))
    x = builder.conv("a", "input", 8, kernel_size=3, padding=(0, 2, 2, 0))
    if kind == "concat":
        x = builder.append(Op("made", "concat", (x, "input")), (1, 16, 9, 9))
    elif kind == "relu6":
        x = builder.activation("made", x, "relu6")
    else:
        x = builder.pool("made", kind, x, kernel_size=3, stride=2, padding=(1, 1, 1, 1))
    builder.linear("b", builder.flatten("flat", builder.global_avg_pool("mean", x)), 5)
    workload = builder.build()
    fixed = dict(fixed_quantization(workload).activations)
    if kind == "relu6":
        fixed["made"] = (8 / 255, 0)  # integers that stand for more than 6, which must not come out
    quantization = Quantization(activations=fixed)
    weights = random_weights(workload)
    images = np.random.default_rng(0).standard_normal((16, 8, 9, 9)).astype(np.float32) * 3
    expected = run_file(write_onnx(workload, weights, quantization=quantization), images)
    got = run_simulated(Simulated(workload, weights, quantization), images)
    step = np.float32(fixed["b"][0])
    assert np.abs(got - expected).max() <= 2.01 * step
    assert np.mean(got == expected) > 0.95


def test_sums_that_float32_does_not_hold_are_exact() -> None:
    builder = WorkloadBuilder("input", (1, 4096))
    builder.linear("b", "input", 3)
    workload = builder.build()
    generator = np.random.default_rng(0)
    integers = generator.integers(100, 128, (3, 4096))
    integers[:, 0] = 127
    scales = {"b.weight": np.ones(3, np.float32)}
    quantization = Quantization(activations={"input": (1.0, 0), "b": (2.0**20, 0)}, weights=scales)
    module = Simulated(
        workload, {"b.weight": integers.astype(np.float32), "b.bias": np.zeros(3, np.float32)}, quantization
    )
    x = generator.integers(200, 256, (50, 4096))
    (step,) = module.steps
    operands = module.numbers.operands(step)
    assert operands.weight.dtype == torch.float64
    assert (x @ integers.T).min() > 2**24
    expected = np.rint((x @ integers.T).astype(np.float32) * np.float32(2.0**-20)) * 2.0**20
    assert (run_simulated(module, x.astype(np.float32)) == expected).all()


def test_numbers_are_rounded_half_to_even_and_saturated() -> None:
    grid = Grid.of(torch.tensor(0.5), 10, signed=False)
    with torch.no_grad():
        made = quantized(torch.tensor([0.25, 0.75, -0.25, -99.0, 999.0]), grid)
    assert made.tolist() == [0, 2, 0, -10, 245]


def test_gradients_go_through_what_was_not_cut_off() -> None:
    x = torch.tensor([-3.0, -1.4, 0.5, 2.2, 9.0], requires_grad=True)
    rounded(x, -2, 2.5).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_a_sum_is_the_same_with_and_without_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-100, 100, (4, 8, 5, 5), generator=generator).float() for _ in range(2))
    grids = [Grid.of(torch.tensor(s), z, signed=False) for s, z in ((0.021, 117), (0.034, 101), (0.043, 121))]
    with_gradients = added(a, b, (grids[0], grids[1]), grids[2])
    with torch.no_grad():
        without = added(a, b, (grids[0], grids[1]), grids[2])
    assert torch.equal(with_gradients, without)


def test_what_cannot_be_simulated_is_refused() -> None:
    artifact = quantized_artifact(ARCHS[0])
    with pytest.raises(ValueError, match=r"simulated: the artifact must have scales, got one in float32"):
        simulated(replace(artifact, quantization=None))
    builder = WorkloadBuilder("input", (1, 4, 4))
    builder.append(Op("p", "pad", ("input",)), (1, 4, 6))
    with pytest.raises(ValueError, match=r"p: no integer arithmetic is known for pad \(valid: conv"):
        steps(builder.build())
    builder = WorkloadBuilder("input", (1, 4))
    builder.activation("s", "input", "softmax")
    with pytest.raises(ValueError, match="no int8 implementation of the function 'softmax'"):
        steps(builder.build())
