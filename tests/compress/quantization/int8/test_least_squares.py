"""Weights that are fitted layer by layer, on networks run part by part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper, numpy_helper

from compress.quantization.int8.activation_stats import histograms, logits, run
from compress.quantization.int8.least_squares import fitted_weights, rounded_in_turn
from compress.quantization.int8.ptq import activation_scales
from compress.quantization.int8.stepwise_run import Lockstep, StepwiseRun
from compress.quantization.int8.weight_scales import WeightGrid
from compress.training.evaluation import signal_to_noise_db
from hw_profiles.network.graph import Graph
from hw_profiles.network.quantization import Quantization, quantized_tensors, quantized_weight, weight_scales
from hw_profiles.network.workload import Workload, WorkloadBuilder
from hw_profiles.onnx_io.writer import random_weights, write_graph
from search_spaces import preset


def branching() -> Workload:
    """A sum, a grouped and a depthwise convolution, rows and columns that differ, a linear layer."""
    builder = WorkloadBuilder("input", (1, 3, 12, 10))
    x = builder.activation("act", builder.conv("stem", "input", 8, kernel_size=3), "relu6")
    y = builder.activation("act2", builder.conv("deep", x, 8, kernel_size=3, groups=8), "relu")
    y = builder.conv("grouped", y, 8, kernel_size=(3, 1), padding=(1, 0, 1, 0), groups=2, bias=False)
    x = builder.binary("sum", "add", x, y)
    x = builder.conv("down", x, 12, kernel_size=3, stride=2, padding=(0, 0, 1, 1))
    builder.linear("classifier", builder.flatten("flat", builder.global_avg_pool("pool", x)), 5)
    return builder.build()


def network(workload: Workload) -> Graph:
    return Graph(workload=workload, weights=random_weights(workload))


def images_for(workload: Workload, count: int, seed: int = 0) -> np.ndarray:
    """Smooth, so that what a kernel covers is alike."""
    channels, height, width = workload.shapes[workload.input][1:]
    coarse = np.random.default_rng(seed).standard_normal((count, channels, height // 2, width // 2))
    return coarse.repeat(2, 2).repeat(2, 3).astype(np.float32)


def plain_scales(graph: Graph, images: np.ndarray) -> Quantization:
    workload = graph.workload
    seen = histograms(write_graph(graph), quantized_tensors(workload), images)
    weights = {op.weight: weight_scales(graph.weights[op.weight]) for op in workload.ops if op.stores_weights}
    return Quantization(activations=activation_scales(workload, seen, "minmax"), weights=weights)


def test_a_network_that_runs_part_by_part_computes_what_it_computes_at_once() -> None:
    workload = branching()
    graph = network(workload)
    images = images_for(workload, 40)
    file = write_graph(graph, plain_scales(graph, images))
    names = [f"{name}.quantized" for name in ("input", "act", "act2", "sum", "flat")]
    expected = {name: np.concatenate([batch[name] for batch in run(file, [name], images)]) for name in names}
    steps = StepwiseRun(file, images[:7])
    for i, name in enumerate(names):
        if i == 2:
            steps.extend(images[7:])
        np.testing.assert_array_equal(steps.advance(name), expected[name][: steps.count])
    assert steps.count == 40
    assert set(steps.held) == {"flat.quantized"}  # nothing else is needed any more


@pytest.mark.parametrize("sides", [(4, 2), (2, 1, 4)])
def test_a_first_side_that_is_no_number_of_images_is_kept_apart(sides: tuple[int, ...]) -> None:
    """As windows and heads of attention are, in files for one image."""
    nodes = [helper.make_node("Reshape", ["x", "sides"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["b"])]
    nodes += [helper.make_node("Relu", ["b"], ["c"]), helper.make_node("Reshape", ["c", "flat"], ["y"])]
    weight = np.random.default_rng(0).standard_normal((sides[-1], sides[-1])).astype(np.float32)
    held = {"sides": np.int64(sides), "flat": np.int64([1, 8]), "w": weight}
    ends = [helper.make_tensor_value_info(name, 1, (1, 8)) for name in "xy"]
    constants = [numpy_helper.from_array(value, name) for name, value in held.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], constants), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    images = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    steps = StepwiseRun(model.SerializeToString(), images)
    assert steps.advance("b").shape == (3 * sides[0], *sides[1:])
    wanted = np.maximum(images.reshape(3, *sides) @ weight, 0).reshape(3, 8)
    np.testing.assert_allclose(steps.advance("y"), wanted, rtol=1e-5)


def test_more_images_are_taken_where_tensors_are_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = branching()
    graph = network(workload)
    images = images_for(workload, 40)
    monkeypatch.setattr("compress.quantization.int8.stepwise_run._HELD_BYTES", 4 * 2 * 960 * 8)
    steps = Lockstep(workload, write_graph(graph), write_graph(graph, plain_scales(graph, images)), images)
    ops = {op.name: op for op in workload.ops}
    steps.reach(ops["stem"])
    before = steps.exact.count
    steps.exact.advance("sum")
    steps.rounded.advance("sum.quantized")
    steps.reach(ops["classifier"])
    assert (before, steps.exact.count, steps.rounded.count) == (5, 40, 40)


@pytest.mark.parametrize("per_channel", [True, False])
def test_fitted_weights_bring_the_outputs_nearer_on_other_images(per_channel: bool) -> None:
    workload = branching()
    graph = network(workload)
    images, others = images_for(workload, 64), images_for(workload, 64, seed=1)
    quantization = plain_scales(graph, images)
    expected = logits(write_graph(graph), others)
    fitted, scales = fitted_weights(graph, quantization, images, grid=WeightGrid(per_channel=per_channel))
    before, after = (
        signal_to_noise_db(expected, logits(write_graph(*each), others))
        for each in ((graph, quantization), (fitted, scales))
    )
    assert after > before + 3
    for op in workload.ops:
        if op.stores_weights:
            steps = np.reshape(scales.weights[op.weight], (-1, *[1] * (len(op.weight_shape) - 1)))
            assert scales.weights[op.weight].shape == ((op.out_channels,) if per_channel else ())
            np.testing.assert_allclose(
                fitted.weights[op.weight] / steps, np.rint(fitted.weights[op.weight] / steps), atol=1e-3
            )
    again, _ = fitted_weights(graph, quantization, images, grid=WeightGrid(per_channel=per_channel))
    assert all(np.array_equal(again.weights[name], fitted.weights[name]) for name in graph.weights)


def test_rounding_in_turn_beats_the_nearest_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    mixed = generator.standard_normal((400, 12)) @ generator.standard_normal((12, 12)) @ np.diag(np.arange(1.0, 13))
    xx = (mixed.T @ mixed / 400)[None]
    weight, steps = generator.standard_normal((1, 6, 12)), np.full((1, 6), 0.2)

    def error(other: np.ndarray) -> float:
        difference = other - weight
        return float(np.einsum("goi,gij,goj->", difference, xx, difference))

    nearest = np.rint(weight / 0.2) * 0.2
    found = rounded_in_turn(weight.copy(), steps, xx, np.zeros(weight.shape, bool))
    np.testing.assert_allclose(found / 0.2, np.rint(found / 0.2), atol=1e-9)
    assert error(found) < 0.5 * error(nearest)
    monkeypatch.setattr("compress.quantization.int8.least_squares._BLOCK", 5)  # of inputs, for speed alone
    np.testing.assert_allclose(rounded_in_turn(weight.copy(), steps, xx, np.zeros(weight.shape, bool)), found)


def test_a_weight_that_several_operations_read_stays() -> None:
    builder = WorkloadBuilder("input", (1, 3, 8, 8))
    for name, source in (("stem", "input"), ("a", "stem"), ("b", "a"), ("end", "b")):
        builder.conv(name, source, 3, kernel_size=3)
    built = builder.build()
    workload = replace(
        built, ops=tuple(replace(op, shared_weight="a.weight") if op.name == "b" else op for op in built.ops)
    )
    graph = network(workload)
    images = images_for(workload, 16)
    quantization = plain_scales(graph, images)
    fitted, scales = fitted_weights(graph, quantization, images)
    np.testing.assert_array_equal(fitted.weights["a.weight"], graph.weights["a.weight"])
    np.testing.assert_array_equal(scales.weights["a.weight"], quantization.weights["a.weight"])
    assert not np.array_equal(fitted.weights["b.bias"], graph.weights["b.bias"])
    integers = quantized_weight(fitted.weights["end.weight"], scales.weights["end.weight"])
    assert np.abs(integers.astype(int)).max() > 120


def test_zeros_stay_zeros_and_others_make_up_for_them() -> None:
    workload = branching()
    graph = network(workload)
    generator = np.random.default_rng(3)
    sparse = {
        name: value * (generator.random(value.shape) < 0.5) if value.ndim > 1 else value
        for name, value in graph.weights.items()
    }
    graph = graph.with_weights({name: value.astype(np.float32) for name, value in sparse.items()})
    images = images_for(workload, 32)
    fitted, scales = fitted_weights(graph, plain_scales(graph, images), images)
    for op in workload.ops:
        if op.stores_weights:
            assert not fitted.weights[op.weight][sparse[op.weight] == 0].any()
    expected = logits(write_graph(graph), images)
    assert signal_to_noise_db(expected, logits(write_graph(fitted, scales), images)) > 35


def test_all_networks_of_presets_are_fitted() -> None:
    workload = preset("mobilenetv3_small_050", input_shape=(3, 32, 32), num_classes=5).workload()
    graph = network(workload)
    images = images_for(workload, 8)
    fitted, scales = fitted_weights(graph, plain_scales(graph, images), images)
    assert np.isfinite(logits(write_graph(fitted, scales), images)).all()
