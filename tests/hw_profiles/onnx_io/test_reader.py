"""ONNX files of others as operations, held against ONNX Runtime and numbers worked out by hand."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from timm.models.vision_transformer import Block
from torch import nn

from hw_profiles.memory.planner import plan
from hw_profiles.network.workload import Workload, WorkloadBuilder
from hw_profiles.onnx_io.constant_folding import fold
from hw_profiles.onnx_io.graph_reader import read_graph
from hw_profiles.onnx_io.reader import read_onnx, read_without_dead_channels
from hw_profiles.onnx_io.rewrites.normal_form import normal_form
from hw_profiles.onnx_io.writer import write_graph, write_onnx
from hw_profiles.runtimes.fusion import fuse


def torch_file(module: nn.Module, shape: tuple[int, ...], opset: int = 20) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (torch.zeros(1, *shape),), buffer, dynamo=False, opset_version=opset)
    return buffer.getvalue()


def file(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    shape: tuple[object, ...] = (1, 3, 8, 8),
    data_type: int = TensorProto.FLOAT,
    opset: int = 21,
) -> bytes:
    """A file from "x" of this shape to "y"."""
    ends = [helper.make_tensor_value_info(n, data_type, s) for n, s in (("x", shape), ("y", None))]
    held = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return data


def kinds(workload: Workload) -> list[str]:
    return [op.kind if op.function == "none" else op.function for op in workload.ops]


def all_shapes(data: bytes) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a run of ONNX Runtime."""
    model = onnx.load_model_from_string(data)
    del model.graph.output[:]
    names = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    value = session.get_inputs()[0]
    image = np.zeros([side if isinstance(side, int) else 1 for side in value.shape], np.float32)
    return {n: a.shape for n, a in zip(names, session.run(names, {value.name: image}), strict=True)}


