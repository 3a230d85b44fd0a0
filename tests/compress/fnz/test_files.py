"""Files on disk, coded and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.fnz import files
from compress.fnz.files import decode_file, encode_file
from hw_profiles.onnx_io.writer import write_onnx
from search_spaces import preset

FILE = write_onnx(preset("resnet8").workload())


@pytest.mark.parametrize("as_text", [False, True])
def test_a_file_comes_back(as_text: bool, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(FILE)
    given = [str(tmp_path / n) if as_text else tmp_path / n for n in ("m.onnx", "m.fnz", "again.onnx")]
    encoded = encode_file(given[0], given[1])
    decode_file(given[1], given[2])
    assert (tmp_path / "again.onnx").read_bytes() == FILE
    assert (encoded.onnx_bytes, encoded.fnz_bytes) == (len(FILE), (tmp_path / "m.fnz").stat().st_size)
    assert encoded.ratio == pytest.approx(1.21, abs=0.03)


def test_bytes_are_taken_and_an_earlier_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "m.fnz").write_bytes(b"earlier")
    encode_file(FILE, tmp_path / "m.fnz")
    decode_file(tmp_path / "m.fnz", tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == FILE


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(ValueError, match="m is a folder, expected the name of a file"):
        encode_file(FILE, tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_what_was_good_stays_where_something_fails(tmp_path: Path) -> None:
    encode_file(FILE, tmp_path / "m.fnz")
    decode_file(tmp_path / "m.fnz", tmp_path / "m.onnx")
    good = (tmp_path / "m.fnz").read_bytes()
    (tmp_path / "cut.fnz").write_bytes(good[:-1])
    (tmp_path / "not.onnx").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"cut\.fnz: truncated or damaged \.fnz file: it must have"):
        decode_file(tmp_path / "cut.fnz", tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"not\.onnx: not an ONNX file"):
        encode_file(tmp_path / "not.onnx", tmp_path / "m.fnz")
    with pytest.raises(ValueError, match="the given bytes: not an ONNX file"):
        encode_file(b"hello", tmp_path / "m.fnz")
    for code, there in ((encode_file, "m.fnz"), (decode_file, "m.onnx")):
        with pytest.raises(ValueError, match=r"none: cannot be read \(No such file"):
            code(tmp_path / "none", tmp_path / there)
    assert (tmp_path / "m.fnz").read_bytes() == good
    assert (tmp_path / "m.onnx").read_bytes() == FILE


def test_a_coding_that_does_not_give_the_file_back_is_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "decode_onnx", lambda data: FILE[:-1] + b"\0")
    with pytest.raises(AssertionError):
        encode_file(FILE, tmp_path / "m.fnz")
    assert not (tmp_path / "m.fnz").exists()


def test_files_that_are_too_large_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**31 + 1)
    for code in (encode_file, decode_file):
        with pytest.raises(ValueError, match="must have at most 2147483648 bytes, got 2147483649"):
            code(tmp_path / "large", tmp_path / "out")
