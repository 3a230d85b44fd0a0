"""The pages name files that exist and settings as they are; their links lead somewhere; their commands and code run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import compress
from compress.data.dataset import load_data
from compress.data.preprocessing import METADATA_KEY
from compress.networks.as_artifact import as_artifact
from compress.training.loop import Recipe, train
from hw_profiles.network.quantization import fixed_quantization
from hw_profiles.onnx_io.writer import random_weights, write_onnx
from nas.commands.main import _parser, main
from nas.config import default_text, settings
from search_spaces import build_model, preset
from tests.optional_parts import require
from tests.parameters import slow
from tests.test_readme import write_photos

ROOT = Path(__file__).parent.parent
PACKAGES = ("blocks", "hw_profiles", "search_spaces", "compress", "nas", "tests", "docs")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/design.md", "docs/decisions.md"])
def test_every_file_that_is_named_exists(page: str) -> None:
    """A path, or the end of one such as `stages/runner.py`."""
    there = [
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if "__pycache__" not in path.parts
    ]
    named = set(re.findall(r"`([\w./]+\.py|[\w]+/(?:[\w]+/)*)`", (ROOT / page).read_text()))
    assert named
    missing = {
        name
        for name in named
        if not any(f"/{path}/".endswith(f"/{name.rstrip('/')}/") for path in there + list(PACKAGES))
    }
    assert not missing


def test_the_design_names_every_folder() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    folders = {path.parent for name in PACKAGES[:5] for path in (ROOT / name).rglob("__init__.py")}
    assert len(folders) > 30
    for folder in folders:
        assert f"`{folder.name}/`" in text, folder.relative_to(ROOT)


PAGES = sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))
SEARCH_PAGES = ("search.md", "machines.md", "ray.md")
SHORT = ["--trials", "2", *(f"--set={name}" for name in ("size=16", "latency_from=estimated", "search_epochs=0.5"))]


def text_of(page: str) -> str:
    return (ROOT / "docs" / page).read_text()


def commands_of(page: str) -> list[list[str]]:
    """What stands after ``nas`` in the page's commands."""
    return [
        shlex.split(line)[1:]
        for block in re.findall(r"```sh\n(.*?)```", text_of(page), re.DOTALL)
        for line in block.splitlines()
        if line.startswith("nas ")
    ]


