"""Files with weights in fewer bits, against numpy and ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.quantization.weight_only.binary import store_binary
from compress.quantization.weight_only.fp16 import store_half
from compress.quantization.weight_only.int4 import store_int4
from compress.weight_codecs.apply_formats import codec_of, store_formats
from compress.weight_codecs.codecs import BINARY, FP16, Int4Codec, quantized_groups
from compress.weight_codecs.onnx_storage import Codec, Weight, weights_of
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.onnx_io.untrusted_file import load_model
from hw_profiles.onnx_io.writer import write_onnx
from search_spaces import preset
from tests.contracts import exported, with_random_statistics

Store = Callable[[bytes], bytes]
STORES: dict[str, Store] = {"half": store_half, "int4": store_int4, "binary": store_binary}
RESNET = write_onnx(preset("resnet8").workload())
SHAPE = (3, 12, 12)


def run(data: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    made: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: images})[0]
    return made


def of_torch() -> bytes:
    """What torch exports: a grouped and a transposed convolution, batch normalization, two linear layers."""
    return exported(with_random_statistics(nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.ConvTranspose2d(16, 10, 2, 2),
        nn.Conv2d(10, 10, 7, groups=5), nn.Conv2d(10, 20, 5, 3), nn.Flatten(), nn.Linear(320, 33), nn.Linear(33, 5),
    )), SHAPE)  # fmt: skip


def of_products(opset: int = 13) -> bytes:
    """An older file: Gemm and MatMul that read weights (in, out), one of them a Constant node, one named twice."""
    generator = np.random.default_rng(3)
    first, second, last = (
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("first", (432, 45)), ("second", (45, 45)), ("last", (45, 6)))
    )
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "first"], ["a"]),
        helper.make_node("Constant", [], ["second"], value=second),
        helper.make_node("MatMul", ["a", "second"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["c"]),
        helper.make_node("MatMul", ["c", "last"], ["y"]),
    ]
    sides = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["N", *SHAPE]), ("y", ["N", 6]))]
    inputs = [
        sides[0],
        helper.make_tensor_value_info("first", TensorProto.FLOAT, [432, 45]),
    ]  # as older files list it
    graph = helper.make_graph(nodes, "g", inputs, sides[1:], [first, last])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString()


def decoded(data: bytes, float_file: bytes) -> dict[str, NDArray[np.float32]]:
    """The stored weights by numpy alone, from the constants of the file and the shapes of the float one."""
    held = {tensor.name: tensor for tensor in onnx.load_model_from_string(data).graph.initializer}
    found = {}
    for weight in weights_of(load_model(float_file).graph):
        name, rows = weight.name, weight.rows
        if f"{name}.half" in held:
            found[name] = numpy_helper.to_array(held[f"{name}.half"]).astype(np.float32)
            continue
        if f"{name}.int4" in held:
            scale = numpy_helper.to_array(held[f"{name}.scale"]).astype(np.float32)
            rows = (numpy_helper.to_array(held[f"{name}.int4"]).astype(np.float32) * scale).reshape(rows.shape)
        elif f"{name}.bits" in held:
            bits = np.unpackbits(numpy_helper.to_array(held[f"{name}.bits"]), bitorder="little")[: rows.size]
            scale = numpy_helper.to_array(held[f"{name}.scale"]).reshape(-1, 1)
            rows = (2.0 * bits.reshape(rows.shape) - 1).astype(np.float32) * scale
        else:
            continue
        found[name] = weight.shaped(rows)
    return found


def with_weights(data: bytes, weights: dict[str, NDArray[np.float32]]) -> bytes:
    model = onnx.load_model_from_string(data)
    for tensor in [*model.graph.initializer, *(n.attribute[0].t for n in model.graph.node if n.op_type == "Constant")]:
        name = tensor.name
        if name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[name], name))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("make", [of_torch, of_products, lambda: RESNET], ids=["torch", "products", "resnet8"])
@pytest.mark.parametrize("kind", STORES)
def test_a_stored_file_computes_with_what_numpy_makes_of_its_constants(kind: str, make: Callable[[], bytes]) -> None:
    data = make()
    stored = STORES[kind](data)
    weights = decoded(stored, data)
    assert len(weights) >= 1
    shape = (3, 32, 32) if data is RESNET else SHAPE
    images = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    expected = run(with_weights(data, weights), images)
    np.testing.assert_allclose(run(stored, images), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected - run(data, images)).max() > 0


def test_half_keeps_the_logits_to_a_thousandth() -> None:
    images = np.random.default_rng(0).standard_normal((8, 3, 32, 32)).astype(np.float32)
    expected = run(RESNET, images)
    assert np.abs(run(store_half(RESNET), images) - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize(("kind", "share"), [("half", 0.5), ("int4", 4.5 / 32), ("binary", 1 / 32)])
def test_files_shrink_as_their_bits_say(kind: str, share: float) -> None:
    """MobileNetV2's pointwise convolutions; what stays float32 is counted with it."""
    data = write_onnx(preset("mobilenetv1_100", input_shape=(3, 64, 64)).workload())
    stored = STORES[kind](data)
    names = decoded(stored, data).keys()
    sizes = {weight.name: weight.value.size for weight in weights_of(load_model(data).graph)}
    there = sum(sizes[name] for name in names)
    assert there > 0.7 * sum(sizes.values())
    assert len(data) - len(stored) == pytest.approx(4 * there * (1 - share), rel=0.02)


