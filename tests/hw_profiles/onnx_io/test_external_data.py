"""Weights beside the file: read where they lie in the same folder, refused where they lead elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from compress.fnz import decode_onnx, encode_onnx
from compress.fnz.files import decode_file, encode_file
from hw_profiles.onnx_io.reader import read_onnx
from hw_profiles.onnx_io.untrusted_file import load_model, self_contained
from hw_profiles.onnx_io.writer import write_onnx
from search_spaces import preset

DATA = "weights.bin"


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A file whose weights lie in another one."""
    model = onnx.load_model_from_string(write_onnx(preset("resnet8").workload()))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location=DATA, size_threshold=0)
    return tmp_path / "m.onnx"


def tensors(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_what_lies_beside_the_file_is_read(beside: Path) -> None:
    expected = tensors(onnx.load(beside))
    found = tensors(load_model(beside))
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert read_onnx(beside).weight_count == preset("resnet8").workload().weight_count


def test_encode_keeps_it_and_decode_writes_one_file(beside: Path) -> None:
    expected, x = tensors(onnx.load(beside)), np.ones((1, 3, 32, 32), np.float32)
    before = onnxruntime.InferenceSession(beside).run(None, {"input": x})[0]
    encode_file(beside, beside.with_suffix(".fnz"))
    alone = beside.parent / "elsewhere" / "decoded.onnx"
    decode_file(beside.with_suffix(".fnz"), alone)
    found = tensors(onnx.load(alone))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    np.testing.assert_array_equal(onnxruntime.InferenceSession(alone).run(None, {"input": x})[0], before)


def test_a_file_without_such_weights_stays_byte_for_byte(tmp_path: Path) -> None:
    data = write_onnx(preset("resnet8").workload())
    (tmp_path / "m.onnx").write_bytes(data)
    assert self_contained(tmp_path / "m.onnx") == data
    assert decode_onnx(encode_onnx(data)) == data


def place(path: Path, **entries: str) -> None:
    """What the first tensor says of its place."""
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    kept = {each.key: each.value for each in tensor.external_data}
    del tensor.external_data[:]
    for key, value in {**kept, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "../secret"}, r"must be in a file of the same folder, got '../secret'"),
        ({"location": "/etc/hostname"}, "must be in a file of the same folder"),
        ({"location": ".."}, "must be in a file of the same folder"),
        ({"location": "sub/weights.bin"}, "must be in a file of the same folder"),
        ({"location": "..\\weights.bin"}, "must be in a file of the same folder"),
        ({"location": ""}, "must be in a file of the same folder"),
        ({"location": "missing"}, "which cannot be read"),
        ({"location": "link"}, "which cannot be read"),
        ({"location": "pipe"}, "must be in a regular file"),
        ({"location": "folder"}, "must be in a regular file"),
        ({"offset": "999999999"}, "must have .* bytes at 999999999"),
        ({"offset": "-4"}, "offset must be a number of bytes, got '-4'"),
        ({"length": "4"}, "must have .* bytes"),
        ({"length": "9" * 30}, "length must be a number of bytes"),
    ],
)
def test_other_places_are_refused(beside: Path, entries: dict[str, str], said: str) -> None:
    folder = beside.parent
    (folder / "link").symlink_to(folder / DATA)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    place(beside, **entries)
    with pytest.raises(ValueError, match=said):
        load_model(beside)
    with pytest.raises(ValueError, match=said):
        encode_file(beside, folder / "m.fnz")


def test_more_than_fits_is_refused(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hw_profiles.onnx_io.untrusted_file.LARGEST_FILE", 20_000)
    with pytest.raises(ValueError, match="must have at most 20000 bytes"):
        load_model(beside)


def test_bytes_alone_have_no_folder(beside: Path) -> None:
    with pytest.raises(ValueError, match="weights must be inside the file"):
        load_model(beside.read_bytes())


def test_tensors_in_subgraphs_and_attributes_are_seen(beside: Path) -> None:
    model = onnx.load(beside, load_external_data=False)
    outside = TensorProto(name="hidden", dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="../secret")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["hidden"], value=outside))
    beside.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"'hidden' must be in a file of the same folder"):
        load_model(beside)