class Mixed(nn.Module):
    """What the networks of others are made of, beside plain convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 8, (1, 7), stride=(1, 2), padding=(0, 3))
        self.dilated = nn.Conv2d(8, 8, 3, dilation=2, padding=2, groups=2)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.slopes = nn.PReLU(6)
        self.norm = nn.GroupNorm(2, 6)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.slopes(self.up(self.dilated(nn.functional.elu(self.wide(x))))))
        a, b = x.chunk(2, dim=1)
        x = torch.cat([a / 2 - b, nn.functional.interpolate(b, scale_factor=1.0) * b, x], dim=1)
        x = nn.functional.max_pool2d(nn.functional.pad(x, (1, 0, 1, 0), mode="reflect"), 2)
        mean, largest = x.mean(dim=(2, 3)), x.amax(dim=(2, 3))
        return self.fc(torch.softmax(mean, 1) + torch.sqrt(torch.exp(largest)))


def test_shapes_are_those_that_onnx_runtime_makes() -> None:
    data = torch_file(Mixed(), (3, 12, 16))
    workload, runs = read_onnx(data), all_shapes(data)
    named = [op.name for op in workload.ops if not op.name.endswith(".pool")]
    assert {name: workload.shapes[name] for name in named} == {name: runs[name] for name in named}
    assert {"conv_transpose", "prelu", "elu", "concat", "slice", "reduce", "softmax", "exp"} <= {
        *kinds(workload), *(op.kind for op in workload.ops)
    }  # fmt: skip
    assert "other" not in {op.kind for op in workload.ops}


def test_macs_of_windows_of_every_form_by_hand() -> None:
    workload = read_onnx(torch_file(Mixed(), (3, 12, 16)))
    macs = [workload.op_macs(op) for op in workload.ops if op.weight_shape and workload.op_macs(op)]
    assert macs == [8 * 12 * 8 * 3 * 7, 8 * 12 * 8 * 4 * 9, 8 * 12 * 8 * 6 * 4, 12 * 5]
    wide, dilated = workload.ops[0], workload.ops[2]
    assert (wide.kernel_size, wide.stride, wide.padding) == ((1, 7), (1, 2), (0, 3, 0, 3))
    assert (dilated.dilation, dilated.groups) == ((2, 2), 2)


def test_convolutions_along_one_axis() -> None:
    module = nn.Sequential(nn.Conv1d(3, 4, 5, stride=2, padding=2), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten())
    workload = read_onnx(torch_file(module, (3, 16)))
    assert (workload.macs, kinds(workload)) == (4 * 8 * 15, ["conv", "relu", "flatten"])
    assert (workload.ops[0].kernel_size, workload.ops[0].padding) == ((1, 5), (0, 2, 0, 2))


@pytest.mark.parametrize("opset", [13, 17, 20])
def test_normalization_and_gelu_are_one_operation_in_every_opset(opset: int) -> None:
    """Before opset 17 exporters write layer normalization as nine nodes, before 20 GELU as five."""
    module = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))
    workload = read_onnx(torch_file(module, (5, 8), opset))
    assert kinds(workload) == ["layer_norm", "linear", "gelu", "linear"]
    assert workload.weight_count >= 8 * 16 + 16 + 16 * 4 + 4
    assert workload.macs == 5 * (8 * 16 + 16 * 4)


def test_attention() -> None:
    block = Block(16, 2, mlp_ratio=2, qkv_bias=True)
    block.attn.fused_attn = False
    workload = read_onnx(torch_file(block, (6, 16)))
    projections, products = 6 * 16 * (48 + 16 + 32 + 32), 2 * 2 * 6 * 6 * 8
    assert workload.macs == projections + products
    assert Counter(kinds(workload))["matmul"] == 2
    assert Counter(kinds(workload))["layer_norm"] == 2


def test_normalization_is_folded_after_a_convolution_and_stands_alone_before_one() -> None:
    weights = {"w": np.ones((4, 3, 1, 1), np.float32), "v": np.ones((2, 4, 1, 1), np.float32)}
    for i, channels in ((0, 4), (1, 2), (2, 2)):
        weights |= {f"{n}{i}": np.ones(channels, np.float32) for n in "smvb"}
    norm = lambda x, y, i: helper.make_node("BatchNormalization", [x, *(f"{n}{i}" for n in "sbmv")], [y])  # noqa: E731
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]), norm("c", "n", 0), helper.make_node("Conv", ["n", "v"], ["d"]),
        helper.make_node("Relu", ["d"], ["r"]), norm("d", "m", 1), helper.make_node("Add", ["r", "m"], ["y"]),
    ]  # fmt: skip
    workload = read_onnx(file(nodes, weights))
    assert kinds(workload) == ["conv", "conv", "relu", "affine", "add"]
    assert [op.normalized for op in workload.ops[:2]] == [True, False]
    assert workload.ops[0].bias
    assert not workload.ops[1].bias
    assert workload.ops[1].inputs == ("c",)


def test_zeros_around_an_image_belong_to_the_convolution_and_other_pads_stand_alone() -> None:
    weights = {"w": np.ones((4, 3, 3, 3), np.float32), "p": np.array([0, 0, 0, 1, 0, 0, 1, 1])}
    conv = helper.make_node("Conv", ["padded", "w"], ["y"], pads=[1, 0, 0, 0])
    for mode, expected, padding in (
        ("constant", ["conv"], (1, 1, 1, 1)),
        ("reflect", ["reflect", "conv"], (1, 0, 0, 0)),
    ):
        workload = read_onnx(file([helper.make_node("Pad", ["x", "p"], ["padded"], mode=mode), conv], weights))
        assert kinds(workload) == expected
        assert workload.ops[-1].padding == padding
        assert workload.shapes["y"] == (1, 4, 8, 8)


def test_arithmetic_on_shapes_leaves_no_operation() -> None:
    class Tokens(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, c, h, w = x.shape
            y = nn.functional.interpolate(x, size=(h * 2, w + 3), mode="bilinear")
            return y.reshape(n, c, -1).transpose(1, 2)

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"x": {0: "n", 2: "h", 3: "w"}}
        torch.onnx.export(
            Tokens(), (torch.zeros(1, 3, 8, 8),), buffer, dynamo=False, input_names=["x"], dynamic_axes=axes
        )
    assert len(onnx.load_model_from_string(buffer.getvalue()).graph.node) > 10
    workload = read_onnx(buffer.getvalue(), (3, 6, 4))
    assert kinds(workload) == ["resize", "reshape", "transpose"]
    assert workload.shapes[workload.output] == (1, 12 * 7, 3)


def test_operations_that_nobody_knows_are_named_and_counted() -> None:
    nodes = [
        helper.make_node("Whirl", ["x"], ["a"], domain="mine"),
        helper.make_node("Det", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    model = onnx.load_model_from_string(file(nodes))
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 3, 8, 8]))
    workload = read_onnx(model.SerializeToString())
    assert [(op.kind, op.function) for op in workload.ops] == [
        ("other", "Whirl"),
        ("other", "Det"),
        ("activation", "relu"),
    ]
    with pytest.raises(ValueError, match=r"node 'a' \(Whirl\): the shape of 'a' cannot be inferred from the file"):
        read_onnx(file(nodes))


def test_control_flow_is_refused_with_the_node() -> None:
    """What lies in a branch would count as nothing."""
    value = helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 3, 8, 8])
    branches = [
        helper.make_graph([helper.make_node(kind, ["kept"], ["r"])], kind, [], [value]) for kind in ("Exp", "Sqrt")
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["kept"]),
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["yes"], to=TensorProto.BOOL),
        helper.make_node("If", ["yes"], ["y"], then_branch=branches[0], else_branch=branches[1], name="choice"),
    ]
    with pytest.raises(ValueError, match=r"node 'choice' \(If\): control flow and sequences are not followed"):
        read_onnx(file(nodes))
    with pytest.raises(ValueError, match=r"node 's' \(SequenceConstruct\): control flow and sequences"):
        read_onnx(
            file(
                [
                    helper.make_node("SequenceConstruct", ["x"], ["s"]),
                    helper.make_node("SequenceAt", ["s", "i"], ["y"]),
                ],
                {"i": np.int64(0)},
            )
        )


class Images(CalibrationDataReader):
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        generator = np.random.default_rng(0)
        self.left = [{name: generator.standard_normal((1, *shape)).astype(np.float32)} for _ in range(2)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.body = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.cat([x + self.body(x), torch.sigmoid(x)], dim=1)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("layout", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("activations", [QuantType.QInt8, QuantType.QUInt8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_files_that_onnx_runtime_quantized(
    tmp_path: Path, layout: QuantFormat, activations: QuantType, per_channel: bool
) -> None:
    (tmp_path / "f.onnx").write_bytes(torch_file(Small(), (3, 8, 8)))
    images = Images(onnx.load(tmp_path / "f.onnx").graph.input[0].name, (3, 8, 8))
    quantize_static(
        tmp_path / "f.onnx", tmp_path / "q.onnx", images, quant_format=layout, per_channel=per_channel,
        activation_type=activations, weight_type=QuantType.QInt8,
    )  # fmt: skip
    plain, read = read_onnx(tmp_path / "f.onnx"), read_onnx(tmp_path / "q.onnx")
    fused = Counter(kind for kind in kinds(plain) if kind != "relu")  # the quantizer takes the ReLU into the range
    assert Counter(kind for kind in kinds(read) if kind != "relu") == fused
    assert read.macs == plain.macs
    assert read.weight_count == plain.weight_count
    assert read.format(read.input).bits == 8
    for op in read.ops:
        assert read.format(op.name).bits == 8, op
        assert read.format(op.name).signed == (activations == QuantType.QInt8)
        if op.kind in ("conv", "linear"):
            assert (read.format(op.weight).bits, read.format(op.weight).signed) == (8, True)
    assert read.format(read.ops[0].weight).per_channel == per_channel


@pytest.mark.parametrize(
    ("data_type", "bits", "signed"),
    [
        (TensorProto.INT4, 4, True),
        (TensorProto.UINT4, 4, False),
        (TensorProto.INT16, 16, True),
        (TensorProto.INT8, 8, True),
    ],
)
def test_weights_of_other_widths(data_type: int, bits: int, signed: bool) -> None:
    model = onnx.load_model_from_string(
        file(
            [
                helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0),
                helper.make_node("Conv", ["x", "w"], ["y"]),
            ],
            {"s": np.ones(4, np.float32)},
        )
    )
    model.graph.initializer.append(helper.make_tensor("q", data_type, [4, 3, 3, 3], np.ones(108, np.int32)))
    workload = read_onnx(model.SerializeToString())
    found = workload.format("y.weight")
    assert (found.bits, found.signed, found.per_channel) == (bits, signed, True)
    assert workload.weight_bytes == 108 * bits // 8 + 4 * 4


def test_half_precision() -> None:
    weight = np.ones((4, 3, 3, 3), np.float16)
    data = file([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight}, data_type=TensorProto.FLOAT16)
    workload = read_onnx(data)
    assert (workload.weight_bytes, workload.tensor_bytes("x"), workload.tensor_bytes("y")) == (216, 384, 4 * 36 * 2)
    assert workload.format("y").floating


def test_sides_that_are_open_are_asked_for_and_those_that_are_fixed_hold() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    with pytest.raises(ValueError, match=r"input 'x' has dynamic dimensions, 3x\?x\?; .*--input-shape 3x224x224"):
        read_onnx(file(nodes, shape=("n", 3, "h", "w")))
    assert read_onnx(file(nodes, shape=("n", 3, "h", "w")), (3, 5, 7)).shapes["y"] == (1, 3, 5, 7)
    with pytest.raises(ValueError, match=r"has the dimensions 3x8x8, but input_shape is 3x9x8"):
        read_onnx(file(nodes), (3, 9, 8))
    assert read_onnx(file(nodes, shape=(4, 3, 8, 8))).shapes["y"] == (4, 3, 8, 8)
    assert read_onnx(file(nodes, shape=(-1, 3, -1, -1)), (3, 5, 7)).shapes["y"] == (1, 3, 5, 7)


def test_nodes_that_no_output_needs_cost_nothing() -> None:
    nodes = [helper.make_node("Exp", ["x"], ["unread"]), helper.make_node("Relu", ["x"], ["y"])]
    assert kinds(read_onnx(file(nodes))) == ["relu"]


def test_a_tensor_that_is_an_output_too_stays() -> None:
    weights = {"w": np.ones((4, 3, 1, 1), np.float32)} | {n: np.ones(4, np.float32) for n in "smvb"}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *"sbmv"], ["y"]),
    ]
    model = onnx.load_model_from_string(file(nodes, weights))
    model.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, None))
    assert kinds(read_onnx(model.SerializeToString())) == ["conv", "affine"]


def test_pads_that_are_put_together_of_pieces_are_followed() -> None:
    """As converters from TensorFlow write them: split, and joined in another order."""
    nodes = [
        helper.make_node("Split", ["sides"], ["a", "b", "c", "d"], num_outputs=4),
        helper.make_node("Concat", ["a", "c", "b", "d"], ["pads"], axis=0),
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["y"]),
    ]
    sides = np.int64([0, 0, 0, 0, 1, 2, 3, 4])
    workload = read_onnx(file(nodes, {"sides": sides, "w": np.zeros((4, 3, 3, 3), np.float32)}))
    assert workload.shapes["y"] == (1, 4, 8 + 1 + 3 - 2, 8 + 2 + 4 - 2)


def test_numbers_that_are_worked_out_keep_their_type() -> None:
    """A Range of float32 is float32, whatever numpy makes of it."""
    nodes = [
        helper.make_node("Range", ["zero", "end", "one"], ["r"]),
        helper.make_node("Pow", ["r", "two"], ["s"]),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    held = {"zero": np.float32(0), "end": np.float32(8), "one": np.float32(1), "two": np.int64(2)}
    given = file(nodes, held)
    folded = normal_form(onnx.load_model_from_string(given)).graph.initializer
    assert [(each.name, each.data_type) for each in folded] == [("s", TensorProto.FLOAT)]
    assert read_onnx(given).shapes["y"] == (1, 3, 8, 8)


def test_a_bias_of_integers_may_be_worked_out_of_the_input() -> None:
    """As dynamic quantization scales it by what the input is scaled by."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("ConvInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Div", ["b", "s"], ["scaled"]),
        helper.make_node("Cast", ["scaled"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Add", ["i", "whole"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    held = {"w": np.ones((4, 3, 3, 3), np.int8), "b": np.ones((1, 4, 1, 1), np.float32)}
    assert read_onnx(file(nodes, held)).macs == 4 * 27 * 36


def test_operations_for_which_onnx_has_no_rule_of_shape() -> None:
    """Some of them as ONNX Runtime writes them when it optimizes a file."""
    nodes = [
        helper.make_node("GroupNormalization", ["x", "g", "b"], ["n"], num_groups=3),
        helper.make_node("MeanVarianceNormalization", ["n"], ["m"]),
        helper.make_node("Gelu", ["m"], ["u"], domain="com.microsoft"),
        helper.make_node("FusedConv", ["u", "w"], ["y"], domain="com.microsoft", activation="Relu"),
    ]
    held = {"g": np.ones(3, np.float32), "b": np.zeros(3, np.float32), "w": np.ones((4, 3, 3, 3), np.float32)}
    workload = read_onnx(file(nodes, held))
    assert (workload.shapes["y"], workload.macs) == ((1, 4, 6, 6), 36 * 4 * 27)


@pytest.mark.parametrize(
    ("kind", "held"),
    [
        ("Slice", {"from": np.int64([-1]), "to": np.int64([-99]), "axis": np.int64([3]), "step": np.int64([-1])}),
        ("Pad", {"pads": np.int64([0, 0, 0, 1, 0, 0, 0, -1])}),
    ],
)
def test_what_keeps_the_shape_may_move_numbers(kind: str, held: dict[str, np.ndarray]) -> None:
    """Backwards, as the second direction of a recurrent network reads, or sideways."""
    nodes = [helper.make_node(kind, ["x", *held], ["t"]), helper.make_node("Conv", ["t", "w"], ["y"])]
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    given = file(nodes, {**held, "w": weight})
    written = write_graph(read_graph(given))
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    before, after = (onnxruntime.InferenceSession(each).run(None, {"x": x})[0] for each in (given, written))
    np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-4)


def test_operations_of_others_that_are_called_as_onnx_s_own_are_not_these() -> None:
    """Of them nothing is worked out or left out."""
    makes = helper.make_node
    same = file([makes("Identity", ["x"], ["z"], domain="mine"), makes("Relu", ["z"], ["y"])])
    model = onnx.load_model_from_string(same)
    model.graph.value_info.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3, 8, 8]))
    assert kinds(read_onnx(model.SerializeToString())) == ["Identity", "relu"]
    joined = file(
        [makes("Concat", ["a", "b"], ["s"], domain="mine", axis=0), makes("Reshape", ["x", "s"], ["y"])],
        {"a": np.array([1, 3]), "b": np.array([64])},
    )
    model = onnx.load_model_from_string(joined)
    model.graph.value_info.append(helper.make_tensor_value_info("s", TensorProto.INT64, [3]))
    with pytest.raises(ValueError, match=r"node 'y' \(Reshape\): the shape of 'y' cannot be inferred"):
        read_onnx(model.SerializeToString())


