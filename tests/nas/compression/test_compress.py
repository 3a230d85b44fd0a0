"""``nas compress``: a network, images and a tolerance in, one verified smaller file out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from torch import nn

import nas
from compress import Artifact, Recipe, decode, load_data
from compress.networks.onnx_export import export_onnx
from compress.stages.plan_file import read_plan
from compress.training.loop import train
from hw_profiles.network.quantization import fixed_quantization
from nas.commands.main import main
from search_spaces import build_model, preset

QUICK = {"latency_from": "estimated", "stage_epochs": 0.1, "data": "digits", "size": 16}
INT8 = (
    '[[stages]]\nname = "int8"\ncalibration = "minmax"\nequalize = "none"\nbias_correction = false\nadaround = false\n'
)


@pytest.fixture(scope="module")
def learnt() -> Artifact:
    data = load_data("digits", size=16)
    arch = preset("resnet8", input_shape=(1, 16, 16))
    model = build_model(arch)
    train(model, data, Recipe(epochs=4))
    return Artifact(source=arch, weights={}, preprocessing=data.preprocessing).with_model(model)


@pytest.fixture(scope="module")
def file(learnt: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained network as an ONNX file, which is compressed without training."""
    path = tmp_path_factory.mktemp("given") / "model.onnx"
    export_onnx(learnt, path)
    return path


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    path.write_text(INT8)
    return path


