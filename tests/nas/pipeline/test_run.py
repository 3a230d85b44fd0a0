"""The whole path on the digits: what it leaves, what a kill does to it, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from filelock import FileLock
from PIL import Image

from compress import Preprocessing, load_data
from compress.atomic_files import write_text
from compress.data.preprocessing import METADATA_KEY
from hw_profiles.onnx_io.reader import read_metadata, read_onnx
from hw_profiles.onnx_io.writer import write_onnx
from nas.commands.main import main
from nas.pipeline.run import run
from nas.pipeline.time_budget import Clock
from search_spaces import Arch, preset
from tests.small_space import NAME

QUICK = [
    "run", "--data", "digits", "--device", "host", "--latency", "0.1ms", "--trials", "3", "--teacher", "timm:test_resnet",
    "--space", NAME, *(f"--set={name}" for name in (
        "size=16", "latency_from=estimated", "search_epochs=0.5", "teacher_epochs=0.5", "train_epochs=1", "distill_epochs=0.5",
        "prune_epochs=0.5", "prune_steps=1", "max_accuracy_drop=30",
    )),
]  # fmt: skip
ALONE = ["--teacher", "none", "--baseline", "none"]


def nas(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nas.commands.main", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    # A shell's background jobs ignore SIGINT, and so would their children; a handler is not inherited, ignoring is.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        assert main([*QUICK, "--out", str(folder)]) == 0
    (folder.parent / "stdout").write_text(out.getvalue())
    (folder.parent / "stderr").write_text(err.getvalue())
    return folder


def metrics_of(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return data


def test_the_folder_holds_what_was_promised(whole: Path) -> None:
    for name in ("config.toml", "env.json", "study.db", "trials.csv", "arch.json", "weights.safetensors", "model.onnx",
                 "metrics.json", "report.html", "run.log"):  # fmt: skip
        assert (whole / name).is_file(), name
    names = {path.name for path in (whole / "stages").iterdir()}
    assert names == {"01_distill", "02_prune", "03_int8"}
    assert (whole / "stages" / "03_int8" / "model.int8.onnx").is_file()
    assert not list(whole.rglob("*.partial"))


def test_the_table_and_the_verdict_are_shown(whole: Path) -> None:
    out = (whole.parent / "stdout").read_text()
    known = ("teacher", "selected network", "distilled", "pruned", "int8", "resnet8")
    found = [label for line in out.splitlines() for label in known if line.startswith(label)]
    assert found == list(known)
    metrics = metrics_of(whole)
    assert metrics["verdict"] in out
    assert f"{metrics['deployed']} ({metrics['final']['file_bytes'] / 1000:,.1f} kB): test accuracy" in out
    assert re.search(
        r"all limits met: (estimated|measured) latency at most 0\.0\d+ ms \(90% upper bound; limit: 0\.1 ms\)", out
    )
    assert "evaluated with ONNX Runtime; " in out
    for stage in ("reading images", "teacher", "search", "selected network", "distill", "prune", "int8"):
        assert stage in (whole.parent / "stderr").read_text()


def test_the_deployed_file_gives_the_stated_accuracy_to_someone_without_fitnas(whole: Path) -> None:
    """Only ONNX Runtime, the record in the file, and the digits."""
    metrics = metrics_of(whole)
    deployed = whole / metrics["deployed"]
    record = Preprocessing.from_json(read_metadata(deployed)[METADATA_KEY])
    data = load_data("digits", size=16).resized(*record.sizes[-1])
    assert data.preprocessing == record
    x = (data.test.images.transpose(0, 3, 1, 2) / 255 - record.mean[0]) / record.std[0]
    logits = onnxruntime.InferenceSession(deployed).run(None, {"input": x.astype(np.float32)})[0]
    assert np.mean(logits.argmax(1) == data.test.labels) == pytest.approx(metrics["final"]["test_accuracy"], abs=0.003)
    assert deployed.stat().st_size == metrics["final"]["file_bytes"]


def test_every_number_of_the_table_is_that_of_its_file(whole: Path) -> None:
    metrics = metrics_of(whole)
    rows = {row["label"]: row for row in metrics["rows"]}
    for label, file in (("selected network", "winner/model.onnx"), ("pruned", "stages/02_prune/model.onnx"),
                        ("int8", "stages/03_int8/model.int8.onnx")):  # fmt: skip
        path = whole / file
        assert rows[label]["file_bytes"] == path.stat().st_size
        assert rows[label]["macs"] == read_onnx(path).macs
    assert rows["pruned"]["params"] < rows["selected network"]["params"]
    assert Arch.from_json((whole / "arch.json").read_text()).id == metrics["final"]["arch"]
    assert rows["resnet8"]["macs"] == 3_052_160


def test_scripts_find_their_keys_on_top_of_the_metrics(whole: Path) -> None:
    metrics = metrics_of(whole)
    deployed, final = whole / metrics["deployed"], metrics["final"]
    assert deployed.stat().st_size == final["file_bytes"]
    assert metrics["test_accuracy"] == final["test_accuracy"]
    assert 0 < metrics["latency_ms"] == final["latency_ms"]
    assert metrics["peak_ram_bytes"] == final["peak_ram_bytes"]
    assert metrics["flash_bytes"] == read_onnx(deployed).weight_bytes
    assert metrics["budget_met"] is True
    assert metrics["seconds"] == pytest.approx(json.loads((whole / "plan.json").read_text())["spent_seconds"], abs=30)


class Page(HTMLParser):
    """Collects text, and refuses what a page that needs nothing else cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert name not in ("src", "onload", "onclick")
            assert name != "href" or value == "data:," or (value or "").startswith("#")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_report_says_what_the_metrics_say(whole: Path) -> None:
    page = Page()
    page.feed((whole / "report.html").read_text())
    text = " ".join(page.text)
    metrics = metrics_of(whole)
    assert metrics["verdict"] in text
    for row in metrics["rows"]:
        assert f"{100 * row['test_accuracy']:.2f}%" in text
    assert page.tags.count("circle") == metrics["trials"]["COMPLETE"]


