"""Post-training quantization of ONNX files that no Graph holds: of several inputs, or of one that is not float32.

Nodes are placed by ONNX Runtime's own quantizer; no channel is equalised, no bias corrected, no rounding learned.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.data.network_inputs import NamedInputs
from compress.networks.artifact import Artifact
from compress.networks.network_source import OnnxFile, source_name
from compress.networks.onnx_export import onnx_bytes
from compress.networks.onnx_weights import with_int8_file
from compress.quantization.int8.activation_stats import Floats, Inputs, check_images, histograms
from compress.quantization.int8.calibration import CALIBRATIONS, calibrated_range, scale_and_zero_point
from compress.quantization.int8.fidelity import FidelityEvaluator
from compress.stage_interface import Context
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.graph_edges import check_straight, consumers_of, needed_nodes
from hw_profiles.onnx_io.graph_reader import check_float, float_inputs
from hw_profiles.onnx_io.rewrites.half_precision import in_float32
from hw_profiles.onnx_io.rewrites.normal_form import normal_form
from hw_profiles.onnx_io.rewrites.runtime_folding import folded, quiet
from hw_profiles.onnx_io.untrusted_file import load_model

if TYPE_CHECKING:
    from compress.quantization.int8.ptq import Quantize

_FUNCTIONS = {"HardSwish": "hard_swish", "Sigmoid": "sigmoid", "Relu": "relu", "Gelu": "gelu"}
_GATED = {"Sigmoid": "silu", "HardSigmoid": "hard_swish"}  # times its own input
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOAT = onnx.TensorProto.FLOAT
_LEAST_OPSET = 13  # the first in which each channel of a weight may have a scale of its own


def has_no_graph(artifact: Artifact) -> bool:
    """Whether an artifact is a file of other inputs than a single one of floating point.

    >>> from compress import Preprocessing
    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> record = Preprocessing(channels=3, sizes=((32, 32),), mean=(0.5,) * 3, std=(0.25,) * 3, class_names=("a", "b"))
    >>> file = OnnxFile(data=write_onnx(preset("resnet8").workload()))
    >>> has_no_graph(Artifact(source=file, weights={}, preprocessing=record))
    False
    """
    if not isinstance(artifact.source, OnnxFile):
        return False
    return float_inputs(in_float32(load_model(onnx_bytes(artifact))).graph) != [True]


def with_quantized_file(artifact: Artifact, stage: Quantize, context: Context) -> Artifact:
    """The artifact with its file in 8-bit integers: ranges are calibrated on one half of the images, and where no
    method is asked for the one whose file diverges least on the other half is taken.

    Raises:
        InputError: an option that is for other networks, inputs of another shape or not finite, a file that is
            quantized already, or one in which nothing can be held as integers.
    """
    for name in ("equalize", "bias_correction", "least_squares", "adaround"):
        if getattr(stage, name) not in (None, False, "none"):
            raise InputError(
                f"Quantize.{name} needs a network of one float32 input, which {source_name(artifact.source)} is not"
            )
    split = context.data.train.some(2 * stage.images, context.seed)
    given = artifact.preprocessing.tensor(split.images)
    signed = stage.activations_on(context.device) == "signed"
    data = _in_integers(onnx_bytes(artifact), given, stage.calibration, signed=signed, per_channel=stage.per_channel)
    return with_int8_file(artifact, data)


def _in_integers(data: bytes, inputs: Inputs, calibration: str | None, *, signed: bool, per_channel: bool) -> bytes:
    model = in_float32(load_model(data))
    for node in needed_nodes(model.graph):
        check_straight(node)
    given = _checked_inputs(model, inputs)
    normal = normal_form(model, opset=_LEAST_OPSET)
    _add_biases_after_grouped(normal.graph)
    ready = _with_named_nodes(folded(normal))
    half = len(given) if calibration or len(given) < 2 else len(given) // 2
    tensors = _float_tensors(ready)
    seen = histograms(ready, tensors, given[:half], all_finite=False)
    in_float = [name for name in tensors if name not in seen]
    consumers = consumers_of(onnx.load_model_from_string(ready).graph)

    def written(method: str) -> bytes:
        ranges = {
            name: calibrated_range(each, method, _function(consumers.get(name, []))) for name, each in seen.items()
        }
        scales = {name: scale_and_zero_point(*both, signed=signed) for name, both in ranges.items()}
        return _quantized(ready, scales, next(given.feeds(1)), in_float, signed=signed, per_channel=per_channel)

    if calibration or half == len(given):
        return written(calibration or "minmax")
    evaluator = FidelityEvaluator(ready, given[half:])
    return min(map(written, CALIBRATIONS), key=lambda file: evaluator(file).divergence)


def _with_named_nodes(model: Any) -> bytes:
    for i, node in enumerate(model.graph.node):
        node.name = f"{i}.{node.op_type}"
    named: bytes = model.SerializeToString()
    return named


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


def _checked_inputs(model: Any, images: Inputs) -> NamedInputs:
    """What is given for each input of a file, in the file's type."""
    graph = model.graph
    check_float(graph)
    constants = {tensor.name for tensor in graph.initializer}
    values = {value.name: value.type.tensor_type for value in graph.input if value.name not in constants}
    whole = isinstance(images, NamedInputs) and images.whole_calls
    if isinstance(images, NamedInputs):
        arrays = dict(images.arrays)
    elif len(values) == 1:
        arrays = {next(iter(values)): images}
    else:
        raise InputError(f"the network has the inputs {', '.join(values)}: arrays for all must be given by name")
    if set(arrays) != set(values):
        raise InputError(f"inputs must be given for {', '.join(values)}, got {', '.join(arrays)}")
    for name, array in arrays.items():
        dims = values[name].shape.dim[0 if whole else 1 :]
        check_images(array, [dim.dim_value if dim.dim_value > 0 else dim.dim_param or None for dim in dims])
        arrays[name] = array.astype(helper.tensor_dtype_to_np_dtype(values[name].elem_type))
    return NamedInputs(arrays, whole)


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


def _beside(graph: Any, tensors: Sequence[str]) -> list[str]:
    """The nodes that read or make one of these."""
    return [node.name for node in graph.node if not {*node.input, *node.output}.isdisjoint(tensors)]


def _quantized(
    data: bytes,
    scales: Mapping[str, tuple[float, int]],
    image: dict[str, Floats],
    in_float: Sequence[str],
    *,
    signed: bool,
    per_channel: bool,
) -> bytes:
    """In 8-bit integers of these scales, but for the nodes that read or make a tensor of ``in_float``; where there is
    one, only products are in integers, as the quantizer follows no other operation around what stays in float."""
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
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            path,
            Once(),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(_PRODUCTS) if in_float else None,
            nodes_to_exclude=[*_swishes(consumers_of(model.graph)), *_beside(model.graph, in_float)],
            extra_options={"TensorQuantOverrides": overrides, "QDQKeepRemovableActivations": False},
        )
        written = path.read_bytes()
    if not any(node.op_type == "QuantizeLinear" for node in onnx.load_model_from_string(written).graph.node):
        raise InputError("nothing in this network can be held as integers: no convolution or matrix product")
    return written
