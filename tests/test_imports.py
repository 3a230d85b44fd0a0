"""Imports go one way, and what needs no torch does not load it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "blocks": set(),
    "hw_profiles": set(),
    "search_spaces": {"blocks", "hw_profiles"},
    "compress": {"blocks", "hw_profiles", "search_spaces"},
    "nas": {"blocks", "hw_profiles", "search_spaces", "compress"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        forbidden = (imported(path) & set(MAY_IMPORT)) - MAY_IMPORT[package] - {package}
        assert not forbidden, f"{path.relative_to(ROOT)} imports {forbidden}"


def test_hardware_profiles_never_import_torch() -> None:
    for path in (ROOT / "hw_profiles").rglob("*.py"):
        if path.name == "trace.py":  # reads modules; loaded when it is given one
            continue
        assert "torch" not in imported(path), path.name


@pytest.mark.parametrize(
    "code",
    [
        "import blocks, hw_profiles, search_spaces, compress, nas",
        "from nas.commands.main import main; main(['list'])",
        "from nas.commands.main import main; main(['devices', '--json'])",
        "from nas.commands.main import main; main(['profile', 'resnet8', '--precision', 'int8'])",
        "from nas.commands.main import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from search_spaces import sample; sample('mobilenet', seed=0).workload()",
    ],
)
def test_torch_and_timm_are_not_loaded(code: str) -> None:
    check = "\nimport sys; heavy = {'torch', 'timm'} & set(sys.modules); sys.exit(f'loaded {heavy}' if heavy else 0)"
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