def test_a_mask_that_is_read_is_made() -> None:
    nodes = [helper.make_node("Dropout", ["x"], ["d", "mask"]), helper.make_node("Where", ["mask", "d", "x"], ["y"])]
    assert [op.name for op in read_onnx(file(nodes)).ops] == ["d", "mask", "y"]


@pytest.mark.parametrize("first", [False, True])
def test_macs_of_a_product_with_constant_matrices(first: bool) -> None:
    shape, names = ((1, 5, 4), ["w", "x"]) if first else ((1, 6, 5), ["x", "w"])
    weight = np.zeros((1, 6, 5), np.float32) if first else np.zeros((1, 5, 4), np.float32)
    assert read_onnx(file([helper.make_node("MatMul", names, ["y"])], {"w": weight}, shape)).macs == 6 * 5 * 4


def test_images_with_the_channels_last_are_refused() -> None:
    constants = {
        "s": np.float32(0.1), "z": np.uint8(0), "w": np.ones((4, 3, 1, 1), np.uint8),
    }  # fmt: skip
    inputs = ["x", "s", "z", "w", "s", "z", "s", "z"]
    node = helper.make_node("QLinearConv", inputs, ["y"], domain="com.microsoft", channels_last=1)
    with pytest.raises(ValueError, match=r"node 'y' \(QLinearConv\): images with the channels last"):
        read_onnx(file([node], constants, (1, 8, 8, 3), TensorProto.UINT8))


