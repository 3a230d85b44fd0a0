"""The same small network, written in every way that ONNX allows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

GENERATOR = np.random.default_rng(0)
MACS = 14 * 14 * 8 * 27 + 8 * 3
Node = helper.make_node


def numbers(*shape: int) -> np.ndarray:
    return (GENERATOR.standard_normal(shape) * 0.2).astype(np.float32)


WEIGHTS = {"w": numbers(8, 3, 3, 3), "b": numbers(8), "v": numbers(3, 8), "d": numbers(3)}
BODY = [
    Node("Conv", ["x", "w", "b"], ["c"]),
    Node("Relu", ["c"], ["a"]),
    Node("GlobalAveragePool", ["a"], ["p"]),
    Node("Flatten", ["p"], ["f"]),
    Node("Gemm", ["f", "v", "d"], ["y"], transB=1),
]


def held(values: dict[str, np.ndarray]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]


def model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    *,
    opset: int = 17,
    ir: int = 8,
    batch: object = "N",
    side: object = 16,
    more_inputs: tuple[onnx.ValueInfoProto, ...] = (),
) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side]), *more_inputs]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3])
    made = helper.make_graph(nodes, "g", ends, [out], held(constants))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def constant_nodes() -> onnx.ModelProto:
    return model(
        [*(Node("Constant", [], [n], value=t) for n, t in zip(WEIGHTS, held(WEIGHTS), strict=True)), *BODY], {}
    )


def inputs_with_values(ir: int) -> onnx.ModelProto:
    listed = tuple(helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in WEIGHTS.items())
    return model(BODY, WEIGHTS, ir=ir, opset=7, more_inputs=listed)


def halves() -> onnx.ModelProto:
    casts = [Node("Cast", [f"{name}h"], [name], to=TensorProto.FLOAT) for name in WEIGHTS]
    return model([*casts, *BODY], {f"{name}h": value.astype(np.float16) for name, value in WEIGHTS.items()})


def standardized() -> onnx.ModelProto:
    """Weights of mean 0 and variance 1, worked out in the graph from the raw ones."""
    first = [
        Node("ReduceMean", ["raw"], ["mean"], axes=[1, 2, 3]),
        Node("Sub", ["raw", "mean"], ["centered"]),
        Node("Mul", ["centered", "centered"], ["squares"]),
        Node("ReduceMean", ["squares"], ["variance"], axes=[1, 2, 3]),
        Node("Sqrt", ["variance"], ["deviation"]),
        Node("Div", ["centered", "deviation"], ["w"]),
    ]
    return model([*first, *BODY], {**{n: v for n, v in WEIGHTS.items() if n != "w"}, "raw": WEIGHTS["w"]})


def axes_as_initializer() -> onnx.ModelProto:
    nodes = [*BODY[:2], Node("ReduceMean", ["a", "axes"], ["f"], keepdims=0), BODY[-1]]
    return model(nodes, {**WEIGHTS, "axes": np.int64([2, 3])}, opset=18)


def unused() -> onnx.ModelProto:
    return model([*BODY, Node("Relu", ["c"], ["nobody"])], {**WEIGHTS, "spare": numbers(500)})


def shape_from_input() -> onnx.ModelProto:
    """Flatten as exporters of old wrote it: Shape, Gather, Concat, Reshape, for whatever batch."""
    nodes = [
        *BODY[:3],
        Node("Shape", ["p"], ["s"]),
        Node("Gather", ["s", "zero"], ["n"], axis=0),
        Node("Unsqueeze", ["n", "zero1"], ["n1"]),
        Node("Concat", ["n1", "rest"], ["shape"], axis=0),
        Node("Reshape", ["p", "shape"], ["f"]),
        BODY[-1],
    ]
    return model(nodes, {**WEIGHTS, "zero": np.int64(0), "zero1": np.int64([0]), "rest": np.int64([-1])})


def gemm(bias: np.ndarray | None, **attributes: object) -> onnx.ModelProto:
    inputs = ["f", "v"] if bias is None else ["f", "v", "d"]
    constants = {**WEIGHTS, "d": bias} if bias is not None else {n: v for n, v in WEIGHTS.items() if n != "d"}
    if not attributes.get("transB", 1):
        constants["v"] = np.ascontiguousarray(constants["v"].T)
    return model([*BODY[:-1], Node("Gemm", inputs, ["y"], **{"transB": 1, **attributes})], constants)


def named(name: str) -> onnx.ModelProto:
    made = model(BODY, WEIGHTS)
    for node in made.graph.node:
        for names in (node.input, node.output):
            for i, each in enumerate(names):
                names[i] = each if each in ("x", "y") else f"{name}{each}"
    for tensor in made.graph.initializer:
        tensor.name = f"{name}{tensor.name}"
    return made


def in_a_function() -> onnx.ModelProto:
    made = model([BODY[0], Node("Rectified", ["c"], ["a"], domain="mine"), *BODY[2:]], WEIGHTS)
    body = [Node("Constant", [], ["zero"], value_float=0.0), Node("Max", ["u", "zero"], ["o"])]
    opsets = [helper.make_opsetid("", 17)]
    made.functions.append(helper.make_function("mine", "Rectified", ["u"], ["o"], body, opsets))
    made.opset_import.append(helper.make_opsetid("mine", 1))
    return made


def long_domain() -> onnx.ModelProto:
    made = model(BODY, WEIGHTS)
    made.opset_import[0].domain = "ai.onnx"
    return made


def sparse_weights() -> onnx.ModelProto:
    """One weight as places and values, the other one too, in a Constant node."""
    made = model([BODY[0], *BODY[1:]], {name: WEIGHTS[name] for name in "bd"})
    places = [numpy_helper.from_array(np.arange(WEIGHTS[n].size), f"{n}.places") for n in "wv"]
    values = [numpy_helper.from_array(WEIGHTS[n].reshape(-1), n) for n in "wv"]
    sparse = [helper.make_sparse_tensor(v, p, WEIGHTS[n].shape) for v, p, n in zip(values, places, "wv", strict=True)]
    made.graph.sparse_initializer.append(sparse[0])
    made.graph.node.insert(0, Node("Constant", [], ["v"], sparse_value=sparse[1]))
    return made


FORMS: dict[str, Callable[[], onnx.ModelProto]] = {
    "initializers": lambda: model(BODY, WEIGHTS),
    "Constant nodes": constant_nodes,
    "inputs with a value, IR 3": lambda: inputs_with_values(3),
    "inputs with a value, IR 8": lambda: inputs_with_values(8),
    "float16 and Cast": halves,
    "standardized weights": standardized,
    "axes as initializer": axes_as_initializer,
    "what nobody reads": unused,
    "a shape from the input": shape_from_input,
    "batch -1": lambda: model(BODY, WEIGHTS, batch=-1),
    "batch 1": lambda: model(BODY, WEIGHTS, batch=1),
    "open sides": lambda: model(BODY, WEIGHTS, side="H"),
    "alpha and beta": lambda: gemm(WEIGHTS["d"], alpha=0.5, beta=2.0),
    "beta 0": lambda: gemm(WEIGHTS["d"], beta=0.0),
    "no bias, alpha": lambda: gemm(None, alpha=3.0),
    "weights not turned": lambda: gemm(WEIGHTS["d"], transB=0, alpha=0.5, beta=2.0),
    "bias (1, 3)": lambda: gemm(numbers(1, 3), beta=2.0),
    "bias (1,)": lambda: gemm(numbers(1)),
    "bias ()": lambda: gemm(np.asarray(numbers(1)[0])),
    "slashes": lambda: named("/features/0/Conv:"),
    "spaces and other scripts": lambda: named("Gewicht für 重み "),
    "an at sign": lambda: named("p2o@plain."),
    "a function of the file": in_a_function,
    "sparse weights": sparse_weights,
    "the long name of the domain": long_domain,
}


def run(data: bytes, count: int) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((count, 3, 16, 16)).astype(np.float32)
    result: np.ndarray = session.run(None, {"x": x})[0]
    return result
