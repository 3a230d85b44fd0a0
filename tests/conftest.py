"""What all tests share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_DATA = Path(tempfile.mkdtemp(prefix="fitnas-tests-"))
_WHOLE_RUNS = Path(__file__).parent / "nas"


def pytest_configure() -> None:
    """Let the device ``host``, as it ships, be that of this machine, whichever it is: nothing is measured and kept in the
    user's folder, and estimates are the same everywhere. Set before any test is collected.
    """
    os.environ["XDG_DATA_HOME"] = str(_DATA)
    from hw_profiles.devices import device_file
    from hw_profiles.devices.machine import conditions

    shipped = (Path(device_file.__file__).parent / "host.toml").read_text(encoding="utf-8")
    before, _, rest = shipped.partition("[conditions]\n")
    here = "".join(f'{name} = "{value}"\n' for name, value in conditions(1).items())
    kept = device_file.kept_file("host")
    kept.parent.mkdir(parents=True)
    kept.write_text(f"{before}[conditions]\n{here}\n[spread]{rest.partition('[spread]')[2]}", encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs first: of two processes that take file after file, neither waits long for the other at the end."""
    items.sort(key=lambda item: not item.path.is_relative_to(_WHOLE_RUNS))


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(_DATA, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _kept_processes() -> Iterator[None]:
    """Processes are used again from test to test: loading torch takes seconds."""
    from nas.execution.kept_processes import kept_processes

    with kept_processes():
        yield
