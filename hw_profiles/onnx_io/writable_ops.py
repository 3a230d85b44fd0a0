"""The nodes of an ONNX file that the writer can write as operations, and the weights that they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hw_profiles.errors import InputError
from hw_profiles.network.activations import activation
from hw_profiles.network.batch_norm import folded_norm
from hw_profiles.network.workload import Op, Shape
from hw_profiles.onnx_io.untrusted_file import shown

Weights = dict[str, NDArray[np.float32]]

_OWN_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class Place:
    """An operation and its place in the file: the node that it is called after, and the last one that was merged into
    it; ``shapes`` of the workload, constants and makers by the names of the file. ``batch_first``: the first axis of
    what it reads is that of the batch."""

    op: Op
    node: Any
    last: Any
    shapes: Mapping[str, Shape]
    constants: Mapping[str, Any]
    makers: Mapping[str, Any]
    batch_first: bool = True

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the node."""
        return attribute(self.node, name, default)

    def array(self, i: int, node: Any = None) -> NDArray[np.float32] | None:
        """The i-th input of the node where it is a constant of float32 numbers, else None."""
        name = next(iter((node or self.node).input[i : i + 1]), "")
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            return None
        value: NDArray[np.float32] = numpy_helper.to_array(tensor).copy()
        if not np.isfinite(value).all():
            raise InputError(f"weight {shown(name)}: every number must be finite")
        return value


def writable_weights(place: Place) -> Weights | None:
    """The weights, if any, of an operation that the writer can write exactly; None for any other."""
    known = _WRITABLE.get(place.op.kind)
    if known is None or place.node.domain not in _OWN_DOMAINS:
        return None
    if place.op.normalized and (place.op.kind != "linear" or place.last.op_type != "BatchNormalization"):
        return None
    return known(place)


def attribute(node: Any, name: str, default: Any) -> Any:
    """An attribute of a node."""
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


def _conv(place: Place) -> Weights | None:
    op, weight = place.op, place.array(1)
    if place.node.op_type != "Conv" or weight is None or weight.ndim not in (3, 4) or len(op.inputs) != 1:
        return None
    return _with_bias(op, weight, place.array(2))


def _linear(place: Place) -> Weights | None:
    op, weight = place.op, place.array(1)
    if weight is None or weight.ndim != 2 or len(op.inputs) != 1:
        return None
    if place.node.op_type == "Gemm" and not all(
        place.attribute(name, each) == each for name, each in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))
    ):
        return None
    turned = weight if place.attribute("transB", 0) else weight.T
    return _normalized(place, turned) if op.normalized else _with_bias(op, turned, _bias(place))


def _bias(place: Place) -> NDArray[np.float32] | None:
    """What a product adds itself, or a sum after it."""
    if place.last is place.node:
        return place.array(2)
    return next((each for i in (0, 1) if (each := place.array(i, place.last)) is not None), None)


def _normalized(place: Place, weight: NDArray[np.float32]) -> Weights | None:
    """Weights and bias with the batch normalization after them folded in, which ONNX Runtime folds into convolutions
    alone."""
    numbers = [place.array(i, place.last) for i in range(1, 5)]
    if attribute(place.last, "training_mode", 0) or place.last.input[0] not in place.node.output:
        return None  # it takes mean and variance of the batch, or something is added before it
    before = place.array(2) if len(place.node.input) > 2 and place.node.input[2] else np.zeros(1, np.float32)
    if before is None or any(each is None for each in numbers):
        return None
    scale, shift, mean, variance = numbers
    epsilon = attribute(place.last, "epsilon", 1e-5)
    folded = folded_norm(
        weight, before.reshape(-1), scale=scale, shift=shift, mean=mean, variance=variance, epsilon=epsilon
    )
    return _with_bias(place.op, *folded)


def _with_bias(op: Op, weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> Weights | None:
    found = {op.weight: np.ascontiguousarray(weight)}
    if not op.bias:
        return found
    if bias is None or bias.size not in (1, op.out_channels):
        return None
    found[op.bias_name] = np.broadcast_to(bias.reshape(-1), (op.out_channels,)).copy()
    return found


def _activation(place: Place) -> Weights | None:
    op, node = place.op, place.node
    if len(op.inputs) != 1 or op.weight_shape:
        return None
    if node.op_type == "Mul":
        gates = [place.makers.get(name) for name in node.input]
        return {} if any(gate is not None and _is_gate(gate, op.function) for gate in gates) else None
    return {} if node.op_type in activation(op.function).written_as and _is_usual(node) else None


def _is_gate(gate: Any, function: str) -> bool:
    return bool(gate.op_type == activation(activation(function).gate).node) and _is_usual(gate)


def _is_usual(node: Any) -> bool:
    """Whether a function has the parameters that its name stands for here."""
    if node.op_type == "HardSigmoid":
        return bool(abs(attribute(node, "alpha", 0.2) - 1 / 6) < 1e-6 and attribute(node, "beta", 0.5) == 0.5)
    return bool(node.op_type != "Gelu" or attribute(node, "approximate", b"none") == b"none")


def _binary(place: Place) -> Weights | None:
    kind = {"add": "Add", "mul": "Mul"}[place.op.kind]
    plain = place.op.function == "none" and not place.op.weight_shape and len(place.op.inputs) == 2
    return {} if plain and place.node.op_type == kind else None


def _pool(place: Place) -> Weights | None:
    op, node = place.op, place.node
    usual = node.op_type in ("MaxPool", "AveragePool") and op.dilation == (1, 1) and len(node.output) == 1
    counted = any(op.padding) and place.attribute("count_include_pad", 0)
    if not usual or counted or len(place.shapes[op.name]) != 4:
        return None
    top, left, bottom, right = op.padding
    sides = zip(place.shapes[op.inputs[0]][2:], (top + bottom, left + right), op.kernel_size, op.stride, strict=True)
    complete = tuple((side + around - size) // step + 1 for side, around, size, step in sides)
    return {} if complete == place.shapes[op.name][2:] else None  # else it goes beyond the edge


def _mean(place: Place) -> Weights | None:
    ranks = {"GlobalAveragePool": (3, 4), "ReduceMean": (4,)}.get(place.node.op_type, ())
    return {} if len(place.shapes[place.op.inputs[0]]) in ranks else None


def _flatten(place: Place) -> Weights | None:
    return {} if place.batch_first and place.shapes[place.op.inputs[0]][0] == 1 else None


def _concat(place: Place) -> Weights | None:
    op, rank = place.op, len(place.shapes[place.op.name])
    all_given = place.node.op_type == "Concat" and len(op.inputs) == len(place.node.input)
    return {} if all_given and rank > 1 and place.attribute("axis", 0) % rank == 1 else None


def _matmul(place: Place) -> Weights | None:
    plain = place.node.op_type == "MatMul" and not place.op.weight_shape and len(place.op.inputs) == 2
    return {} if plain else None


_WRITABLE: Mapping[str, Callable[[Place], Weights | None]] = {
    "conv": _conv,
    "linear": _linear,
    "activation": _activation,
    "add": _binary,
    "mul": _binary,
    "avg_pool": _pool,
    "max_pool": _pool,
    "global_avg_pool": _mean,
    "flatten": _flatten,
    "concat": _concat,
    "matmul": _matmul,
}
