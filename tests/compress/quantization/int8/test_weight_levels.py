"""Weights of fewer integers: the file takes fewer bytes coded, and layers that count less for the classes get fewer."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compress import Artifact, Context, Quantize
from compress.fnz import encode_onnx
from compress.networks.onnx_export import onnx_bytes
from compress.quantization.int8.weight_levels import FEWEST, MOST, allocated_levels

PLAIN = {"images": 64, "calibration": "minmax", "equalize": "none", "bias_correction": False, "adaround": False}


@pytest.mark.parametrize("mean", [4, 8, 32, 200])
def test_all_weights_have_as_many_levels_as_asked_on_average(mean: int) -> None:
    generator = np.random.default_rng(0)
    sizes = {str(i): int(n) for i, n in enumerate(generator.integers(100, 100_000, 12))}
    found = allocated_levels(dict(zip(sizes, generator.lognormal(0, 3, 12).tolist(), strict=True)), sizes, mean)
    assert all(FEWEST <= levels <= MOST for levels in found.values())
    bits = sum(size * np.log2(found[name]) for name, size in sizes.items()) / sum(sizes.values())
    assert bits == pytest.approx(np.log2(mean), abs=0.05)


def largest_integers(data: bytes) -> dict[str, int]:
    """Of each weight of a file."""
    tensors = onnx.load_model_from_string(data).graph.initializer
    integers = [t for t in tensors if t.name.endswith(".weight.quantized")]
    return {
        t.name.removesuffix(".weight.quantized"): int(np.abs(numpy_helper.to_array(t).astype(int)).max())
        for t in integers
    }


def test_layers_that_are_named_take_few_integers_in_a_smaller_file(learnt: Artifact, context: Context) -> None:
    files = [
        onnx_bytes(Quantize(least_squares=fitted, levels={"conv": 15, "stem": 63}, **PLAIN)(learnt, context))
        for fitted in (False, True)
    ]
    nearest, fitted = map(largest_integers, files)
    assert nearest == {name: {"stem": 31, "classifier": 127}.get(name, 7) for name in nearest}
    assert all(largest == pytest.approx(nearest[name], rel=0.3) for name, largest in fitted.items())
    whole = onnx_bytes(Quantize(**PLAIN)(learnt, context))
    assert all(len(encode_onnx(file)) < 0.62 * len(encode_onnx(whole)) for file in files)


def test_classes_move_less_where_levels_are_allocated(learnt: Artifact, context: Context) -> None:
    found = {}
    for levels in (6, {"conv": 6, "linear": 6}):
        metrics = Quantize(least_squares=False, levels=levels, **PLAIN)(learnt, context).metrics["quantization"]
        found[isinstance(levels, int)] = metrics
    assert found[True]["divergence"] < 0.8 * found[False]["divergence"]
    sizes = {op.name: math.prod(op.weight_shape) for op in learnt.arch.workload().ops if op.stores_weights}
    bits = sum(size * np.log2(found[True]["levels"][name]) for name, size in sizes.items()) / sum(sizes.values())
    assert bits == pytest.approx(np.log2(6), abs=0.05)
    assert len({*found[True]["levels"].values()}) > 2


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        (2, r"levels must be between 3 and 255, got 2"),
        ({"conv": 256}, r"levels must be between 3 and 255, got 256"),
        ({"conv": True}, r"levels must be between 3 and 255, got True"),
    ],
)
def test_impossible_levels_are_refused(levels: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Quantize(levels=levels)  # type: ignore[arg-type]


def test_a_layer_that_is_not_there_is_named(learnt: Artifact, context: Context) -> None:
    with pytest.raises(ValueError, match=r"Quantize.levels: a key must be conv, linear or the name of a layer.*'stem'"):
        Quantize(levels={"stm": 15}, **PLAIN)(learnt, context)