def test_an_input_of_which_nothing_is_said_has_the_sides_that_are_given() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    model = onnx.load_model_from_string(file(nodes, {"w": np.zeros((4, 3, 3, 3), np.float32)}))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    given = model.SerializeToString()
    assert read_onnx(given, (3, 8, 8)).macs == 6 * 6 * 4 * 27
    assert read_graph(given, (3, 8, 8)).inputs[0].shape == (None, 3, 8, 8)
    with pytest.raises(ValueError, match="input 'x' says nothing of its dimensions; specify them"):
        read_onnx(given)


@pytest.mark.parametrize(
    ("kind", "values", "attributes"),
    [
        ("Mod", [np.array([-7, 7, 5]), np.array([3, -3, 3])], {}),
        ("Mod", [np.array([-7, 7, 5]), np.array([3, -3, 3])], {"fmod": 1}),
        ("Slice", [np.arange(8).reshape(1, 8), np.array([-1]), np.array([-4]), np.array([1]), np.array([-1])], {}),
    ],
)
def test_small_numbers_are_worked_out_as_onnx_runtime_does(
    kind: str, values: list[np.ndarray], attributes: dict[str, object]
) -> None:
    names = [f"i{i}" for i in range(len(values))]
    ends = [helper.make_tensor_value_info(n, TensorProto.INT64, v.shape) for n, v in zip(names, values, strict=True)]
    out = [helper.make_tensor_value_info("y", TensorProto.INT64, None)]
    graph = helper.make_graph([helper.make_node(kind, names, ["y"], **attributes)], "g", ends, out)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, dict(zip(names, values, strict=True)))[0]
    (found,) = fold(kind, values, attributes, [expected.shape])
    np.testing.assert_array_equal(found, expected)


