"""What the writer does not know is named before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import QuantFormat, quantize_static

from compress.c99 import verify, write_c99
from hw_profiles.network.quantization import fixed_quantization, with_in_float
from hw_profiles.onnx_io.writer import write_onnx
from search_spaces import preset
from tests.compress.c99.files import _Reader, graph_file, images, network_file
from tests.compress.c99.test_graphs import Draft, Graph


def resized() -> Graph:
    d = Draft(3)
    d.conv("x", "a", (4, 3, 3, 3))
    d.node("Resize", ["a", "", d.constant("scales", np.float32([1, 1, 2, 2]))], "b", mode="cubic")
    d.conv("b", "y", (4, 4, 3, 3))
    return d.graph(6, 6)


def unquantized() -> Graph:
    """A function that reads a convolution before it is quantized."""
    d = Draft(3)
    d.conv("x", "a", (4, 3, 3, 3))
    d.node("Tanh", ["a"], "b")
    d.conv("b", "y", (4, 4, 3, 3))
    return d.graph(6, 6)


def attention() -> Graph:
    d = Draft(4)
    d.conv("x", "a", (4, 4, 1, 1))
    d.node("Reshape", ["a", d.constant("rows", np.array([1, 4, 36]))], "b")
    d.node("Transpose", ["b"], "c", perm=[0, 2, 1])
    d.node("MatMul", [d.constant("left", np.ones((3, 36), np.float32)), "c"], "y")
    return d.graph(6, 6)


def normalized() -> Graph:
    d = Draft(3)
    d.conv("x", "a", (4, 3, 3, 3))
    d.node("LpNormalization", ["a"], "b", axis=1)
    d.conv("b", "y", (4, 4, 3, 3))
    return d.graph(6, 6)


def flattened_output() -> Graph:
    d = Draft(3)
    d.conv("x", "a", (4, 3, 3, 3))
    d.node("Flatten", ["a"], "y")
    return d.graph(6, 6)


def far_apart() -> Graph:
    d = Draft(2)
    d.conv("x", "y", (4, 2, 3, 3), strides=[1, 128])
    return d.graph(4, 300)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (far_apart, "node 'y_node' (Conv): its sizes must be between 0 and 127, got (1, 128, 1, 1)"),
        (resized, "node 'b_node' (Resize): no C99 kernel is known for it but nearest and linear"),
        (attention, "node 'y_node' (MatMul): supported only if exactly the second input is constant"),
        (normalized, "node 'b_node' (LpNormalization): no C99 kernel is known for it"),
    ],
)
def test_an_operation_that_is_not_known_is_named(make: Any, words: str, tmp_path: Path) -> None:
    nodes, weights, shape = make()
    file = graph_file(tmp_path / "model.onnx", nodes, weights, shape)
    with pytest.raises(ValueError, match=_literal(words)):
        write_c99(file, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_float_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(write_onnx(preset("resnet8").workload()))
    with pytest.raises(
        ValueError, match=r"not quantized to 8-bit integers; quantize the model .*, or add QuantizeLinear"
    ):
        write_c99(tmp_path / "model.onnx", tmp_path / "c")


@pytest.mark.parametrize("name", ["stem", "stages.1.0.conv2", "classifier"])
def test_a_network_that_is_in_float_in_part_is_refused(name: str, tmp_path: Path) -> None:
    workload = preset("resnet8").workload()
    mixed = with_in_float(workload, fixed_quantization(workload), [name])
    (tmp_path / "model.onnx").write_bytes(write_onnx(workload, quantization=mixed))
    with pytest.raises(ValueError, match=rf"node '{name}' .* 1 of 10 operations have float weights; .*training .qat"):
        write_c99(tmp_path / "model.onnx", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_integer_operations_are_refused_with_the_format_to_use(tmp_path: Path) -> None:
    nodes, weights, shape = flattened_output()
    graph_file(tmp_path / "model.onnx", nodes, weights, shape)
    file = tmp_path / "operators.onnx"
    quantize_static(tmp_path / "model.float.onnx", file, _Reader(images(shape, 2)), quant_format=QuantFormat.QOperator)
    with pytest.raises(ValueError, match=r"\(QLinearConv\).*quant_format=QDQ"):
        write_c99(file, tmp_path / "c")


@pytest.mark.parametrize(
    ("end", "value", "words"),
    [
        (".weight.zero_point", np.full(3, 3, np.int8), "as many zero points as scales, got 3"),
        (".act.zero_point", np.uint16(7), "8-bit zero point"),
        (".act.scale", np.float32(np.nan), "positive and finite"),
        (".weight.scale", np.full(16, -1, np.float32), "positive and finite"),
        (".weight.scale", np.full(3, 1, np.float32), "one scale or one per output channel"),
    ],
)
def test_formats_that_are_not_known_are_named(end: str, value: Any, words: str, tmp_path: Path) -> None:
    file = network_file(tmp_path / "model.onnx", preset("resnet8"))
    model = onnx.load(file)
    tensor = next(t for t in model.graph.initializer if t.name.startswith("stem") and t.name.endswith(end))
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(model, file)
    with pytest.raises(ValueError, match=words):
        write_c99(file, tmp_path / "c")


def test_a_folder_with_files_is_kept_unless_forced(tmp_path: Path) -> None:
    file = network_file(tmp_path / "model.onnx", preset("resnet8"))
    out = tmp_path / "c"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="already exists and is not empty"):
        write_c99(file, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    write_c99(file, out, force=True)
    assert (out / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_never_taken_for_a_folder(force: bool, tmp_path: Path) -> None:
    file = network_file(tmp_path / "model.onnx", preset("resnet8"))
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"model\.onnx is a file, expected a folder"):
        write_c99(file, file, force=force)
    assert file.read_bytes() == before


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = network_file(tmp_path / "model.onnx", preset("resnet8"))
    write_c99(file, tmp_path / "c")
    monkeypatch.setenv("PATH", str(tmp_path))
    result = verify(tmp_path / "c", file, images((3, 32, 32), 1))
    assert not result.verified
    assert "install gcc" in result.problems[0]
    assert len(result.skipped) == 2
    assert "**unverified**" in (tmp_path / "c" / "README.md").read_text()


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    nodes, weights, shape = flattened_output()
    file = graph_file(tmp_path / "model.onnx", nodes, weights, shape)
    model = onnx.load(file)
    node = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
    node.input[0] = next(n for n in model.graph.node if node.output[0] in n.input).output[0]
    onnx.save(model, file)
    with pytest.raises(ValueError, match="must be made by an earlier node"):
        write_c99(file, tmp_path / "c")


def test_an_unknown_machine_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'cortex-m4'"):
        verify(tmp_path, tmp_path / "model.onnx", images((3, 32, 32), 1), machines=["cortexm4"])


def _literal(text: str) -> str:
    return "".join(f"\\{c}" if c in "()" else c for c in text)
