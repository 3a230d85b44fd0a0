"""A small trained network, for all that need one."""

from __future__ import annotations

import os

import pytest
from filelock import FileLock

from compress import Artifact, Context, Recipe, load_data
from compress.training.loop import train
from hw_profiles import load_device
from search_spaces import build_model, preset


@pytest.fixture(scope="session")
def context() -> Context:
    return Context(data=load_data("digits", size=16), device=load_device("host"), measured=False)


@pytest.fixture(scope="session")
def learnt(context: Context, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Trained once for all processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "learnt"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "artifact.json").is_file():
            arch = preset("resnet8", input_shape=(1, 16, 16))
            model = build_model(arch)
            train(model, context.data, Recipe(epochs=6))
            bare = Artifact(source=arch, weights={}, preprocessing=context.data.preprocessing)
            bare.with_model(model).save(folder)
    return Artifact.load(folder)