def test_the_same_command_again_repeats_nothing(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".safetensors", ".db")
            and path.parent != folder}  # fmt: skip
    assert main([*QUICK, "--out", str(folder)]) == 0
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def assert_same_end(folder: Path, undisturbed: Path) -> None:
    ours, theirs = metrics_of(folder), metrics_of(undisturbed)
    assert ours["trials"] == theirs["trials"]
    for mine, other in zip(ours["rows"][1:], theirs["rows"][1:], strict=True):
        assert (mine["label"], mine["arch"], mine["test_accuracy"]) == (
            other["label"], other["arch"], other["test_accuracy"]
        )  # fmt: skip
    assert ours["deployed"] == theirs["deployed"]


@pytest.mark.slow
def test_a_run_that_ended_after_the_pruning_goes_on_from_there(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for path in (folder / "stages" / "03_int8", folder / "baseline" / "stages"):
        shutil.rmtree(path)
    for path in folder.iterdir():
        if (
            path.name not in ("config.toml", "env.json", "data.json", "plan.json", "study.db", "winner.json")
            and path.is_file()
        ):
            path.unlink()
    assert main([*QUICK, "--out", str(folder)]) == 0
    assert_same_end(folder, whole)


def kill_when(folder: Path, ready: Any) -> None:
    process = nas(*QUICK, "--out", str(folder), cwd=folder.parent)
    deadline = time.monotonic() + 300
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "metrics.json").exists()


