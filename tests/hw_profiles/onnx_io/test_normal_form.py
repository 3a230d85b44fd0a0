"""Every legal way to write the same network becomes one form that computes the same, as ONNX Runtime says."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from hw_profiles.errors import InputError
from hw_profiles.onnx_io.reader import read_onnx
from hw_profiles.onnx_io.rewrites.half_precision import in_float32
from hw_profiles.onnx_io.rewrites.normal_form import normal_form
from tests.onnx_forms import BODY, FORMS, MACS, WEIGHTS, Node, held, model, numbers, run


@pytest.mark.parametrize("form", FORMS)
def test_each_form_becomes_plain_and_computes_the_same(form: str) -> None:
    given = FORMS[form]()
    before = given.SerializeToString()
    normal = normal_form(given, input_shape=(3, 16, 16), opset=13)
    count = 1 if form == "batch 1" else 3
    np.testing.assert_allclose(run(normal.SerializeToString(), count), run(before, count), rtol=1e-4, atol=1e-5)
    assert given.SerializeToString() == before
    assert [value.name for value in normal.graph.input] == ["x"]
    kinds = [node.op_type for node in normal.graph.node]
    assert kinds[0] == "Conv"
    assert len(kinds) <= 5 or form == "a shape from the input"
    last = normal.graph.node[-1]
    assert {a.name for a in last.attribute} <= {"transB"}
    used = {name for node in normal.graph.node for name in node.input}
    assert all(tensor.name in used for tensor in normal.graph.initializer)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_read_as_the_same_operations(form: str) -> None:
    workload = read_onnx(FORMS[form]().SerializeToString(), (3, 16, 16))
    assert workload.macs == MACS
    assert workload.weight_count >= 8 * 27 + 8 + 3 * 8


def test_a_bias_for_each_row_is_added_after() -> None:
    nodes = [Node("Gemm", ["x", "v", "d"], ["y"], transB=1, beta=2.0)]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [2, 8]), ("y", [2, 3]))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held({"v": WEIGHTS["v"], "d": numbers(2, 3)}))
    given = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    normal = normal_form(given)
    assert [node.op_type for node in normal.graph.node] == ["Gemm", "Add"]
    x = {"x": numbers(2, 8)}
    got, expected = (
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, x)[0]
        for each in (normal, given)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_operands_that_are_computed_are_scaled_in_the_graph() -> None:
    nodes = [Node("Gemm", ["x", "z", "q"], ["y"], transA=1, alpha=0.5, beta=2.0)]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [4, 2]), ("z", [4, 3]), ("q", [3]))
    ]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])]
    given = helper.make_model(helper.make_graph(nodes, "g", ends, out), opset_imports=[helper.make_opsetid("", 17)])
    given.ir_version = 8
    x = {"x": numbers(4, 2), "z": numbers(4, 3), "q": numbers(3)}
    got, expected = (
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, x)[0]
        for each in (normal_form(given), given)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 17, 21])
def test_every_opset_from_7_on_is_brought_to_13(opset: int) -> None:
    given = model(BODY, WEIGHTS, opset=opset, ir=3 if opset < 9 else 8)
    if opset < 9:
        given.graph.input.extend(
            helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in WEIGHTS.items()
        )
    normal = normal_form(given, opset=13)
    assert normal.opset_import[0].version == max(opset, 13)
    np.testing.assert_allclose(
        run(normal.SerializeToString(), 2), run(given.SerializeToString(), 2), rtol=1e-4, atol=1e-5
    )


class SamePadding(nn.Module):
    """As TensorFlow pads: worked out of the size of the input, in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = [max((-(-side // 2) - 1) * 2 + 3 - side, 0) for side in x.shape[-2:]]
        around = [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2]
        return self.last(torch.relu(self.conv(nn.functional.pad(x, around))).mean((2, 3)))


@pytest.mark.parametrize("opened", [False, True])
def test_padding_that_is_worked_out_in_the_graph_is_constant(opened: bool, tmp_path: Path) -> None:
    axes = {"x": {0: "N", 2: "H", 3: "W"}} if opened else {"x": {0: "N"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            SamePadding().eval(), (torch.zeros(1, 3, 16, 16),), tmp_path / "m.onnx", dynamo=False, opset_version=17,
            input_names=["x"], dynamic_axes=axes,
        )  # fmt: skip
    given = onnx.load(tmp_path / "m.onnx")
    normal = normal_form(given, input_shape=(3, 16, 16))
    assert {node.op_type for node in normal.graph.node} <= {"Pad", "Conv", "Relu", "ReduceMean", "Gemm"}
    np.testing.assert_allclose(
        run(normal.SerializeToString(), 3), run(given.SerializeToString(), 3), rtol=1e-4, atol=1e-5
    )
    assert read_onnx(normal.SerializeToString()).macs == 8 * 8 * 8 * 27 + 24


def test_sizes_that_follow_from_an_open_batch_are_constants() -> None:
    """Those of a Resize, and of a Reshape to the shape of another tensor, as normalizations of groups have it."""
    constants = {"zero": np.array([0]), "two": np.array([2]), "sides": np.array([32, 48]), "flat": np.array([0, 1, -1])}
    nodes = [
        Node("Shape", ["x"], ["shape"]), Node("Slice", ["shape", "zero", "two"], ["first"]),
        Node("Concat", ["first", "sides"], ["sizes"], axis=0), Node("Reshape", ["x", "flat"], ["f"]),
        Node("Reshape", ["f", "shape"], ["x2"]), Node("Resize", ["x2", "", "", "sizes"], ["r"], mode="linear"),
        Node("ReduceMean", ["r"], ["y"], axes=[2, 3], keepdims=0),
    ]  # fmt: skip
    given = model(nodes, constants)
    normal = normal_form(given)
    assert [node.op_type for node in normal.graph.node] == ["Reshape", "Reshape", "Resize", "ReduceMean"]
    for count in (1, 3):
        got = run(normal.SerializeToString(), count)
        np.testing.assert_array_equal(got, run(given.SerializeToString(), count))


def test_equal_weights_are_kept_once() -> None:
    nodes = [*BODY[:2], Node("Conv", ["x", "w2", "b2"], ["c2"]), Node("Add", ["a", "c2"], ["e"])]
    nodes += [Node("GlobalAveragePool", ["e"], ["p"]), *BODY[3:]]
    given = model(nodes, {**WEIGHTS, "w2": WEIGHTS["w"].copy(), "b2": numbers(8)})
    normal = normal_form(given)
    assert sorted(tensor.name for tensor in normal.graph.initializer) == ["b", "b2", "d", "v", "w"]
    np.testing.assert_allclose(run(normal.SerializeToString(), 2), run(given.SerializeToString(), 2), rtol=1e-5)


def test_random_numbers_and_integers_stay_as_they_are() -> None:
    first = [
        Node("RandomNormal", [], ["r"], shape=[1]),
        Node("DequantizeLinear", ["q", "s"], ["w"]),
        Node("Mul", ["d0", "r"], ["d"]),
    ]
    constants = {"q": np.ones((8, 3, 3, 3), np.int8), "s": np.float32(0.1), "b": WEIGHTS["b"], "v": WEIGHTS["v"]}
    kinds = [node.op_type for node in normal_form(model([*first, *BODY], {**constants, "d0": WEIGHTS["d"]})).graph.node]
    assert {"RandomNormal", "DequantizeLinear", "Mul"} <= set(kinds)


def test_a_function_of_functions_that_would_grow_without_end_is_refused() -> None:
    made = model([Node("F30", ["x"], ["c"], domain="mine"), *BODY[1:]], {n: v for n, v in WEIGHTS.items() if n in "vd"})
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    for i in range(31):
        kind, domain = (f"F{i - 1}", "mine") if i else ("Relu", "")
        body = [Node(kind, ["u"], ["t"], domain=domain), Node(kind, ["t"], ["o"], domain=domain)]
        made.functions.append(helper.make_function("mine", f"F{i}", ["u"], ["o"], body, opsets))
    made.opset_import.append(helper.make_opsetid("mine", 1))
    with pytest.raises(ValueError, match="at most 50000 nodes, with its functions it has more"):
        normal_form(made)


@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize(
    ("side", "kernel", "stride", "pad"), [(8, 1, 2, 0), (7, 2, 2, 0), (8, 3, 2, 0), (8, 3, 2, 1), (9, 3, 4, 1)]
)
def test_an_average_pool_that_rounds_up_is_padded(
    side: int, kernel: int, stride: int, pad: int, batch: str | int
) -> None:
    pool = Node(
        "AveragePool", ["x"], ["y"], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, ceil_mode=1
    )
    given = _of_nodes([pool], [batch, 3, side, side])
    (node,) = normal_form(given).graph.node
    assert "ceil_mode" not in {each.name for each in node.attribute}
    x = numbers(2, 3, side, side)
    got, expected = (_session(each).run(None, {"x": x})[0] for each in (normal_form(given), given))
    windows = [max(i * stride - pad, 0) for i in range(expected.shape[2])]
    ends = [min(i * stride - pad + kernel, side) for i in range(expected.shape[2])]
    by_hand = [[x[:, :, a:b, c:d].mean((2, 3)) for c, d in zip(windows, ends, strict=True)]
               for a, b in zip(windows, ends, strict=True)]  # fmt: skip
    np.testing.assert_allclose(got, np.moveaxis(np.float32(by_hand), (0, 1), (2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_an_average_pool_that_counts_its_padding_still_rounds_up() -> None:
    pool = Node(
        "AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1, count_include_pad=1
    )
    (node,) = normal_form(_of_nodes([pool], [1, 3, 8, 8])).graph.node
    assert "ceil_mode" in {each.name for each in node.attribute}


def _of_nodes(nodes: list[onnx.NodeProto], sides: list[str | int]) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", sides), ("y", None))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def _session(given: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(given.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("sides", "places", "said"),
    [((2, 10**6, 10**3), [0], "at most"), ((2, 2), [4], "out of bounds"), ((2, 2), [[0, 5]], "out of bounds|invalid")],
)
def test_sparse_weights_that_are_too_large_or_lie_outside_are_refused(
    sides: tuple[int, ...], places: list[object], said: str
) -> None:
    made = model(BODY, WEIGHTS)
    values = numpy_helper.from_array(np.float32([1]), "sparse")
    made.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.int64(places), "places"), sides)
    )
    with pytest.raises(InputError, match=said):
        normal_form(made)


def test_biases_for_each_row_of_nodes_without_names_are_added_after() -> None:
    nodes = [Node("Gemm", ["x", "v", "d"], ["h"]), Node("Gemm", ["h", "v", "d"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held({"v": numbers(3, 3), "d": numbers(2, 3)}))
    given = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = {"x": numbers(2, 3)}
    got, expected = (_session(each).run(None, x)[0] for each in (normal_form(given), given))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_an_output_of_which_nothing_is_said_has_as_many_axes_as_it_has() -> None:
    given = model(BODY, WEIGHTS)
    given.graph.output[0].type.tensor_type.ClearField("shape")
    normal = normal_form(given)
    onnx.checker.check_model(normal)
    assert len(normal.graph.output[0].type.tensor_type.shape.dim) == 2


def test_floats_of_16_bits_in_a_function_and_in_sparse_weights_are_widened() -> None:
    made = model([BODY[0], Node("Rectified", ["c"], ["a"], domain="mine"), *BODY[2:]], {})
    body = [
        Node("Constant", [], ["zero"], value=numpy_helper.from_array(np.float16([0]))), Node("Max", ["u", "zero"], ["m"]),
        Node("Cast", ["m"], ["wide"], to=TensorProto.FLOAT), Node("Cast", ["wide"], ["o"], to=TensorProto.FLOAT16),
    ]  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    made.functions.append(helper.make_function("mine", "Rectified", ["u"], ["o"], body, opsets))
    made.opset_import.append(helper.make_opsetid("mine", 1))
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    half = {name: value.astype(np.float16) for name, value in WEIGHTS.items()}
    made.graph.initializer.extend(held({name: half[name] for name in "bvd"}))
    places = numpy_helper.from_array(np.arange(half["w"].size), "places")
    values = numpy_helper.from_array(half["w"].reshape(-1), "w")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, half["w"].shape))
    wide = normal_form(in_float32(made)).SerializeToString()
    expected = run(model(BODY, {n: v.astype(np.float32) for n, v in half.items()}).SerializeToString(), 2)
    np.testing.assert_allclose(run(wide, 2), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [7, 9, 10])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("scales", [(2.0, 1.7), (3.0, 1.0), (0.6, 0.75)])
def test_old_files_resize_as_they_did(opset: int, mode: str, scales: tuple[float, float]) -> None:
    """ONNX's converter gives them the coordinates of opset 11."""
    kind = "Resize" if opset == 10 else "Upsample"
    if kind == "Upsample" and min(scales) < 1:
        return  # it makes nothing smaller
    factors = np.float32([1, 1, *scales])
    node = (
        Node(kind, ["x"], ["y"], mode=mode, scales=factors) if opset == 7 else Node(kind, ["x", "s"], ["y"], mode=mode)
    )
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["N", 2, 9, 8]), ("y", None))]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [] if opset == 7 else held({"s": factors}))
    given = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    x = {"x": numbers(2, 2, 9, 8)}
    got, expected = (_session(each).run(None, x)[0] for each in (normal_form(given, opset=21), given))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("given", [{"scales": np.float32([1.5, 2])}, {"sizes": np.array([12, 16])}])
def test_a_resize_of_some_axes_has_factors_for_all(given: dict[str, np.ndarray]) -> None:
    (name, value) = next(iter(given.items()))
    inputs = ["x", "", "f"] if name == "scales" else ["x", "", "", "f"]
    resize = Node("Resize", inputs, ["y"], axes=[3, 2], mode="linear", coordinate_transformation_mode="align_corners")
    made = _of_nodes([resize], ["N", 3, 8, 8])
    made.graph.initializer.extend(held({"f": value}))
    normal = normal_form(made)
    assert "axes" not in {each.name for each in normal.graph.node[0].attribute}
    x = {"x": numbers(2, 3, 8, 8)}
    got, expected = (_session(each).run(None, x)[0] for each in (normal, made))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_a_hardmax_of_old_is_not_converted() -> None:
    made = model(
        [*BODY[:-1], Node("Gemm", ["f", "v", "d"], ["g"], transB=1), Node("Hardmax", ["g"], ["y"])], WEIGHTS, opset=11
    )
    with pytest.raises(InputError, match=r"node 'y' \(Hardmax\): means something else from opset 13 on"):
        normal_form(made, opset=13)