def test_one_verified_file_comes_out(learnt: Artifact, plan: Path, tmp_path: Path) -> None:
    found = nas.compress(learnt, plan=plan, max_accuracy_drop=5, out=tmp_path / "a", **QUICK)
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["deployed"] == found.deployed.name == "model.int8.onnx"
    assert metrics["coded_bytes"] == (tmp_path / "a" / "model.fnz").stat().st_size < metrics["file_bytes"]
    decode(tmp_path / "a" / "model.fnz", tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == found.deployed.read_bytes()
    test = load_data("digits", size=16).test
    session = onnxruntime.InferenceSession(found.deployed)
    right = session.run(None, {"input": learnt.preprocessing.tensor(test.images)})[0].argmax(1) == test.labels
    assert metrics["test_accuracy"] == pytest.approx(float(np.mean(right)))
    assert metrics["promise"]["points"] <= 5
    assert [row["label"] for row in metrics["waterfall"]] == ["original", "int8"]
    assert metrics["waterfall"][1]["file_bytes"] < 0.4 * metrics["waterfall"][0]["file_bytes"]
    assert metrics["waterfall"][1]["change"]["images"] == metrics["images"]["val"]
    page = (tmp_path / "a" / "report.html").read_text()
    assert "Effect of each step" in page
    assert read_plan(tmp_path / "a" / "plan.toml") == read_plan(plan)


@pytest.mark.slow
def test_the_plan_that_is_written_gives_the_same_file_again(learnt: Artifact, tmp_path: Path) -> None:
    """Also where something was tried in place of a stage."""
    (tmp_path / "plan.toml").write_text(
        '[[stages]]\nname = "sparsify"\namount = 0.98\n[stages.recipe]\nepochs = 1\n' + INT8
    )
    how = {**QUICK, "max_accuracy_drop": 3.0}
    found = nas.compress(learnt, plan=tmp_path / "plan.toml", out=tmp_path / "a", **how)
    assert len(found.metrics["waterfall"][1]["tried"]) > 1
    again = nas.compress(learnt, plan=tmp_path / "a" / "plan.toml", out=tmp_path / "b", **how)
    assert again.deployed.read_bytes() == found.deployed.read_bytes()
    assert all(len(row["tried"]) < 2 for row in again.metrics["waterfall"])
    assert (tmp_path / "b" / "plan.toml").read_bytes() == (tmp_path / "a" / "plan.toml").read_bytes()


def test_the_same_call_resumes_and_repeats_nothing(file: Path, plan: Path, tmp_path: Path) -> None:
    def call(**changed: Any) -> nas.run:
        return nas.compress(file, plan=plan, out=tmp_path / "run", **{**QUICK, "max_accuracy_drop": 5.0, **changed})

    call()
    kept = [path for path in tmp_path.rglob("*") if path.parent.name in ("reference", "01_int8")]
    assert len(kept) > 4
    times = {path: path.stat().st_mtime_ns for path in kept}
    (tmp_path / "run" / "metrics.json").unlink()  # as if it had been killed before the end
    call()
    assert times == {path: path.stat().st_mtime_ns for path in kept}
    with pytest.raises(nas.InputError, match="contains a run with different settings \\(max_accuracy_drop"):
        call(max_accuracy_drop=4.0)


def test_a_folder_of_another_plan_is_refused(learnt: Artifact, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    for epochs, found in ((0.05, None), (0.05, None), (0.1, "contains the results of a different plan")):
        plan.write_text(f'[[stages]]\nname = "sparsify"\nrecipe.epochs = {epochs}\n')
        call = partial(nas.compress, learnt, plan=plan, max_accuracy_drop=100, out=tmp_path / "run", **QUICK)
        if found is None:
            call()
        else:
            with pytest.raises(nas.InputError, match=found):
                call()


def test_a_folder_of_another_network_is_refused(file: Path, learnt: Artifact, plan: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model.onnx"
    copy.write_bytes(file.read_bytes())
    nas.compress(copy, plan=plan, max_accuracy_drop=5, out=tmp_path / "run", **QUICK)
    export_onnx(learnt.with_model(build_model(learnt.arch, seed=9)), copy)
    with pytest.raises(nas.InputError, match="contains the results of a different model"):
        nas.compress(copy, plan=plan, max_accuracy_drop=5, out=tmp_path / "run", **QUICK)


@pytest.mark.slow
def test_a_size_that_cannot_be_held_names_the_nearest_on_both_sides(file: Path, tmp_path: Path) -> None:
    """An ONNX file is not trained, so most zeros cost more accuracy than is allowed."""
    with pytest.raises(nas.NothingFitsError) as error:
        nas.compress(file, target_size="12kB", max_accuracy_drop=5, out=tmp_path / "run", **QUICK)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (
        f"Within the accuracy-drop limit (5 percentage points), the best file has compressed size {metrics['coded_bytes']:,} bytes"
        in str(error.value)
    )
    assert metrics["coded_bytes"] > 12000 >= metrics["nearest"]["coded_bytes"]
    assert f"with compressed size {metrics['nearest']['coded_bytes']:,} bytes" in str(error.value)
    assert metrics["nearest"]["points_lost"] > 5 >= metrics["promise"]["points"]
    assert not metrics["target_met"]


def test_a_limit_that_cannot_be_kept_is_named_with_the_nearest_that_can(file: Path, plan: Path, tmp_path: Path) -> None:
    """No plan makes the activations smaller than int8 does."""
    with pytest.raises(
        nas.NothingFitsError, match=r"peak RAM 100 bytes NOT reached. Within the accuracy-drop limit \(5"
    ) as error:
        nas.compress(file, plan=plan, ram="100B", max_accuracy_drop=5, out=tmp_path / "run", **QUICK)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"no plan reached the target, the lowest values are peak RAM {metrics['peak_ram_bytes']:,} bytes" in str(
        error.value
    )
    assert not metrics["budget_met"]


@pytest.mark.slow
def test_a_limit_is_kept_by_a_file_that_loses_too_much(learnt: Artifact, plan: Path, tmp_path: Path) -> None:
    """The other side: at the asked latency so much is lost."""
    whole = nas.compress(learnt, plan=plan, max_accuracy_drop=5, out=tmp_path / "whole", **QUICK).metrics
    (tmp_path / "pruned.toml").write_text('[[stages]]\nname = "prune"\namount = 0.7\nrecipe = "none"\n' + INT8)
    with pytest.raises(nas.NothingFitsError, match=r"latency .* ms NOT reached. Within .* the best file has .* loses "):
        nas.compress(
            learnt, plan=tmp_path / "pruned.toml", latency=f"{0.95 * whole['latency_ms']:.5f}ms", max_accuracy_drop=0,
            out=tmp_path / "run", **QUICK,
        )  # fmt: skip
    nearest = json.loads((tmp_path / "run" / "metrics.json").read_text())["nearest"]
    assert nearest["points_lost"] > 0
    assert nearest["latency_upper_ms"] <= 0.95 * whole["latency_ms"] + 1e-5


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet9", "MODEL must be a run folder, .* got 'resnet9'; did you mean 'resnet8'"),
        ("resnet8", "resnet8 has no trained weights: pass a folder that contains them, or use --train-epochs N"),
        ("timm:resnet1", "no model"),
        ("nothing.onnx", "file not found: nothing.onnx"),
        ("arch.json", "arch.json has no trained weights"),
        ("no_such_module:make", "no_such_module:make: ModuleNotFoundError"),
        ("networks:missing", "networks:missing: AttributeError"),
        ("networks:text", "must be a torch module, an Arch or a function"),
        ("networks:other_classes", "has 3 classes, digits has 10"),
        (".", "holds no finished run and no artifact"),
    ],
)
def test_what_is_no_model_is_named(
    model: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "arch.json").write_text(preset("resnet8", input_shape=(1, 16, 16)).to_json())
    (tmp_path / "networks.py").write_text(
        "from torch import nn\ntext = str\ndef other_classes():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))\n"
    )
    assert main(["compress", model, "--data", "digits", "--size", "16", "--latency-from", "estimated"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nas: error")]
    assert re.search(said, line), line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"target_size": "100"}, "target_size must be a number with a unit"),
        ({"max_accuracy_drop": -1}, "max_accuracy_drop must be between 0 and 100"),
        ({"confidence": 1.0}, "confidence must be at least 0.5 and below 1"),
        ({"teacher": "timm:resnet18"}, "teacher must be an ONNX file or none"),
        ({"plan": "nothing.toml"}, "plan file not found: nothing.toml"),
        ({"energy": "2mJ"}, "has no power data"),
        ({"stage_epochs": 0}, "stage_epochs must be above 0"),
        ({"target_size": "0.4B"}, "target_size must be at least 1 byte, got '0.4B'"),
        (
            {"train_epochs": 1},
            "train_epochs must not be given for .*, which is compressed as an ONNX model, .* got 1.0",
        ),
        ({"teacher": "t.onnx"}, "teacher must not be given for .*, which is compressed as an ONNX model"),
    ],
)
def test_impossible_settings_are_refused(entries: dict[str, Any], said: str, file: Path, tmp_path: Path) -> None:
    with pytest.raises(nas.InputError, match=said):
        nas.compress(file, **{**QUICK, "out": tmp_path / "run", **entries})
    assert not (tmp_path / "run").exists()