@pytest.mark.parametrize("kind", STORES)
def test_onnx_runtime_holds_the_weights_in_float_and_runs_the_same_kernels(kind: str, tmp_path: Path) -> None:
    """So a stored file is smaller, and neither faster nor slower."""

    def nodes(data: bytes) -> tuple[Counter[str], set[int]]:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(tmp_path / "optimized.onnx").graph
        return Counter(node.op_type for node in graph.node), {t.data_type for t in graph.initializer if len(t.dims) > 1}

    assert nodes(STORES[kind](RESNET)) == nodes(RESNET)
    assert nodes(RESNET)[1] == {TensorProto.FLOAT}


def test_int4_rounds_to_the_nearest_of_the_best_of_its_scales() -> None:
    generator = np.random.default_rng(0)
    groups = generator.standard_normal((50, 4, 16)).astype(np.float32)
    integers, scales = quantized_groups(groups)
    assert integers.min() >= -7
    assert integers.max() <= 7
    errors = np.square(groups - integers * scales).sum(2)
    plain = np.abs(groups).max(2, keepdims=True) / 7
    assert errors.mean() < 0.97 * np.square(groups - np.rint(groups / plain) * plain).sum(2).mean()
    for factor in (0.9, 1.1):  # other scales of the neighborhood are no better, but for the steps that are tried
        other = scales * np.float32(factor)
        assert errors.sum() < np.square(groups - np.clip(np.rint(groups / other), -7, 7) * other).sum()


def test_binary_scales_are_those_of_least_squares() -> None:
    rows = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)
    signs = np.where(rows >= 0, 1.0, -1.0)
    best = [np.linalg.lstsq(sign[:, None], row, rcond=None)[0][0] for sign, row in zip(signs, rows, strict=True)]
    np.testing.assert_allclose(BINARY.rounded(rows), signs * np.array(best)[:, None], rtol=1e-5)


@pytest.mark.parametrize("codec", [FP16, BINARY, Int4Codec(16), Int4Codec(5000)], ids=str)
def test_what_lies_on_the_grid_is_stored_exactly(codec: Codec) -> None:
    rows = np.random.default_rng(0).standard_normal((8, 128)).astype(np.float32) * 0.3
    rows[0, :] = 0
    rows[1, 3:] *= np.float32(1e-6)
    once = codec.rounded(rows)
    assert np.array_equal(codec.rounded(once), once)
    assert codec_of(codec.format(128)) is not None


@pytest.mark.parametrize("bits", [16, 4, 1])
def test_a_file_in_the_formats_that_an_artifact_says_computes_the_same(bits: int) -> None:
    codec = {16: FP16, 4: Int4Codec(32), 1: BINARY}[bits]
    float_weights = {weight.name: weight for weight in weights_of(load_model(RESNET).graph)}
    weights = {name: weight.shaped(codec.rounded(weight.rows)) for name, weight in float_weights.items()}
    plain = with_weights(RESNET, weights)
    formats = {name: codec.format(weight.rows.shape[1]) for name, weight in float_weights.items()}
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    stored = store_formats(plain, formats)
    assert np.array_equal(run(stored, images), run(plain, images))
    assert len(stored) < len(plain) * (bits / 32 + 0.1)
    assert store_formats(plain, {"stem.weight": TensorFormat(bits=4, codebook=16)}) == plain


