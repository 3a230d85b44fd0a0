"""The pages that say where things are name files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
