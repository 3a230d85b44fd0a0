"""Runs that start from weights of timm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import nas
from nas.pipeline.pretrained_weights import initial_weights
from search_spaces import Arch, preset

NAME = "mobilenetv2_050"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_run_starts_from_the_weights_of_a_file_and_keeps_its_network(tmp_path: Path) -> None:
    file = tmp_path / "some.safetensors"
    torch.manual_seed(3)
    theirs = timm.create_model(NAME)
    save_file(theirs.state_dict(), file)
    short: dict[str, Any] = {
        "trials": 1, "teacher": "none", "baseline": "none", "latency_from": "estimated", "max_accuracy_drop": 100.0,
        "search_epochs": 0.05, "train_epochs": 0.05, "prune_epochs": 0.05, "learning_rate": 1e-6,
        "stages": "prune", "prune_criterion": "l1", "prune_steps": 1,
    }  # fmt: skip
    result = nas.run(data="digits", init=str(file), out=tmp_path / "run", **short)
    arch = Arch.from_json((tmp_path / "run" / "winner" / "arch.json").read_text())
    side = arch.input_shape[1]
    assert arch == preset(NAME, input_shape=(1, side, side), num_classes=10)
    trained = load_file(tmp_path / "run" / "winner" / "weights.safetensors")
    expected = theirs.state_dict()["conv_head.weight"]
    torch.testing.assert_close(trained["head.conv.weight"], expected, rtol=1e-3, atol=1e-4)
    assert result.metrics["rows"][0]["label"] == "winner"


def test_weights_of_timm_are_downloaded_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    def create(name: str, pretrained: bool) -> nn.Module:
        made.append(pretrained)
        return create_model(name)

    create_model = timm.create_model
    monkeypatch.setattr(timm, "create_model", create)
    name, path = initial_weights(f"timm:{NAME}")
    assert (name, path) == (NAME, cache / "fitnas" / "weights" / f"{NAME}.safetensors")
    assert initial_weights(str(path)) == (NAME, path)
    assert initial_weights(f"timm:{NAME}") == (NAME, path)
    assert made == [True]


def test_without_a_network_a_file_is_asked_for(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: Any, **options: Any) -> nn.Module:
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(ValueError, match=r"cannot be downloaded \(We couldn't connect\); give a file of them instead"):
        initial_weights(f"timm:{NAME}")
    assert not cache.exists()


def test_a_file_that_holds_no_known_network_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="mobilenetv2_100"):
        initial_weights(str(tmp_path / "w.safetensors"))
