"""Weights that a file transposes after DequantizeLinear; the transposition is applied to the integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def turn_weights(model: Any) -> None:
    """Let DequantizeLinear read turned integers where a Transpose follows it, in place: the same numbers, and integers
    that a convolution or a product reads at once.

    >>> from onnx import TensorProto
    >>> held = {"w": np.int8([[1, 2, 3], [4, 5, 6]]), "s": np.float32([0.5, 1]), "z": np.zeros(2, np.int8)}
    >>> nodes = [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["f"], axis=0)]
    >>> nodes += [helper.make_node("Transpose", ["f"], ["t"]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    >>> ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    >>> constants = [numpy_helper.from_array(value, name) for name, value in held.items()]
    >>> model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], constants))
    >>> turn_weights(model)
    >>> node = model.graph.node[1]
    >>> node.op_type, node.attribute[0].i, [t.dims[0] for t in model.graph.initializer if t.name == node.input[0]]
    ('DequantizeLinear', 1, [3])
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "Transpose" else None
        if maker is None or maker.input[0] not in constants:
            continue
        values = numpy_helper.to_array(constants[maker.input[0]])
        given = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
        order = list(reversed(range(values.ndim))) if given is None else given
        name = f"{maker.input[0]}:{node.output[0]}"
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values.transpose(order)), name))
        axis = next((a.i for a in maker.attribute if a.name == "axis"), 1) % max(values.ndim, 1)
        turned = onnx.NodeProto(
            op_type=maker.op_type,
            domain=maker.domain,
            name=node.name,
            input=[name, *maker.input[1:]],
            output=node.output,
        )
        turned.attribute.append(helper.make_attribute("axis", order.index(axis)))
        node.CopyFrom(turned)