def test_an_onnx_file_takes_no_plan_that_trains(file: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text('[[stages]]\nname = "prune"\n' + INT8)
    with pytest.raises(nas.InputError, match="plan: prune must train, but ONNX models cannot be trained"):
        nas.compress(file, plan=tmp_path / "plan.toml", out=tmp_path / "run", **QUICK)


def test_a_network_of_other_classes_is_refused(learnt: Artifact, plan: Path, tmp_path: Path) -> None:
    digits = load_data("digits", size=16)
    for i, (image, label) in enumerate(zip(digits.train.images, digits.train.labels, strict=True)):
        if i < 300:
            folder = tmp_path / "photos" / f"digit {label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(folder / f"{i}.png")
    same = tuple(f"digit {i}" for i in range(10))
    others = (*same[1:], "letter a")
    for names in (same, others, digits.preprocessing.class_names):
        model = replace(learnt, preprocessing=replace(learnt.preprocessing, class_names=names))
        call = partial(
            nas.compress, model, data=str(tmp_path / "photos"), plan=plan, max_accuracy_drop=100,
            latency_from="estimated", out=tmp_path / names[-1],
        )  # fmt: skip
        if names is others:
            with pytest.raises(nas.InputError, match="its class 0 is 'digit 1', there it is 'digit 0'"):
                call()
        else:
            assert call().metrics["classes"] == list(same)


def test_a_network_in_int8_is_refused(learnt: Artifact, tmp_path: Path) -> None:
    quantized = replace(learnt, quantization=fixed_quantization(learnt.arch.workload()))
    export_onnx(quantized, tmp_path / "int8.onnx")
    for model in (quantized, tmp_path / "int8.onnx"):
        with pytest.raises(nas.InputError, match="must be a float32 network, got int8"):
            nas.compress(model, out=tmp_path / "run", **QUICK)


def test_a_run_keeps_its_images_and_its_seed(learnt: Artifact, plan: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    nas.compress(learnt, plan=plan, max_accuracy_drop=5, seed=3, out=first, **QUICK)
    again = nas.compress(first, plan=plan, max_accuracy_drop=5, out=tmp_path / "second", latency_from="estimated")
    assert again.metrics["images"] == json.loads((first / "metrics.json").read_text())["images"]
    assert again.metrics["reference"]["precision"] == "fp32"
    assert again.metrics["reference_test_accuracy"] == pytest.approx(
        json.loads((first / "metrics.json").read_text())["reference_test_accuracy"]
    )
    with pytest.raises(nas.InputError, match="--seed must equal the seed of the run, 3, got 4"):
        nas.compress(first, plan=plan, seed=4, out=tmp_path / "third", latency_from="estimated")


def test_what_was_compressed_is_read_again_with_its_images(learnt: Artifact, plan: Path, tmp_path: Path) -> None:
    digits = load_data("digits", size=16)
    both = digits.training_on_validation().train
    x, y = both.images, both.labels
    photos = tmp_path / "photos.npz"
    np.savez(photos, x_train=x, y_train=9 - y, x_test=digits.test.images, y_test=9 - digits.test.labels)
    common: dict[str, Any] = {"plan": plan, "max_accuracy_drop": 100, "latency_from": "estimated"}
    first = nas.compress(learnt, data=str(photos), seed=3, out=tmp_path / "first", **common)
    nas.compress(tmp_path / "first", out=tmp_path / "second", **common)
    third = nas.compress(tmp_path / "second", out=tmp_path / "third", **common)
    for name in ("reference_test_accuracy", "images", "asked"):
        assert third.metrics[name] == first.metrics[name]
    accuracies = nas.compare(first.folder, third.folder).accuracies
    assert accuracies is not None
    assert accuracies[0] == first.metrics["test_accuracy"]
    command = ["export", str(first.folder), "--out", str(tmp_path / "program"), "--data", str(photos)]
    assert main(command) == 0


def test_a_module_is_compressed_as_its_file(plan: Path, tmp_path: Path) -> None:
    data = load_data("digits", size=16)
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(288, 10),
    )  # fmt: skip
    train(module, data, Recipe(epochs=1))
    found = nas.compress(module, plan=plan, max_accuracy_drop=50, target_size="12kB", out=tmp_path / "run", **QUICK)
    assert any("this module cannot be rebuilt" in line for line in found.metrics["warnings"])
    assert found.metrics["waterfall"][1]["accepted"]


def test_the_command_prints_the_waterfall_and_the_report_is_written_again(
    file: Path, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compress", str(file), "--data", "digits", "--size", "16", "--latency-from", "estimated"]
    command += ["--plan", str(plan), "--max-accuracy-drop", "5", "--out", str(tmp_path / "run")]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step ")
    assert [line.split()[0] for line in lines[1:3]] == ["original", "int8"]
    assert "validation accuracy drop" in lines[-2]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "compression"
    before = (tmp_path / "run" / "report.html").read_text()
    (tmp_path / "run" / "report.html").unlink()
    assert main(["report", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report.html").read_text() == before


def test_a_report_of_a_damaged_folder_is_refused(file: Path, plan: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"kind": "compression", "schema": 1}')
    assert main(["report", str(tmp_path)]) == 2
    (tmp_path / "metrics.json").write_text('{"kind": "compression", "schema": 99}')
    assert main(["report", str(tmp_path)]) == 2


@pytest.mark.slow
def test_the_automatic_plan_prunes_and_keeps_the_promise(learnt: Artifact, tmp_path: Path) -> None:
    found = nas.compress(learnt, max_accuracy_drop=3, out=tmp_path / "run", **{**QUICK, "stage_epochs": 4})
    labels = [row["label"] for row in found.metrics["waterfall"]]
    assert labels[:3] == ["original", "prune", "sparsify"]
    assert labels[-1] == "encode"
    assert found.metrics["promise"]["points"] <= 3
    assert found.metrics["coded_bytes"] < 0.3 * found.metrics["reference"]["coded_bytes"]
    assert found.metrics["test_accuracy"] > found.metrics["reference_test_accuracy"] - 0.06


@pytest.mark.slow
def test_a_network_without_weights_is_trained_first(tmp_path: Path) -> None:
    found = nas.compress("resnet8", train_epochs=4, max_accuracy_drop=100, out=tmp_path / "run", **QUICK)
    assert found.metrics["reference_test_accuracy"] > 0.5
    assert replace(Artifact.load(tmp_path / "run")).history


@pytest.mark.slow
def test_a_killed_compression_ends_with_the_same_file(learnt: Artifact, tmp_path: Path) -> None:
    learnt.save(tmp_path / "given")
    (tmp_path / "plan.toml").write_text(
        '[[stages]]\nname = "sparsify"\namount = 0.5\n[stages.recipe]\nepochs = 4\n' + INT8
    )
    command = [
        sys.executable, "-m", "nas", "compress", str(tmp_path / "given"), "--data", "digits", "--size", "16",
        "--latency-from", "estimated", "--max-accuracy-drop", "20", "--plan", str(tmp_path / "plan.toml"), "--out",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(nas.__file__).parents[1])}
    process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment)
    training = tmp_path / "killed" / "plans" / "given" / "01_sparsify.partial"
    while not training.is_dir() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed" / "metrics.json").is_file()
    for out in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / out)], env=environment, check=True, timeout=300)
    files = [(tmp_path / out / "model.int8.onnx").read_bytes() for out in ("killed", "whole")]
    assert files[0] == files[1]


@pytest.mark.slow
def test_a_search_finds_a_plan_and_resumes(learnt: Artifact, tmp_path: Path) -> None:
    def call() -> Any:
        return nas.compress(
            learnt, trials=4, max_accuracy_drop=10, out=tmp_path / "run", **{**QUICK, "stage_epochs": 2}
        )

    found = call()
    assert len(list((tmp_path / "run" / "plans").glob("*_short_any_loss"))) == 4
    assert found.metrics["coded_bytes"] < 0.2 * found.metrics["reference"]["coded_bytes"]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "plans").rglob("*.onnx")}
    assert call().deployed.read_bytes() == found.deployed.read_bytes()
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "plans").rglob("*.onnx")}