def in_process(command: list[str], folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_links_of_a_page_exist(page: str) -> None:
    for command in commands_of(page):
        assert _parser().parse_args(command).verb == command[0]
    for link in re.findall(r"\]\(([^):#]+)(?:#[\w-]+)?\)", text_of(page)):
        assert ((ROOT / "docs" / page).parent / link).is_file(), link


@pytest.mark.parametrize("page", [*SEARCH_PAGES, "tour.md", "how_to/images.md", "how_to/device.md", "how_to/model.md"])
def test_the_pages_for_users_have_commands(page: str) -> None:
    assert commands_of(page)


@pytest.mark.parametrize("page", SEARCH_PAGES)
def test_the_readme_links_the_pages_on_the_search(page: str) -> None:
    assert f"docs/{page}" in (ROOT / "README.md").read_text()


def test_every_page_is_in_the_navigation_and_the_index() -> None:
    listed = re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == PAGES
    linked = re.findall(r"\]\(([\w/]+\.md)\)", text_of("index.md"))
    assert {"index.md", *linked} == set(PAGES)


def test_the_settings_are_those_of_the_config() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", text_of("settings.md"), re.MULTILINE)
    assert rows == [(name, default_text(name), setting.text) for name, setting in settings().items()]


@pytest.mark.parametrize("page", ["README.md", "docs/command_line.md"])
def test_every_verb_is_named(page: str) -> None:
    text = (ROOT / page).read_text()
    (verbs,) = [action.choices for action in _parser()._actions if action.dest == "verb"]
    assert verbs is not None
    for verb in verbs:
        assert f"nas {verb}" in text, verb


def test_the_api_page_has_a_function_for_each_command() -> None:
    text = text_of("api_reference.md")
    (verbs,) = [action.choices for action in _parser()._actions if action.dest == "verb"]
    assert verbs is not None
    rows = dict(re.findall(r"^\| (`nas .+?`) \| (.+) \|$", text, re.MULTILINE))
    assert {verb for names in rows for verb in re.findall(r"`nas (\w+)`", names)} == set(verbs)
    named = re.findall(r"`((?:nas|hw_profiles|search_spaces|compress|blocks)\.[\w.]+)`", text)
    assert len(named) > 40
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    require(importlib.util.find_spec("material") is not None, "mkdocs-material is not installed")
    process = in_process(["-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")], ROOT)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    page = (tmp_path / "site" / "command_line.html").read_text()
    assert "maximum total accuracy drop over all compression" in page
    assert "nas devices measure" in page


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the files that the pages name."""
    write_photos(tmp_path / "photos")
    preprocessing = load_data(tmp_path / "photos").preprocessing
    classes = len(preprocessing.class_names)
    workload = preset("resnet8", input_shape=preprocessing.input_shape, num_classes=classes).workload()
    record = {METADATA_KEY: preprocessing.to_json()}
    weights, scales = random_weights(workload), fixed_quantization(workload)
    (tmp_path / "model.onnx").write_bytes(write_onnx(workload, weights, metadata=record))
    (tmp_path / "model.int8.onnx").write_bytes(write_onnx(workload, weights, quantization=scales, metadata=record))
    (tmp_path / "measured.csv").write_text("model,latency_ms,precision\nresnet8,0.9,int8\nmobilenetv2_035,4.1,int8\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [
        "api_reference.md",
        "how_to/device.md",
        slow("fnz.md"),
        slow("microcontrollers.md"),
        slow("how_to/images.md"),
        slow("how_to/model.md"),
        slow("how_to/teacher.md"),
    ],
)
def test_the_python_examples_of_a_page_run(page: str, folder: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", text_of(page), re.DOTALL)
    assert examples
    for code in examples:
        exec(compile(code, page, "exec"), {})


SHORT_RUN = ["--trials", "1", "--baseline", "none", *(f"--set={name}" for name in (
    "max_accuracy_drop=100.0", "size=16", "latency_from=estimated", "search_epochs=0.1", "train_epochs=0.2", "teacher_epochs=0.2",
    "distill_epochs=0.2", "stages=int8",
))]  # fmt: skip


def shortened(command: list[str]) -> list[str]:
    """The command with the least work that it can do."""
    short = list(command)
    for option in ("--time", "--trials"):
        if option in short and short[0] == "run":
            at = short.index(option)
            del short[at : at + 2]
    return [*short, *SHORT_RUN] if short[0] == "run" else short


def test_the_space_of_the_example_builds_networks() -> None:
    names: dict[str, Any] = {}
    exec(compile(example_of("how_to/space.md"), "how_to/space.md", "exec"), names)
    space = names["make"]((1, 32, 32), 10)
    for width in space.choices["width"]:
        assert space.build({"width": width, "depth": 2}).workload().macs > 0


@pytest.mark.slow
def test_the_space_of_the_example_is_searched(folder: Path) -> None:
    (folder / "my_space.py").write_text(example_of("how_to/space.md"))
    (command,) = commands_of("how_to/space.md")
    search = ["search", *command[1:], *SHORT[:1], "1", *SHORT[2:]]
    process = in_process(["-m", "nas.commands.main", *search], folder)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "1 candidates were trained" in out


@pytest.mark.slow
def test_the_commands_of_the_tour_run_one_after_the_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands_of("tour.md"):
        assert main(shortened(command)) == 0, command
        assert capsys.readouterr().out
    use, compare = re.findall(r"```python\n(.*?)```", text_of("tour.md"), re.DOTALL)
    exec(compile(use, "tour.md", "exec"), {})
    printed = capsys.readouterr().out.split()
    assert printed[0].endswith(".onnx")
    assert printed[-1] in load_data("digits").preprocessing.class_names
    exec(compile(compare, "tour.md", "exec"), {})
    assert re.fullmatch(r"\d+ layers; same prediction for [\d.]+% of the test images\n", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["how_to/images.md", "how_to/model.md", "devices.md"])
def test_the_commands_of_a_page_run(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands_of(page):
        assert main(shortened(command)) == 0, command
        assert capsys.readouterr().out


@pytest.mark.slow
def test_the_commands_on_compression_and_devices_run_after_those_on_images(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that need neither another machine nor minutes of measurements."""
    assert main(shortened(commands_of("how_to/images.md")[0])) == 0
    for command in commands_of("how_to/compress.md"):
        assert main([*command, "--max-accuracy-drop", "100", "--stage-epochs", "0.1"]) == 0, command
        assert (folder / "runs/small/plan.toml").is_file()
        shutil.rmtree(folder / "runs/small")
    *_, export = commands_of("how_to/device.md")
    assert main(export) == 0
    ready = [command for command in commands_of("how_to/device.md") if runs_here(command)]
    assert len(ready) == 5
    for command in ready:
        assert main(command) == 0, command
        assert capsys.readouterr().out


