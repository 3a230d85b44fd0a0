"""Post-training quantization of any ONNX classifier."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.data.network_inputs import NamedInputs
from compress.quantization.int8.activation_stats import Floats, Inputs, check_images, histograms
from compress.quantization.int8.calibration import ACTIVATIONS, CALIBRATIONS, calibrated_range, scale_and_zero_point
from compress.quantization.int8.fidelity import FidelityEvaluator
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.graph_edges import consumers_of
from hw_profiles.onnx_io.half_precision import in_float32
from hw_profiles.onnx_io.normal_form import merge_equal_initializers, normal_form
from hw_profiles.onnx_io.untrusted_file import load_model
from hw_profiles.spelling_suggestions import did_you_mean

_FUNCTIONS = {"HardSwish": "hard_swish", "Sigmoid": "sigmoid", "Relu": "relu", "Gelu": "gelu"}
_GATED = {"Sigmoid": "silu", "HardSigmoid": "hard_swish"}  # times its own input
_FLOAT = onnx.TensorProto.FLOAT
_FOUR_BITS = (onnx.TensorProto.INT4, onnx.TensorProto.UINT4)
_INTEGER_NODES = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QGemm",
)  # fmt: skip
_LEAST_OPSET = 13  # the first in which each channel of a weight may have a scale of its own


def quantize_onnx(
    data: bytes,
    images: Inputs,
    *,
    calibration: str | None = None,
    activations: str = "unsigned",
    per_channel: bool = True,
) -> bytes:
    """A float32 ONNX classifier as one in 8-bit integers, with QuantizeLinear and DequantizeLinear around its tensors.

    ``images`` are what it reads, (N, C, H, W) after preprocessing or of another shape, or, where it has several inputs,
    the arrays of all by name. ``calibration``: how ranges are chosen, see
    :func:`compress.quantization.int8.calibration.calibrated_range`; None calibrates on one half of the images and takes
    the method whose file diverges least from the float file on the other half. ``activations``: ``"unsigned"``, which
    x86 computes faster, or ``"signed"``, for 64-bit ARM. Nodes are placed by ONNX Runtime's own quantizer, which
    knows what its kernels take. A network that computes in float16 is brought to float32 first, and reads that.

    Raises:
        InputError: an option that does not exist, images of another shape or not finite, a file that is quantized
            already, or one in which nothing can be held as integers.
    """
    _check_options(calibration, activations)
    model = in_float32(load_model(data))
    _check_wide(model)
    given = _checked_inputs(model, images)
    sides = {array.shape[1:] for array in given.arrays.values()}
    normal = normal_form(model, input_shape=sides.pop() if len(given.arrays) == 1 else None, opset=_LEAST_OPSET)
    _add_biases_after_grouped(normal.graph)
    data = normal.SerializeToString()
    ready = prepared(data)
    half = len(given) if calibration or len(given) < 2 else len(given) // 2
    seen = histograms(ready, _float_tensors(ready), given[:half])
    consumers = consumers_of(onnx.load_model_from_string(ready).graph)
    signed = activations == "signed"

    def written(method: str) -> bytes:
        ranges = {
            name: calibrated_range(each, method, _function(consumers.get(name, []))) for name, each in seen.items()
        }
        scales = {name: scale_and_zero_point(*both, signed=signed) for name, both in ranges.items()}
        return _quantized(ready, scales, dict(given[:1].arrays), signed=signed, per_channel=per_channel)

    if calibration or half == len(given):
        return written(calibration or "minmax")
    evaluator = FidelityEvaluator(ready, given[half:])
    return min(map(written, CALIBRATIONS), key=lambda file: evaluator(file).divergence)


def _add_biases_after_grouped(graph: Any) -> None:
    """A sum in the place of the bias of a grouped transposed convolution, whose scales ONNX Runtime's quantizer counts
    wrongly."""
    nodes = []
    for node in graph.node:
        nodes.append(node)
        grouped = any(each.name == "group" and each.i > 1 for each in node.attribute)
        if node.op_type != "ConvTranspose" or not grouped or len(node.input) < 3 or not node.input[2]:
            continue
        tensor = next((each for each in graph.initializer if each.name == node.input[2]), None)
        if tensor is None:
            continue
        value, output = numpy_helper.to_array(tensor), node.output[0]
        added = numpy_helper.from_array(value.reshape(1, -1, 1, 1), f"{output}.bias")
        graph.initializer.append(added)
        node.output[0] = f"{output}.product"
        del node.input[2:]
        nodes.append(helper.make_node("Add", [node.output[0], added.name], [output]))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    graph.ClearField("node")
    graph.node.extend(copies)


def _check_options(calibration: str | None, activations: str) -> None:
    for name, value, valid in (
        ("calibration", calibration, tuple(CALIBRATIONS)),
        ("activations", activations, ACTIVATIONS),
    ):
        if value is not None and value not in valid:
            hint = did_you_mean(str(value), valid)
            raise InputError(f"quantize_onnx: {name} must be one of {', '.join(valid)}, got {value!r}{hint}")


def _checked_inputs(model: Any, images: Inputs) -> NamedInputs:
    """What is given for each input of a file, in the file's type."""
    graph = model.graph
    if any(node.op_type in _INTEGER_NODES or node.op_type.startswith("QLinear") for node in graph.node):
        raise InputError("a float32 network is needed, got one that is quantized already")
    constants = {tensor.name for tensor in graph.initializer}
    values = {value.name: value.type.tensor_type for value in graph.input if value.name not in constants}
    if isinstance(images, NamedInputs):
        arrays = dict(images.arrays)
    elif len(values) == 1:
        arrays = {next(iter(values)): images}
    else:
        raise InputError(f"the network has the inputs {', '.join(values)}: arrays for all must be given by name")
    if set(arrays) != set(values):
        raise InputError(f"inputs must be given for {', '.join(values)}, got {', '.join(arrays)}")
    for name, array in arrays.items():
        dims = values[name].shape.dim[1:]
        check_images(array, [dim.dim_value if dim.dim_value > 0 else dim.dim_param or None for dim in dims])
        arrays[name] = array.astype(helper.tensor_dtype_to_np_dtype(values[name].elem_type))
    return NamedInputs(arrays)