def test_integers_of_4_bits_are_widened_to_8_when_an_int8_file_is_loaded(tmp_path: Path) -> None:
    workload = preset("resnet8").workload()
    weights = {weight.name: weight.value for weight in weights_of(load_model(RESNET).graph)}
    scale = np.abs(weights["stages.2.0.conv2.weight"]).max() / 7
    coarse = np.rint(weights["stages.2.0.conv2.weight"] / scale).astype(np.float32) * np.float32(scale)
    biases = {op.bias_name: np.zeros(op.out_channels, np.float32) for op in workload.ops if op.bias}
    quantization = fixed_quantization(workload)
    scales = {"stages.2.0.conv2.weight": np.full(64, scale, np.float32)}
    given = type(quantization)(activations=quantization.activations, weights=scales)
    data = write_onnx(workload, {**weights, **biases, "stages.2.0.conv2.weight": coarse}, quantization=given)
    stored = store_formats(data, {"stages.2.0.conv2.weight": TensorFormat(bits=4, per_channel=True)})
    assert len(data) - len(stored) == pytest.approx(64 * 64 * 9 / 2, rel=0.02)
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    assert np.array_equal(run(stored, images), run(data, images))
    with pytest.raises(ValueError, match="integers must be within ±7"):
        store_formats(data, {"stages.1.0.conv2.weight": TensorFormat(bits=4, per_channel=True)})


def test_a_row_that_no_byte_ends_with_is_unpacked() -> None:
    weight = Weight("w", np.random.default_rng(0).standard_normal((3, 5, 3, 3)).astype(np.float32))
    stored = BINARY.stored(weight)
    graph = helper.make_graph(
        list(stored.nodes),
        "g",
        [],
        [helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 5, 3, 3])],
        list(stored.constants),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    [made] = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {})
    assert np.array_equal(made, weight.shaped(BINARY.rounded(weight.rows)))


def without_weights() -> bytes:
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", sides[:1], sides[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def altered(value: float) -> bytes:
    weights = {weight.name: weight.value.copy() for weight in weights_of(load_model(RESNET).graph)}
    weights["classifier.weight"][0, 0] = value
    return with_weights(RESNET, weights)


def clashing() -> bytes:
    model = onnx.load_model_from_string(RESNET)
    for tensor in model.graph.initializer:
        if tensor.name == "stem.bias":
            tensor.name = model.graph.node[0].input[2] = "stem.weight.half"
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("store", "said"),
    [
        (lambda: store_half(without_weights()), "the file has no float32 weights of convolutions or linear layers"),
        (lambda: store_binary(without_weights()), "the file has no float32 weights of convolutions or linear layers"),
        (lambda: store_half(altered(1e6)), "within ±65504 to be stored in float16, got 1e"),
        (lambda: store_int4(altered(float("nan"))), "weight 'classifier.weight': every number must be finite"),
        (lambda: store_half(clashing()), "'stem.weight.half': the name is already in use"),
        (lambda: store_int4(RESNET, group=1), "group must be at least 2, got 1"),
        (lambda: store_half(b"nothing"), "not an ONNX file"),
        (lambda: store_formats(RESNET, {"no.weight": TensorFormat(bits=4, group=32)}), "weight no.weight: the file must hold"),
        (lambda: codec_of(TensorFormat(bits=3)), "must be stored in 32, 16"),
    ],
)  # fmt: skip
def test_what_cannot_be_stored_is_refused(store: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        store()


def test_numbers_of_half_and_bfloat16_are_those_of_ml_dtypes() -> None:
    rows = np.float32([[1 + 2**-9, 65504.0, -3e-8, 0.1]])
    assert FP16.rounded(rows).tolist() == rows.astype(np.float16).astype(np.float32).tolist()
    scales = quantized_groups(np.random.default_rng(0).standard_normal((9, 9)).astype(np.float32))[1]
    assert np.array_equal(scales.astype(ml_dtypes.bfloat16).astype(np.float32), scales)
