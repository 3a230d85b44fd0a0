"""Networks that learn in integers, beside torch's learnable fake quantization and ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from compress import Artifact, Context, Quantize, Recipe, Sparsify
from compress.networks.as_artifact import as_artifact
from compress.networks.onnx_export import folded_weights, onnx_bytes, onnx_logits
from compress.quantization.int8.learned_integers import LearnedIntegers
from compress.quantization.int8.qat import QuantizeAware
from compress.quantization.simulator.simulator import simulated
from compress.training.evaluation import accuracy, evaluate, predict
from compress.training.loop import Training, train
from hw_profiles.network.quantization import Quantization, with_in_float
from hw_profiles.network.workload import WorkloadBuilder
from search_spaces import Arch, build_model, load_space

MINMAX = Quantize(calibration="minmax", equalize="none", bias_correction=False, adaround=False, activations="unsigned")


@pytest.fixture(
    scope="module",
    params=[("tiny", "relu6"), pytest.param(("mobilenet", "hard_swish"), marks=pytest.mark.slow)],
    ids=lambda p: p[0],
)
def learnt(request: pytest.FixtureRequest, context: Context) -> Artifact:
    """A small trained network of a space with a given activation, and shortcuts."""
    space = load_space(request.param[0], input_shape=(1, 16, 16), num_classes=10)
    arch = next(
        arch
        for arch in map(space.sample, range(10_000))
        if arch.input_shape == (1, 16, 16)
        and {"add"} <= {op.kind for op in arch.workload().ops}
        and request.param[1] in {op.function for op in arch.workload().ops}
        and arch.workload().macs < 1.4e6
    )
    model = build_model(arch)
    train(model, context.data, Recipe(epochs=5, learning_rate=0.3))
    return Artifact(source=arch, weights={}, preprocessing=context.data.preprocessing).with_model(model)


def coarse(artifact: Artifact, context: Context, times: float) -> Artifact:
    """The artifact in integers whose steps are so many times as large as they should be."""
    found = MINMAX(artifact, context)
    assert found.quantization is not None
    scales = found.quantization.activations
    limited = {name: (s * times, z) for name, (s, z) in scales.items() if name != "input"}
    return replace(found, quantization=replace(found.quantization, activations={**scales, **limited}))


def test_the_file_is_what_was_trained(learnt: Artifact, context: Context) -> None:
    after = QuantizeAware(recipe=Recipe(epochs=1, learning_rate=0.01))(learnt, context)
    assert after.quantization is not None
    assert any((after.weights[name] != value).any() for name, value in learnt.weights.items())
    workload = after.arch.workload()
    model = LearnedIntegers(workload, folded_weights(after.model(), workload), after.quantization)
    images = context.data.test.images
    with torch.no_grad():
        trained = model(torch.from_numpy(after.preprocessing.tensor(images))).numpy()
    filed = onnx_logits(onnx_bytes(after), images, after.preprocessing)
    assert np.mean(trained.argmax(1) == filed.argmax(1)) >= 0.999
    assert np.mean(trained == filed) > 0.99
    simulation = predict(simulated(after), context.data.test, after.preprocessing)
    assert (simulation == filed.argmax(1)).all()


class Watched(QuantizeAware):
    """Keeps what was trained."""

    trained: ClassVar[list[LearnedIntegers]] = []

    def train(self, model: LearnedIntegers, *others: Any) -> Training:
        self.trained.append(model)
        return super().train(model, *others)


def test_any_module_is_trained_in_integers_as_an_arch_is(learnt: Artifact, context: Context) -> None:
    recipe = Recipe(epochs=1, learning_rate=0.01)
    after = Watched(recipe=recipe)(as_artifact(learnt.model(), context.data), context)
    assert (after.precision, after.arch if isinstance(after.source, Arch) else None) == ("int8", None)
    images = context.data.test.images
    with torch.no_grad():
        trained = Watched.trained[-1](torch.from_numpy(after.preprocessing.tensor(images))).numpy()
    filed = onnx_logits(onnx_bytes(after), images, after.preprocessing)
    assert np.mean(trained == filed) > 0.99
    assert np.mean(trained.argmax(1) == filed.argmax(1)) >= 0.999
    same = onnx_logits(onnx_bytes(QuantizeAware(recipe=recipe)(learnt, context)), images, after.preprocessing)
    assert np.mean(same.argmax(1) == filed.argmax(1)) > 0.95


class Attention(nn.Module):
    """Patches, layer normalization, two heads of attention with a bias for each pair, and a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm, self.qkv, self.last = (
            nn.Conv2d(1, 8, 4, 4),
            nn.LayerNorm(8),
            nn.Linear(8, 24),
            nn.Linear(8, 10),
        )
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(2, 17, 17))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        count, rows, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(count, rows, 3, 2, 4).permute(2, 0, 3, 1, 4)
        x = x + ((q @ k.transpose(-2, -1) / 2 + self.places).softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        logits: Tensor = self.last(nn.functional.gelu(x[:, 0]))
        return logits


class Kinds(nn.Module):
    """What no integer arithmetic is known for, between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.next, self.last = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 10)
        self.prelu, self.norm, self.mean = nn.PReLU(8), nn.BatchNorm2d(8), nn.Parameter(torch.full((1, 8, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.relu(self.prelu(self.conv(x)) - self.mean))
        x = nn.functional.max_pool2d(x, 3, 2, ceil_mode=True)
        x = nn.functional.leaky_relu(self.next(x)) + torch.tanh(x)
        x = nn.functional.avg_pool2d(nn.functional.max_pool2d(x, 2, 1, dilation=2), 2, 2, ceil_mode=True)
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
        logits: Tensor = self.last((x + 0.5).mean((2, 3)))
        return logits


class OneImage(nn.Module):
    """Adds the mean over all images, which of one image is the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 8, 3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        logits: Tensor = self.last(x + x.mean(0, keepdim=True))
        return logits


@pytest.mark.parametrize("module", [Attention, Kinds, OneImage])
def test_what_has_no_integer_arithmetic_is_trained_around(module: type[nn.Module], context: Context) -> None:
    torch.manual_seed(0)
    after = Watched(recipe=Recipe(epochs=0.2))(as_artifact(module(), context.data), context)
    images = context.data.test.images[:40]
    with torch.no_grad():
        trained = Watched.trained[-1](torch.from_numpy(after.preprocessing.tensor(images))).numpy()
    filed = onnx_logits(onnx_bytes(after), images, after.preprocessing)
    assert np.abs(trained - filed).mean() < 0.02 * np.abs(filed).max()
    assert np.mean(trained.argmax(1) == filed.argmax(1)) > 0.9


def test_zeros_of_a_module_stay_zeros_in_training(learnt: Artifact, context: Context) -> None:
    given = as_artifact(learnt.model(), context.data)
    sparse = Sparsify(amount=0.6, schedule="iterative", recipe=None)(given, context)
    after = QuantizeAware(recipe=Recipe(epochs=0.3, learning_rate=0.01))(sparse, context)
    names = set(after.weight_formats)
    zeros = {op.weight: after.weight_formats[op.weight].density for op in after.workload().ops if op.weight in names}
    assert len(zeros) == len(names) > 3
    stored = [numpy_helper.to_array(t) for t in onnx.load_model_from_string(onnx_bytes(after)).graph.initializer]
    kept = sum(int(np.count_nonzero(w)) for w in stored if w.dtype == np.int8 and w.ndim > 1)
    size = sum(w.size for w in stored if w.dtype == np.int8 and w.ndim > 1)
    assert kept <= 0.42 * size


def test_weights_lie_on_the_grid_of_their_scales(learnt: Artifact, context: Context) -> None:
    after = QuantizeAware(recipe=Recipe(epochs=0.3))(learnt, context)
    assert after.quantization is not None
    workload = after.arch.workload()
    weights = folded_weights(after.model(), workload)
    for op in workload.ops:
        if op.stores_weights:
            scales = after.quantization.weights[op.weight]
            steps = weights[op.weight].reshape(op.out_channels, -1) / scales[:, None]
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
            assert np.abs(steps).max() < 127.5


@pytest.mark.parametrize("learnt", [("tiny", "relu6")], indirect=True)
def test_training_mends_what_coarse_steps_broke(learnt: Artifact, context: Context) -> None:
    def right(recipe: Recipe) -> float:
        after = QuantizeAware(recipe=recipe)(coarse(learnt, context, 100), context)
        return evaluate(simulated(after), context.data.test, after.preprocessing)

    broken = right(Recipe(epochs=0.03, learning_rate=1e-9, weight_decay=0.0))
    repaired = right(Recipe(epochs=3, learning_rate=0.02))
    sound = evaluate(learnt.model(), context.data.test, learnt.preprocessing)
    assert broken < sound - 0.2
    assert repaired > broken + 0.2 * (sound - broken)


@pytest.mark.parametrize("learnt", [("tiny", "relu6")], indirect=True)
def test_a_relu6_lets_no_more_than_6_through(learnt: Artifact, context: Context) -> None:
    """With larger steps the runtime would cut off at 6 in float, outside its integer convolution."""
    after = QuantizeAware(recipe=Recipe(epochs=0.1))(coarse(learnt, context, 24), context)
    assert after.quantization is not None
    limited = [op.name for op in after.arch.workload().ops if op.function == "relu6"]
    assert limited
    for name in limited:
        scale, zero = after.quantization.activations[name]
        assert zero == 0
        assert scale <= np.float32(6 / 255)


def test_an_int8_artifact_is_trained_on_and_not_calibrated_again(learnt: Artifact, context: Context) -> None:
    before = MINMAX(learnt, context)
    assert before.quantization is not None
    frozen = QuantizeAware(recipe=Recipe(epochs=0.05, learning_rate=1e-9, weight_decay=0.0))(before, context)
    assert frozen.quantization is not None
    for name, (scale, zero) in before.quantization.activations.items():
        assert frozen.quantization.activations[name] == (pytest.approx(scale, rel=1e-4), zero)
    one, other = (predict(simulated(a), context.data.test, a.preprocessing) for a in (before, frozen))
    assert accuracy(one, replace(context.data.test, labels=other)) > 0.99


def off_the_edge(values: np.ndarray, scale: np.ndarray, low: float, high: float) -> np.ndarray:
    """Without numbers that are cut off but would be rounded to the edge, of which the paper and torch judge differently."""
    steps = values / scale
    edge = ((steps > high) & (steps < high + 0.6)) | ((steps < low) & (steps > low - 0.6))
    return np.where(edge, 0.4 * values, values).astype(np.float32)


def test_gradients_are_those_of_learned_step_sizes() -> None:
    """Beside torch's own learnable fake quantization, given the published factors 1 / sqrt(numbers x largest)."""
    generator = np.random.default_rng(0)
    builder = WorkloadBuilder("input", (1, 12))
    builder.linear("b", "input", 6)
    weight = generator.standard_normal((6, 12)).astype(np.float32)
    input_scale, output_scale = np.float32(0.013), np.float32(0.021)
    weight_scale = (np.abs(weight).max(1) / 150).astype(np.float32)  # so that some are cut off
    weight = off_the_edge(weight, weight_scale[:, None], -127, 127)
    bias = (generator.integers(-900, 900, 6) * weight_scale * input_scale).astype(np.float32)
    zeros = {"input": 120, "b": 131}
    quantization = Quantization(
        activations={"input": (float(input_scale), zeros["input"]), "b": (float(output_scale), zeros["b"])},
        weights={"b.weight": weight_scale},
    )
    model = LearnedIntegers(builder.build(), {"b.weight": weight, "b.bias": bias}, quantization)
    x = torch.from_numpy(
        off_the_edge(generator.standard_normal((40, 12)).astype(np.float32), input_scale, -zeros["input"], 135)
    )
    toward = torch.from_numpy(generator.standard_normal((40, 6)).astype(np.float32))
    logits = model(x)
    (logits * toward).sum().backward()

    def parameter(value: object) -> torch.Tensor:
        return torch.tensor(value, dtype=torch.float32).requires_grad_()

    w, b, s_w = parameter(weight), parameter(bias), parameter(weight_scale)
    s_x, s_y = parameter([float(input_scale)]), parameter([float(output_scale)])
    x_q = torch._fake_quantize_learnable_per_tensor_affine(x, s_x, torch.tensor([120.0]), 0, 255, 1 / (12 * 255) ** 0.5)
    w_q = torch._fake_quantize_learnable_per_channel_affine(w, s_w, torch.zeros(6), 0, -127, 127, 1 / (12 * 127) ** 0.5)
    y = torch.nn.functional.linear(x_q, w_q, b)
    y_q = torch._fake_quantize_learnable_per_tensor_affine(y, s_y, torch.tensor([131.0]), 0, 255, 1 / (6 * 255) ** 0.5)
    (y_q * toward).sum().backward()
    torch.testing.assert_close(logits, y_q, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.weights[0].grad, w.grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.biases[0].grad, b.grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.weight_scales[0].grad, s_w.grad, rtol=1e-3, atol=1e-2)
    assert s_x.grad is not None
    assert s_y.grad is not None
    torch.testing.assert_close(model.scales.grad, torch.cat([s_x.grad, s_y.grad]), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("learnt", [("tiny", "relu6")], indirect=True)
def test_a_network_in_float_in_part_is_trained_and_stays_so(learnt: Artifact, context: Context) -> None:
    before, workload = MINMAX(learnt, context), learnt.arch.workload()
    assert before.quantization is not None
    names = [op.name for op in workload.ops if op.stores_weights][:3]
    mixed = replace(before, quantization=with_in_float(workload, before.quantization, names))
    after = QuantizeAware(recipe=Recipe(epochs=0.2))(mixed, context)
    assert after.quantization is not None
    assert mixed.quantization is not None
    assert after.quantization.in_float == mixed.quantization.in_float >= set(names)
    assert after.quantization.activations.keys() == mixed.quantization.activations.keys() < workload.shapes.keys()
    filed = onnx_logits(onnx_bytes(after), context.data.test.images, after.preprocessing)
    simulation = predict(simulated(after), context.data.test, after.preprocessing)
    assert np.mean(simulation == filed.argmax(1)) >= 0.98  # sums in float are added in another order


def test_impossible_trainings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"recipe\.bfloat16 must be False"):
        QuantizeAware(recipe=Recipe(bfloat16=None))
    with pytest.raises(ValueError, match="temperature must be above 0"):
        QuantizeAware(temperature=0)