@pytest.mark.slow
def test_a_run_killed_in_the_search_and_in_trainings_ends_as_an_undisturbed_one(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    kill_when(folder, lambda: (folder / "study.db").is_file())
    kill_when(folder, lambda: (folder / "winner.json").is_file())
    kill_when(folder, lambda: (folder / "stages" / "02_prune.partial").is_dir())
    kill_when(folder, lambda: (folder / "baseline" / "trained.partial").is_dir())
    process = nas(*QUICK, "--out", str(folder), cwd=tmp_path)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert_same_end(folder, whole)


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    process = nas(*QUICK, *ALONE, "--out", "run", cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "study.db").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.strip().splitlines()[-1].startswith("nas: interrupted. To resume, run: nas run --data digits")
    assert "Traceback" not in err


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nas:")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "no/such/folder"], "does not exist"),
        (["--device", "hots"], "did you mean 'host'"),
        (["--latency", "5"], "latency must be a number with a unit"),
        (["--latency=-5ms"], "latency must be above 0"),
        (["--latency", "-5ms"], "latency must be above 0"),
        (["--latency", "5kB"], "latency must be a number with a unit"),
        (["--time", "-3min"], "time must be above 0"),
        (["--sampler", "tpee"], "did you mean 'tpe'"),
        (["--init", "timm:mobilenetv2_1000"], "did you mean 'mobilenetv2_100'"),
        (["--init", "nowhere.safetensors"], "does not exist"),
        (["--set", "prune_criterion=l3"], "prune_criterion must be one of l1, l2, bn_scale, taylor"),
        (["--time", "0min"], "time must be above 0"),
        (["--space", "mobilnet"], "did you mean 'mobilenet'"),
        (["--space", "nas.nothing:here"], "nas.nothing"),
        (["--teacher", "timm:resnet18x"], "timm has no model 'resnet18x'"),
        (["--teacher", "resnet18"], "--teacher must be timm:NAME"),
        (["--baseline", "resnet9"], "unknown preset 'resnet9'"),
        (["--set", "trails=3"], "did you mean 'trials'"),
        (["--set", "trials"], "--set must be key=value"),
        (["--energy", "2mJ"], "has no power data"),
        (["no_such.toml"], "config file not found"),
        (["--trials", "many"], "invalid int value"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_no_folder(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["run", "--out", "made", *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert said in one_line(capsys)
    assert not list(tmp_path.iterdir())


def no_images(folder: Path) -> None:
    folder.mkdir()


def one_class(folder: Path) -> None:
    write_classes(folder, {"cat": 5})


def small_class(folder: Path) -> None:
    write_classes(folder, {"cat": 5, "dog": 2})


def broken_image(folder: Path) -> None:
    write_classes(folder, {"cat": 5, "dog": 5})
    (folder / "dog" / "3.png").write_bytes(b"not an image")


def write_classes(folder: Path, sizes: dict[str, int]) -> None:
    for name, count in sizes.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (16, 16), i).save(folder / name / f"{i}.png")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_images, "no images found"),
        (one_class, "at least two classes are needed, got 1 (cat)"),
        (small_class, "class 'dog' has 2 images, at least 3 are needed"),
        (broken_image, "1 of 10 images cannot be read: dog/3.png"),
    ],
)
def test_bad_data_is_one_line_exit_code_2_and_no_folder(
    make: Callable[[Path], None], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "data")
    assert main([*QUICK, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]) == 2
    assert said in one_line(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_space_of_ones_own_is_found_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the installed command, which does not look there by itself."""
    (tmp_path / "my_space.py").write_text(
        "from search_spaces import load_space\n"
        "def small(input_shape, num_classes):\n"
        "    return load_space('tiny', input_shape=input_shape, num_classes=num_classes)\n"
    )
    quick = [*QUICK, *ALONE, "--trials", "1", "--set=stages=fp16", "--set=train_epochs=0.1"]
    command = [Path(sys.executable).with_name("nas"), *quick]
    done = subprocess.run([*command, "--space", "my_space:small", "--out", "run"], cwd=tmp_path, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    arch = Arch.from_json((tmp_path / "run" / "winner" / "arch.json").read_text())
    assert {spec.activation for _, spec in arch.blocks()} == {"relu6"}
    (tmp_path / "broken.py").write_text("def small(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert main([*quick, "--space", "broken:small", "--out", "other"]) == 2
    assert "space 'broken:small': SyntaxError" in one_line(capsys)
    assert not (tmp_path / "other").exists()


def test_an_unknown_key_in_the_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.toml").write_text('latncy = "5ms"\n')
    assert main(["run", str(tmp_path / "my.toml"), "--out", str(tmp_path / "run")]) == 2
    assert "unknown setting 'latncy'; did you mean 'latency'?" in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_knows_nothing_or_reads_other_images_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shape, said in (((1, 32, 32), "no better than chance"), ((3, 32, 32), "must read 1 channels")):
        file = tmp_path / "teacher.onnx"
        file.write_bytes(write_onnx(preset("resnet8", input_shape=shape).workload()))
        assert main([*QUICK, "--teacher", str(file), "--out", str(tmp_path / "run")]) == 2
        assert said in one_line(capsys)
        assert not (tmp_path / "run").exists()


def test_a_folder_of_another_config_or_of_something_else_is_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*QUICK, "--seed", "4", "--latency", "0.4ms", "--out", str(whole)]) == 2
    assert "different settings (latency, seed)" in one_line(capsys)
    (tmp_path / "thesis.tex").touch()
    assert main([*QUICK, "--out", str(tmp_path)]) == 2
    assert "it holds other files" in one_line(capsys)
    assert main([*QUICK, "--out", str(tmp_path / "thesis.tex")]) == 2
    assert "must be a folder" in one_line(capsys)


def test_a_run_does_not_go_on_with_other_images(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("config.toml", "env.json"):
        write_text(folder / name, (whole / name).read_text())
    write_text(folder / "data.json", '{"sha256": "of other images"}')
    assert main([*QUICK, "--out", str(folder)]) == 2
    assert "contains a run with different images, those in digits have changed" in one_line(capsys)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.toml",
        "data.json",
        "env.json",
        "run.lock",
        "run.log",
    ]


def test_two_runs_in_one_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / "run.lock"):
        assert main([*QUICK, "--out", str(tmp_path / "run")]) == 2
    assert "is in use by another run" in one_line(capsys)


def test_nothing_that_fits_is_exit_code_3_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*QUICK, *ALONE, "--latency", "0.001ms", "--out", str(tmp_path / "run")]
    assert main(arguments) == 3
    said = one_line(capsys)
    assert "the binding limit is latency (at most 0.001 ms); the smallest value found was" in said
    assert "the smallest change of one limit that would work: latency at most" in said
    arguments[-3] = "0.002ms"
    assert main(arguments) == 3  # the folder takes another limit


def test_a_full_disk_keeps_the_folder_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import errno

    import nas.pipeline.run

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nas.pipeline.run, "searched_study", full)
    assert main([*QUICK, "--teacher", "none", "--out", str(tmp_path / "run")]) == 2
    assert "the disk is full. Free some space, then run again: nas run" in one_line(capsys)
    assert (tmp_path / "run" / "config.toml").is_file()


def test_verbs_that_print_data_print_json_too(capsys: pytest.CaptureFixture[str], whole: Path) -> None:
    assert main(["list", "--json"]) == 0
    assert "mobilenet" in json.loads(capsys.readouterr().out)["spaces"]
    assert main(["devices", "--json"]) == 0
    assert "host" in [device["name"] for device in json.loads(capsys.readouterr().out)]
    assert main(["profile", str(whole / "model.onnx"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["latency_source"] == "estimated"
    assert found["macs"] == read_onnx(whole / "model.onnx").macs
    assert main(["profile", "resnet8", "--measure"]) == 0
    out = capsys.readouterr().out
    assert "measured" in out
    assert "12,501,632" in out
    assert main(["profile", "resnet9"]) == 2
    assert "did you mean 'resnet8'" in one_line(capsys)


def test_the_clock_divides_what_is_left_and_remembers_it(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "plan.json", 1000.0, {"a": 1.0, "b": 3.0})
    first = clock.seconds_for("a")
    assert first == pytest.approx((1000 - 10) / 4, abs=1)
    assert clock.seconds_for("a") == first
    again = Clock(tmp_path / "plan.json", 1000.0, {"a": 1.0, "b": 3.0})
    assert again.seconds_for("a") == first
    again.spent_before = 600.0
    assert again.seconds_for("b") == pytest.approx(1000 - 10 - 600, abs=1)
    assert again.left_of("a") == 0.0
    assert Clock(tmp_path / "none.json", None, {"a": 1.0}).seconds_for("a") is None


def test_progress_is_told_to_a_function(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[tuple[str, float]] = []
    with pytest.raises(ValueError, match="nothing"):
        run(
            data=str(tmp_path / "nothing"), trials=1, out=str(tmp_path / "run"),
            on_progress=lambda phase, share, note: heard.append((phase, share)),
        )  # fmt: skip
    assert heard == [("reading images", 0.0)]
    assert capsys.readouterr().err == ""