def runs_here(command: list[str]) -> bool:
    """Whether a command on devices needs no file that another machine or a long measurement would make."""
    made_elsewhere = {"measure", "my.toml", "my_pi.toml", "result.json", "runs/photos"}
    return made_elsewhere.isdisjoint(command)


@pytest.mark.slow
def test_the_commands_on_teachers_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_data("photos").resized(16, 16)
    teacher = build_model(preset("resnet8", input_shape=data.preprocessing.input_shape, num_classes=3), seed=0)
    train(teacher, data, Recipe(epochs=20))
    compress.export_onnx(as_artifact(teacher, data), "teacher.onnx")
    for command in commands_of("how_to/teacher.md"):
        assert main(shortened(command)) == 0, command
        assert capsys.readouterr().out


@pytest.mark.slow
def test_the_commands_on_the_selection_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands_of("select.md"):
        assert main(["1" if before == "--measure" else word for before, word in pairwise(["", *command])]) == 0, command
        assert capsys.readouterr().out
    assert (folder / "zoo.html").is_file()


@pytest.mark.slow
def test_the_python_example_of_the_search_runs(tmp_path: Path) -> None:
    out = output_of_the_example("search.md", tmp_path)
    assert out.startswith("all requested candidates were evaluated\n[(")


def test_the_python_example_of_devices_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(example_of("devices.md"), "devices.md", "exec"), {})
    latency, energy = capsys.readouterr().out.splitlines()
    assert latency.endswith("estimated")
    assert len(energy.split()) == 5


def test_the_python_example_of_the_selection_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(example_of("select.md"), "select.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 3


def example_of(page: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", text_of(page), re.DOTALL)
    return str(code)


def output_of_the_example(page: str, folder: Path) -> str:
    (folder / "example.py").write_text(example_of(page))
    process = in_process(["example.py"], folder)
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return out


@pytest.mark.slow
def test_the_python_example_of_ray_runs(tmp_path: Path) -> None:
    require(importlib.util.find_spec("ray") is not None, "Ray is not installed (pip install 'fitnas[ray]')")
    assert int(output_of_the_example("ray.md", tmp_path)) <= 31


@pytest.mark.slow
def test_the_first_two_commands_for_several_machines_share_a_study(tmp_path: Path) -> None:
    search, worker = commands_of("machines.md")[:2]
    searching = in_process(["-m", "nas.commands.main", *search, *SHORT], tmp_path)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "search.journal").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(1)
        joining = in_process(["-m", "nas.commands.main", *worker], tmp_path)
        out, errors = joining.communicate(timeout=240)
        assert joining.returncode == 0, errors
        assert out.startswith("2 candidates were trained by all workers")
        out, errors = searching.communicate(timeout=240)
        assert searching.returncode == 0, errors
        assert "2 candidates were trained" in out
    finally:
        searching.kill()
