"""The share of a file's multiply-accumulates that are made in integers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from hw_profiles.onnx_io.graph_edges import consumers_of

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_IN_INTEGERS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
_CUT = ("Relu", "Clip")  # become a part of the rounding after them


def integer_share(file: bytes, inputs: Mapping[str, np.ndarray[Any, Any]]) -> float:
    """In 0..1, by the sizes that ``inputs`` lead to: a product of two tensors that are both held as integers, of a
    convolution one whose result is also rounded to integers.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> integer_share(write_onnx(preset("resnet8").workload()), {"input": np.zeros((1, 3, 32, 32), np.float32)})
    0.0
    """
    model = onnx.load_model_from_string(file)
    producers = {name: node for node in model.graph.node for name in node.output}
    consumers = consumers_of(model.graph)
    macs = _macs_of_products(model, inputs)
    integers = [
        count
        for node, count in macs
        if node.op_type in _IN_INTEGERS or (_reads_integers(node, producers) and _rounds(node, consumers))
    ]
    return sum(integers) / max(sum(count for _, count in macs), 1)


def product_macs(file: bytes, inputs: Mapping[str, np.ndarray[Any, Any]]) -> int:
    """Multiply-accumulates of all products that the outputs of a file need, by the sizes that ``inputs`` lead to; not
    of what is worked out of constants and sides alone.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> product_macs(write_onnx(preset("resnet8").workload()), {"input": np.zeros((1, 3, 32, 32), np.float32)})
    12501632
    """
    return sum(count for _, count in _macs_of_products(onnx.load_model_from_string(file), inputs))


def _macs_of_products(model: Any, inputs: Mapping[str, np.ndarray[Any, Any]]) -> list[tuple[Any, int]]:
    needed = {output.name for output in model.graph.output}
    for node in reversed(model.graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
    depends, products = set(inputs), []
    for node in model.graph.node:
        computes = node.op_type not in ("Shape", "Size") and not needed.isdisjoint(node.output)
        if computes and not depends.isdisjoint(node.input):
            depends.update(node.output)
            products += [node] if node.op_type in (*_PRODUCTS, *_IN_INTEGERS) else []
    shapes = _shapes(model, products, inputs)
    return [(node, _macs(node, shapes)) for node in products]


def _reads_integers(node: Any, producers: Mapping[str, Any]) -> bool:
    made = [producers.get(name) for name in node.input[:2]]
    return all(each is not None and each.op_type == "DequantizeLinear" for each in made)


def _rounds(node: Any, consumers: Mapping[str, list[Any]]) -> bool:
    if node.op_type not in ("Conv", "ConvTranspose"):
        return True
    return all(
        each is not None
        and (each.op_type == "QuantizeLinear" or (each.op_type in _CUT and _rounds_after(each, consumers)))
        for each in consumers.get(node.output[0], [None])
    )


def _rounds_after(node: Any, consumers: Mapping[str, list[Any]]) -> bool:
    after = consumers.get(node.output[0], [])
    return bool(after) and all(each is not None and each.op_type == "QuantizeLinear" for each in after)


def _macs(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    quantized = node.op_type.startswith("QLinear")
    a, b = shapes[node.input[0]], shapes[node.input[3 if quantized else 1]]
    out = math.prod(shapes[node.output[0]])
    if node.op_type == "ConvTranspose":
        return math.prod(a) * math.prod(b[1:])
    if "Conv" in node.op_type:
        return out * math.prod(b[1:])
    turned = any(each.name == "transA" and each.i for each in node.attribute)
    return out * (a[0] if turned else a[-1])


def _shapes(model: Any, products: list[Any], inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, tuple[int, ...]]:
    """Of what the products read and make, by running the file."""
    graph = model.graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    made = {name for node in graph.node for name in node.output if name}
    wanted = sorted({name for node in products for name in (*node.input, *node.output) if name in made})
    wide = onnx.ModelProto.FromString(model.SerializeToString())
    present = {output.name for output in graph.output}
    wide.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in present)
    values = _unoptimized(wide).run(wanted, dict(inputs)) if wanted else []
    return {
        **constants,
        **{name: value.shape for name, value in inputs.items()},
        **{name: np.shape(value) for name, value in zip(wanted, values, strict=True)},
    }


def _unoptimized(model: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
