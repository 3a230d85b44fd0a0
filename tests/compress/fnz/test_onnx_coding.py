"""Files come back byte by byte, smaller than general compressors make them, and near the entropy."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.fnz import decode_onnx, describe, encode_onnx, sizes
from search_spaces import list_presets
from tests.compress.fnz import plain_reader
from tests.compress.fnz.files import (
    CODINGS,
    FIELDS,
    INT8,
    Array,
    W,
    clustered,
    file_of,
    network,
    normal,
    sparse,
    uneven,
    uneven_chances,
)
from tests.parameters import quick


@pytest.mark.parametrize("name", CODINGS)
def test_each_kind_of_tensor_comes_back_in_its_coding(name: str) -> None:
    values, coding = CODINGS[name]
    file = file_of({"w": values})
    coded = encode_onnx(file)
    assert decode_onnx(coded) == file
    first = describe(coded)[0]
    if coding:
        assert (first.name, first.elements) == ("w", values.size)
        assert any(first.coding.startswith(one) for one in coding.split("|")), first
    else:
        assert first.name.startswith("(")


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_comes_back(name: str) -> None:
    file = file_of({"w": FIELDS[name]})
    coded = encode_onnx(file)
    assert decode_onnx(coded) == file == plain_reader.decode(coded)
    cut_out = name not in ("int64_data", "strings")
    assert (describe(coded)[0].name == "w") == cut_out
    if cut_out:
        assert describe(coded)[0].bytes < 0.9 * len(file)


def test_varints_that_are_longer_than_they_need_come_back() -> None:
    """Nothing says that numbers must be written in as few bytes as possible."""
    long = b"".join(bytes([value | 0x80, 0]) for value in range(100))
    file = field(7, onnx.GraphProto(name="g").SerializeToString() + field(5, b"\x10\x02" + field(5, long)))
    assert list(onnx.load_model_from_string(file).graph.initializer[0].int32_data) == list(range(100))
    assert decode_onnx(encode_onnx(file)) == file


def field(number: int, content: bytes) -> bytes:
    size = len(content)
    return bytes([number << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + content


@pytest.mark.parametrize("name", CODINGS)
def test_a_reader_written_after_the_documentation_agrees(name: str) -> None:
    values, _ = CODINGS[name]
    file = file_of({"w": values, "v": values[:3], "b": normal(30), "i": INT8[:4]})
    assert plain_reader.decode(encode_onnx(file)) == file


NETWORKS = ("resnet8", "mobilenetv2_035", "mobilenetv3_small_050", "efficientnet_lite0")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", quick(NETWORKS, ("resnet8", "mobilenetv3_small_050")))
def test_networks_come_back_smaller_than_xz_makes_them(name: str, precision: str) -> None:
    assert name in list_presets()
    file = network(name, precision)
    coded = encode_onnx(file)
    assert decode_onnx(coded) == file
    if len(file) < 2e6:
        found = sizes(file)
        assert len(coded) == found["fnz"] < found["xz"] < found["onnx"]


@pytest.mark.slow
def test_tables_are_those_of_the_documentation_for_a_whole_network() -> None:
    coded = encode_onnx(network("resnet8", "int8"))
    assert plain_reader.decode(coded) == decode_onnx(coded)


def constant(values: Array) -> Any:
    return helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(values))


def in_a_branch(values: Array) -> Any:
    y = helper.make_tensor_value_info("c", TensorProto.FLOAT, None)
    branch = helper.make_graph([constant(values)], "branch", [], [y])
    return helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch)


@pytest.mark.parametrize("node", [constant, in_a_branch])
def test_constants_within_nodes_are_coded_too(node: Any) -> None:
    values = clustered(W, 16)
    file = file_of({}, (node(values),))
    coded = encode_onnx(file)
    assert decode_onnx(coded) == file
    assert [row.elements for row in describe(coded)] == [values.size] * (2 if node is in_a_branch else 1) + [0]


def test_files_of_torch_come_back() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1152, 9)
    )
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.zeros(1, 3, 8, 8),), out, dynamo=False)
    coded = encode_onnx(out.getvalue())
    assert decode_onnx(coded) == out.getvalue()
    assert {"3.weight", "0.weight", "3.bias"} - {row.name for row in describe(coded)} <= {"3.bias"}


def entropy_bytes(values: Array) -> float:
    counts = np.unique(values, return_counts=True)[1]
    return float(counts @ -np.log2(counts / counts.sum())) / 8


LONG: Mapping[str, Array] = {
    "int8": np.clip(np.rint(normal(400, 500) * 40), -127, 127).astype(np.int8),
    "16 values": clustered(normal(400, 500) ** 3, 16)[:, np.random.default_rng(0).permutation(500)],
    "256 values": clustered(normal(400, 500), 256),
    "2 values": np.where(normal(400, 500) > 1, np.float32(1), np.float32(-1)),
    "sparse and shared": sparse(clustered(normal(400, 500), 16), 0.05),
    "int4": np.clip(np.rint(normal(400, 500) * 2), -7, 7).astype(np.int8),
}


@pytest.mark.parametrize("name", LONG)
def test_long_tensors_take_what_their_entropy_says(name: str) -> None:
    """The entropy of numbers that know nothing of each other is as little as any coding can take."""
    coded = describe(encode_onnx(file_of({"w": LONG[name]})))[0].bytes
    values = np.unique(LONG[name]).nbytes if LONG[name].itemsize > 1 else 0
    assert entropy_bytes(LONG[name]) - 50 < coded - values < 1.005 * entropy_bytes(LONG[name]) + 100


def test_zeros_that_lie_unevenly_take_little_more_than_if_their_chances_were_known() -> None:
    """Who does not know the chance of each place must write something of it, or take a seventh more."""
    weights = uneven(clustered(normal(300, 784), 15), 0.03)
    row = describe(encode_onnx(file_of({"w": weights})))[0]
    chances = uneven_chances(300, 784, 0.03)[:, np.arange(784) % 4 > 0]
    places = -(chances * np.log2(chances) + (1 - chances) * np.log2(1 - chances)).sum() / 8
    values = entropy_bytes(weights[weights != 0])
    assert row.bytes - values - 60 < 1.06 * places
    assert entropy_bytes(weights) - values > 1.14 * places


def test_exponents_are_all_that_can_be_saved_of_floats() -> None:
    """23 bits of each are noise, and the sign."""
    weights = normal(300, 400)
    exponents = entropy_bytes(weights.view(np.uint32) >> 23 & 255)
    row = describe(encode_onnx(file_of({"w": weights})))[0]
    assert row.bytes == pytest.approx(3 * weights.size + exponents, rel=0.002)


@pytest.mark.parametrize("clusters", [16, 256])
def test_shared_and_sparse_weights_take_less_than_under_xz(clusters: int) -> None:
    weights = {f"w{i}": sparse(clustered(normal(200, 300, seed=i), clusters), 0.1, seed=i) for i in range(3)}
    found = sizes(file_of(weights))
    assert found["fnz"] < 0.8 * min(found["xz"], found["gzip"])


def test_shared_weights_of_a_network_take_less_than_under_xz() -> None:
    found = sizes(network("resnet8", clusters=16))
    assert found["fnz"] < 0.87 * min(found["xz"], found["gzip"])


def test_short_tensors_share_a_table() -> None:
    """Alone, each would bring one of more than 60 bytes."""
    many = {f"w{i}": np.clip(np.rint(normal(400, seed=i) * 30), -127, 127).astype(np.int8) for i in range(40)}
    coded = encode_onnx(file_of(many))
    rows = describe(coded)
    assert sum(row.bytes for row in rows[:-1]) < entropy_bytes(np.concatenate(list(many.values()))) + 200


def test_what_is_said_of_tensors_adds_up_to_the_file() -> None:
    file = network("mobilenetv3_small_050", "int8")
    coded = encode_onnx(file)
    rows = describe(coded)
    assert sum(row.bytes for row in rows) == len(coded)
    stored = {t.name: t for t in onnx.load_model_from_string(file).graph.initializer}
    for row in rows[:-1]:
        assert row.elements == np.prod(stored[row.name].dims)
    zeros = {name for name in stored if name.endswith(".bias.zero_point") and stored[name].dims[0] < 1000}
    assert zeros
    assert not zeros & {row.name for row in rows}  # as small among the names around them


def test_a_file_that_would_expand_too_much_is_filled_up() -> None:
    file = file_of({"w": np.zeros(2**21, np.float32)})
    coded = encode_onnx(file)
    assert decode_onnx(coded) == file
    assert len(file) / 512 < len(coded) < len(file) / 256
    with pytest.raises(ValueError, match="its checksum is another"):
        decode_onnx(coded[:-1] + b"\1")


def test_the_same_file_gives_the_same_bytes() -> None:
    file = network("resnet8", "int8")
    assert encode_onnx(file) == encode_onnx(file)