def two_heads() -> tuple[bytes, bytes]:
    """A network whose first convolution is read by the caller, too, and by a head of its own; and the one head alone."""
    builder = WorkloadBuilder("input", (1, 3, 16, 16))
    first = builder.conv("first", "input", 16, kernel_size=3)
    wide = builder.activation("act", builder.conv("wide", first, 64, kernel_size=1), "relu")
    alone = write_onnx(builder.build(builder.conv("last", wide, 64, kernel_size=1)))
    model = onnx.load_model_from_string(alone)
    weight = np.random.default_rng(0).standard_normal((8, 16, 1, 1)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "head.weight"))
    model.graph.node.append(helper.make_node("Conv", ["first", "head.weight"], ["head"]))
    for name, channels in (("first", 16), ("head", 8)):
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, 16, 16]))
    return model.SerializeToString(), alone


def test_every_output_is_computed_and_kept_to_the_end() -> None:
    both, alone = two_heads()
    found = read_onnx(both)
    assert (found.output, found.further_outputs) == ("last", ("first", "head"))
    assert found.macs - read_onnx(alone).macs == 8 * 16 * 16 * 16
    for runtime in ("ort", "c99"):
        peaks = [plan(each, fuse(each, runtime), runtime).peak_bytes for each in (found, read_onnx(alone))]
        assert peaks[0] - peaks[1] >= 4 * 16 * 16 * 16
    assert read_without_dead_channels(both).macs == found.macs
