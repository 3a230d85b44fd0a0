"""Imports go one way, folders stay small, and what needs no torch does not load it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import grimp
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("blocks", "hw_profiles", "search_spaces", "compress", "nas")
MOST_MODULES = 16  # in one folder, __init__.py aside


def files_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def folders_of(package: str) -> list[Path]:
    return sorted({path.parent for path in files_of(package)})


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_the_import_contracts_hold() -> None:
    """pyproject.toml lists the layers of each package; imports inside functions count as well."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_a_network_came_from_is_asked_where_it_comes_in_alone() -> None:
    """Everything else uses :class:`compress.networks.network_interface.Network`."""
    kinds = re.compile(r"(isinstance\(|case ).*\b(Arch|Timm|OnnxFile|GivenModule)\b")
    asking = {
        path.name for package in ("compress", "nas") for path in files_of(package) if kinds.search(path.read_text())
    }
    assert asking == {"network_source.py", "as_artifact.py", "given_model.py"}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_contracts_see_every_file(package: str) -> None:
    """A folder without __init__.py would be invisible to them and missing in the wheel."""
    files = files_of(package)
    assert files
    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    assert graph.modules == {module_name(path) for path in files}


def test_the_layers_of_a_package_are_all_that_is_in_it() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layered = {name: contract for contract in contracts for name in contract.get("containers", ())}
    assert {"hw_profiles", "compress", "nas"} <= set(layered)
    for name, contract in layered.items():
        folder = ROOT.joinpath(*name.split("."))
        there = {path.stem for path in folder.glob("*.py")} | {
            path.parent.name for path in folder.glob("*/__init__.py")
        }
        assert {part.strip() for layer in contract["layers"] for part in layer.split("|")} == there - {"__init__"}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_holds_more_than_a_reader_can_survey(package: str) -> None:
    folders = folders_of(package)
    assert folders
    for folder in folders:
        modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MOST_MODULES, f"{folder.relative_to(ROOT)} holds {len(modules)} modules"


def test_hardware_profiles_import_torch_only_to_read_modules() -> None:
    files = [path for path in files_of("hw_profiles") if "torch_io" not in path.parts]
    assert files
    for path in files:
        assert "torch" not in imported(path), path.name


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_every_module_leaves_the_public_names_as_they_are(package: str) -> None:
    """A module of the name of a lazily imported function would take its place once something imports it."""
    names = importlib.import_module(package).__all__
    first = {name: getattr(importlib.import_module(package), name) for name in names}
    for found in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    for name in names:
        again = getattr(importlib.import_module(package), name)
        assert not isinstance(again, ModuleType), name
        assert again is first[name], name
        assert not (ROOT / package / f"{name}.py").exists()
        assert not (ROOT / package / name / "__init__.py").exists()


LIGHT = (
    "import blocks, hw_profiles, search_spaces, compress, nas",
    "main(['list'])",
    "main(['devices', '--json'])",
    "main(['profile', 'resnet8', '--precision', 'int8'])",
    "main(['select', '--latency', '9ms', '--html', '/dev/null'])",
    "try: main(['--help'])\nexcept SystemExit: pass",
    "from search_spaces import sample; sample('mobilenet', seed=0).workload()",
)


def test_torch_and_timm_are_not_loaded() -> None:
    """By any of these, one after the other in one process."""
    code = (
        f"import sys\nfor code in {LIGHT!r}:\n    exec(code)\n    heavy = {{'torch', 'timm'}} & set(sys.modules)\n"
        "    if heavy: sys.exit(f'{code} loaded {heavy}')\n    from nas.commands.main import main"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
