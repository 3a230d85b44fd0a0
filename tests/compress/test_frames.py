"""A network is converted once, at the edge: few files see what the user gave."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import compress
from compress import Artifact, Context, Dataset, Prune, Quantize, load_data, run_stages
from compress.networks.as_artifact import as_artifact
from hw_profiles import load_device
from search_spaces import build_model, preset

ROOT = Path(compress.__file__).parents[1]
PACKAGES = tuple(f"{ROOT / name}/" for name in ("blocks", "hw_profiles", "search_spaces", "compress", "nas"))
ARCH = preset("resnet8", input_shape=(1, 16, 16))
PLAIN = Quantize(calibration="minmax", equalize="none", bias_correction=False, adaround=False, images=16)


def files_that_receive(kind: type, call: Callable[[], Any]) -> set[str]:
    """The files of the packages with a function that such an object is given to during a call."""
    found: set[str] = set()

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGES) and code.co_filename not in found:
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if any(isinstance(frame.f_locals.get(name), kind) for name in names):
                found.add(code.co_filename)

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    return {str(Path(name).relative_to(ROOT)) for name in found}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data("digits").resized(16, 16)


def test_few_files_see_the_module_that_is_quantized(data: Dataset) -> None:
    model = build_model(ARCH).eval()
    files = files_that_receive(type(model), lambda: compress.quantize(model, data, PLAIN))
    assert len(files) <= 12, sorted(files)


def test_few_files_see_the_artifact_of_stages(data: Dataset, tmp_path: Path) -> None:
    artifact, context = as_artifact(ARCH, data), Context(data=data, device=load_device("host"), measured=False)
    stages = [Prune(amount=0.2, recipe=None, criterion="l1"), PLAIN]
    files = files_that_receive(Artifact, lambda: run_stages(artifact, stages, context, tmp_path))
    assert len(files) <= 15, sorted(files)
