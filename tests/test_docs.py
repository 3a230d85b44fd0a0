"""The pages that say where things are name files that exist; those for users show commands and code that run."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas.commands.main import _parser
from tests.optional_parts import require

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


PAGES_WITH_COMMANDS = ("search.md", "machines.md", "ray.md", "devices.md", "select.md")
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


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS)
def test_commands_and_links_of_the_pages_for_users_exist(page: str) -> None:
    commands = commands_of(page)
    assert commands
    for command in commands:
        assert _parser().parse_args(command).verb == command[0]
    for link in re.findall(r"\]\((\w+\.md)\)", text_of(page)):
        assert (ROOT / "docs" / link).is_file(), link
    assert f"docs/{page}" in (ROOT / "README.md").read_text()


def test_the_python_example_of_the_search_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", text_of("search.md"), re.DOTALL)
    (tmp_path / "example.py").write_text(code)
    process = in_process(["example.py"], tmp_path)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert out.startswith("as many candidates as asked for were evaluated\n[(")


def test_the_python_example_of_the_selection_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", text_of("select.md"), re.DOTALL)
    (tmp_path / "example.py").write_text(code)
    process = in_process(["example.py"], tmp_path)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert len(out.splitlines()) == 3


def test_the_python_example_of_devices_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", text_of("devices.md"), re.DOTALL)
    (tmp_path / "example.py").write_text(code)
    process = in_process(["example.py"], tmp_path)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    latency, energy = out.splitlines()
    assert latency.endswith("estimated")
    assert len(energy.split()) == 5


@pytest.mark.slow
def test_the_python_example_of_ray_runs(tmp_path: Path) -> None:
    require(importlib.util.find_spec("ray") is not None, "Ray is not installed (pip install 'fitnas[ray]')")
    (code,) = re.findall(r"```python\n(.*?)```", text_of("ray.md"), re.DOTALL)
    (tmp_path / "example.py").write_text(code)
    process = in_process(["example.py"], tmp_path)
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert int(out) <= 31


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
