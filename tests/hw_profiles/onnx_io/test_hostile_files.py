"""ONNX files that were damaged or made to do harm: one clear line, in little time and memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io import untrusted_file
from hw_profiles.onnx_io.reader import read_onnx
from hw_profiles.onnx_io.untrusted_file import load_model
from hw_profiles.onnx_io.writer import write_onnx
from search_spaces import preset
from tests.parameters import quick, slow

HUGE = 2**40


def file(
    nodes: list[onnx.NodeProto], constants: dict[str, object] | None = None, shape: tuple[int, ...] = (1, 3, 8, 8)
) -> bytes:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", None))]
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    data: bytes = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    return data


def node(kind: str, inputs: str = "x", outputs: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def with_tensor(**fields: object) -> bytes:
    """A convolution whose weights say these things of themselves."""
    model = onnx.load_model_from_string(file([node("Conv", "x w")]))
    model.graph.initializer.append(TensorProto(**{"name": "w", "data_type": TensorProto.FLOAT, **fields}))
    data: bytes = model.SerializeToString()
    return data


def nested(depth: int) -> bytes:
    inner = node("Relu")
    for _ in range(depth):
        branch = helper.make_graph([inner], "b", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
        inner = node("If", "x", "y", then_branch=branch, else_branch=helper.make_graph([], "e", [], []))
    return file([inner])


WEIGHT = np.zeros((4, 3, 3, 3), np.float32)
BOMBS = {
    "weights of a terabyte in four bytes": (with_tensor(dims=[HUGE], raw_data=b"1234"), "must have at most 2147483648 bytes"),
    "products that overflow": (with_tensor(dims=[2**32, 2**32, 2**32], raw_data=b"1234"), "must have at most 2147483648"),
    "weights that are not there": (with_tensor(dims=[4, 3, 3, 3], raw_data=b"1234"), "must hold 432 bytes, got 4"),
    "no weights at all": (with_tensor(dims=[4, 3, 3, 3]), "must hold 108 numbers, and does not"),
    "negative sides": (with_tensor(dims=[4, -3, 3, 3], raw_data=b"1234"), "every side must be at least 0"),
    "a type that does not exist": (with_tensor(dims=[4], data_type=99, raw_data=b"1"), "element types must be ONNX's"),
    "a million axes": (with_tensor(dims=[1] * 10**6, raw_data=b"1234"), "must have at most 16 axes"),
    "an image of a million squared": (file([node("Relu")], shape=(1, 3, 10**6, 10**6)), "got the shape"),
    "pads of a billion": (file([node("Conv", "x w", pads=[10**9] * 4)], {"w": WEIGHT}), "got the shape"),
    "pads beyond numbers": (file([node("Conv", "x w", pads=[2**63 - 1] * 4)], {"w": WEIGHT}), "overflow"),
    "strides of nothing": (file([node("Conv", "x w", strides=[0, 0])], {"w": WEIGHT}), "positive"),
    "a window larger than the image": (file([node("Conv", "x w")], {"w": np.zeros((4, 3, 9, 9), np.float32)}), "'y'"),
    "expand": (file([node("Expand", "x s")], {"s": [HUGE, 3, 8, 8]}), "got the shape"),
    "tile": (file([node("Tile", "x s")], {"s": [HUGE] * 4}), "got the shape"),
    "resize": (file([helper.make_node("Resize", ["x", "", "s"], ["y"])], {"s": np.array([1, 1, 1e30, 2], np.float32)}), "at least 0"),
    "a constant of a shape": (
        file([node("ConstantOfShape", "s", "c"), node("Add", "x c")], {"s": [HUGE, HUGE]}), "at most 2147483648 bytes"
    ),
    "a range": (
        file([node("Range", "a b d", "c"), node("Cast", "c", "f", to=1), node("Add", "x f")],
             {"a": np.int64(0), "b": np.int64(2**62), "d": np.int64(1)}), "at most 2147483648 bytes"
    ),
    "a split into billions": (file([node("Split", num_outputs=2**31, axis=1)]), "num_outputs must be 1"),
    "doubling a shape": (
        file([node("Shape", "x", "s0"), *(node("Concat", f"s{i} s{i}", f"s{i + 1}", axis=0) for i in range(60)),
              node("Expand", "x s60")]), "at most 2147483648 bytes"
    ),
    "a cycle": (file([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b")]), "made by an earlier node"),
    "a tensor that nobody makes": (file([node("Add", "x ghost")]), "input 'ghost' must be made by an earlier node"),
    "a tensor made twice": (file([node("Relu", "x", "y"), node("Exp", "x", "y")]), "'y' is made twice"),
    "an output that nobody makes": (file([node("Relu", "x", "z")]), "output 'y' must be made"),
    "an output without its input": (file([node("Relu", "c")], {"c": np.ones(3, np.float32)}), "output 'y' does not depend on the input"),
    "nothing to read": (file([helper.make_node("Relu", [], ["y"])]), "Relu"),
    "attributes of another type": (file([node("MaxPool", kernel_shape=b"ab")]), "'y' \\(MaxPool\\)"),
    "a concatenation along no axis": (file([node("Concat", "x x", axis=70)]), "axis must be in"),
    "deep nesting": (nested(30), "not an ONNX file"),
    "control characters in names": (file([node("Add", "x a\x1b[2J\nb")]), r"input 'a\\x1b\[2J'"),
    "no bytes": (b"", "not an ONNX model"),
    "other bytes": (b"PK\x03\x04" * 100, "not an ONNX file"),
}  # fmt: skip


@pytest.mark.parametrize("name", quick(BOMBS, BOMBS.keys() - {"a million axes"}))
def test_harm_is_refused_in_one_line(name: str) -> None:
    data, said = BOMBS[name]
    start = time.perf_counter()
    with pytest.raises(ValueError, match=said) as caught:
        read_onnx(data)
    assert time.perf_counter() - start < 30
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 600


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "weights.bin"])
def test_weights_outside_the_file_are_refused_and_named(location: str) -> None:
    model = onnx.load_model_from_string(file([node("Conv", "x w")], {"w": WEIGHT}))
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    with pytest.raises(ValueError, match=r"weights must be inside the file, 'w' are not"):
        read_onnx(model.SerializeToString())


def test_weights_outside_the_file_are_found_in_constants_of_branches_too() -> None:
    tensor = TensorProto(name="t", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    branch = helper.make_graph([node("Constant", "", "c", value=tensor)], "b", [], [])
    data = file([node("If", "x", "y", then_branch=branch, else_branch=branch)])
    with pytest.raises(ValueError, match="weights must be inside the file"):
        load_model(data)


def varint(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


MANY = {
    "nodes": field(7, field(1, b"") * 10**6 + field(11, field(1, b"x")) + field(12, field(1, b"y"))),
    "objects in few bytes": field(7, field(1, field(5, b"") * 10**7)),
}


@pytest.mark.parametrize("name", quick(MANY, {"nodes"}))
def test_millions_of_objects_take_little_time_and_memory(name: str, tmp_path: Path) -> None:
    """Parsed as they are, ten million empty attributes in 20 MB take gigabytes."""
    (tmp_path / "many.onnx").write_bytes(MANY[name])
    code = (
        "import resource, sys; from pathlib import Path; from hw_profiles.onnx_io.reader import read_onnx\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_onnx(Path(sys.argv[1]))\n"
        "except ValueError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "many.onnx"], capture_output=True, text=True, check=True, timeout=60
    )
    *message, kilobytes = done.stdout.splitlines()
    assert len(message) == 1
    assert "must have at most" in message[0]
    assert int(kilobytes) < 400_000
    assert time.perf_counter() - start < 60


def test_as_many_nodes_as_are_allowed_are_read_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted_file, "MOST_NODES", 3000)
    names = ["x", *(f"t{i}" for i in range(2999)), "y"]
    nodes = [node("Relu", a, b) for a, b in pairwise(names)]
    start = time.perf_counter()
    assert len(read_onnx(file(nodes)).ops) == 3000
    assert time.perf_counter() - start < 30
    with pytest.raises(ValueError, match="at most 3000 nodes, got 3001"):
        read_onnx(file([*nodes, node("Relu", "y", "z")]))


@pytest.mark.parametrize("precision", [slow("fp32"), "int8"])
def test_damaged_files_are_read_or_refused_and_nothing_else(precision: str) -> None:
    workload = preset("mobilenetv3_small_100" if precision == "fp32" else "resnet8").workload()
    whole = write_onnx(workload, quantization=fixed_quantization(workload) if precision == "int8" else None)
    generator = np.random.default_rng(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = []
    for i in range(300):
        data = bytearray(whole[: generator.integers(1, len(whole))] if i % 4 == 0 else whole)
        structure = len(whole) if i % 2 else 20_000  # nodes stand before weights
        for place in generator.integers(0, min(len(data), structure), generator.integers(1, 6)):
            data[place] = generator.integers(256)
        try:
            read_onnx(bytes(data))
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 50
    assert all(message.isprintable() for message in said)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