def prepared(data: bytes) -> bytes:
    """Constants and batch normalisation folded, shapes known, every node named.

    Raises:
        InputError: weights are stored in 4 bits, which ONNX Runtime does not fold.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    _check_wide(onnx.load_model_from_string(data))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, path = Path(folder) / "given.onnx", Path(folder) / "prepared.onnx"
        given.write_bytes(data)  # of a model in memory it makes external data, and then fails on what nobody reads
        quant_pre_process(given, path, skip_symbolic_shape=True)
        model = onnx.load_model_from_string(path.read_bytes())
    merge_equal_initializers(model.graph)
    for i, node in enumerate(model.graph.node):
        node.name = f"{i}.{node.op_type}"
    named: bytes = model.SerializeToString()
    return named


def _check_wide(given: Any) -> None:
    few = [tensor.name for tensor in given.graph.initializer if tensor.data_type in _FOUR_BITS]
    if few:
        raise InputError(f"a float32 network is needed, got one whose weights are stored in 4 bits, such as {few[0]}")


def _float_tensors(data: bytes) -> list[str]:
    """The input and every tensor that a node makes of float32 numbers, more than none."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data)).graph
    constants = {tensor.name for tensor in graph.initializer}
    values = [*graph.input, *graph.value_info, *graph.output]
    known = {value.name for value in values if value.type.tensor_type.elem_type == _FLOAT} - constants
    made = [*(value.name for value in graph.input), *(name for node in graph.node for name in node.output)]
    return [name for name in dict.fromkeys(made) if name in known]


def _function(nodes: list[Any]) -> str:
    """The function that these nodes are together, ``"none"`` where they are no known one."""
    kinds = {node.op_type if node is not None else "" for node in nodes}
    gates = [node for node in nodes if node is not None and node.op_type in _GATED]
    if any(node.op_type == "HardSigmoid" and not _is_sixth(node) for node in gates):
        return "none"
    if len(nodes) == 2 and len(gates) == 1 and "Mul" in kinds:
        product = next(node for node in nodes if node.op_type == "Mul")
        return _GATED[gates[0].op_type] if gates[0].output[0] in product.input else "none"
    if len(nodes) != 1:
        return "none"
    return "hard_sigmoid" if kinds == {"HardSigmoid"} else _FUNCTIONS.get(kinds.pop(), "none")


def _is_sixth(node: Any) -> bool:
    given = {attribute.name: attribute.f for attribute in node.attribute}
    return bool(abs(given.get("alpha", 0.2) - 1 / 6) < 1e-6 and given.get("beta", 0.5) == 0.5)


def _swishes(consumers: Mapping[str, list[Any]]) -> list[str]:
    """Gates and the products of a tensor with its own gate: in float, so that the gate is not rounded on the way."""
    pairs = [nodes for nodes in consumers.values() if _function(nodes) in _GATED.values()]
    return [node.name for nodes in pairs for node in nodes]


def _quantized(
    data: bytes, scales: Mapping[str, tuple[float, int]], image: dict[str, Floats], *, signed: bool, per_channel: bool
) -> bytes:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Once(CalibrationDataReader):  # type: ignore[misc]
        """One image: ranges are given."""

        def __init__(self) -> None:
            self.left = [image]

        def get_next(self) -> dict[str, Floats] | None:
            return self.left.pop() if self.left else None

    kind = np.int8 if signed else np.uint8
    overrides = {
        name: [{"scale": np.array(scale, np.float32), "zero_point": np.array(zero, kind)}]
        for name, (scale, zero) in scales.items()
    }
    model = onnx.load_model_from_string(data)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            path,
            Once(),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_swishes(consumers_of(model.graph)),
            extra_options={"TensorQuantOverrides": overrides, "QDQKeepRemovableActivations": False},
        )
        written = path.read_bytes()
    if not any(node.op_type == "QuantizeLinear" for node in onnx.load_model_from_string(written).graph.node):
        raise InputError("nothing in this network can be held as integers: no convolution or matrix product")
    return written


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what ONNX Runtime's quantizer logs for those who run it by hand."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(level)
