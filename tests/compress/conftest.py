"""A small trained network, for all that need one."""

from __future__ import annotations

import pytest

from compress import Artifact, Context, Recipe, load_data
from compress.training.loop import train
from hw_profiles import load_device
from search_spaces import build_model, preset


@pytest.fixture(scope="session")
def context() -> Context:
    return Context(data=load_data("digits", size=16), device=load_device("host"), measured=False)


@pytest.fixture(scope="session")
def learnt(context: Context) -> Artifact:
    arch = preset("resnet8", input_shape=(1, 16, 16))
    model = build_model(arch)
    train(model, context.data, Recipe(epochs=6))
    return Artifact(source=arch, weights={}, preprocessing=context.data.preprocessing).with_model(model)
