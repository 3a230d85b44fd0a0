"""The kit for boards: it builds without a warning, runs, and what it prints makes a device."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from compress.c99.board_kit import write_board_kit
from compress.c99.target_machines import STRICT
from hw_profiles import load_device
from hw_profiles.device_kit.kit_networks import board_names
from hw_profiles.device_kit.kit_results import device_of_result, parse_result
from hw_profiles.devices.c99_program import with_c99_costs
from hw_profiles.devices.device_runtimes import with_runtime
from hw_profiles.errors import InputError
from tests.optional_parts import require


def test_the_project_runs_and_its_output_makes_a_device(tmp_path: Path) -> None:
    require(shutil.which("cc") is not None, "needs a C compiler")
    folder = tmp_path / "kit"
    files = write_board_kit(folder)
    assert {file.name for file in files} >= {"README.md", "Makefile", "board_port.c"}
    main = folder / "board_main.c"
    main.write_text(main.read_text().replace("LEAST_MICROSECONDS 200000u", "LEAST_MICROSECONDS 1000u"))  # for a test
    sources = sorted(folder.glob("*.c"))
    built = subprocess.run(
        ["cc", *STRICT, "-Werror", "-O1", "-o", "kit", *sources],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[:2000]
    printed = subprocess.run([folder / "kit"], capture_output=True, check=True).stdout
    result = parse_result(printed, "serial port")
    assert [each.network for each in result.times] == list(board_names())
    assert all(each.latency_ms > 0 for each in result.times)
    found = device_of_result(load_device("stm32f746"), result, "mine")
    assert (found.device.runtime, list(found.device.costs)) == ("c99", ["int8"])
    assert found.used + len(found.set_aside) == len(board_names())


def test_it_fits_a_small_board(tmp_path: Path) -> None:
    write_board_kit(tmp_path)
    said = re.search(r"needs ([\d,]+) bytes of RAM, .* take ([\d,]+)\nbytes", (tmp_path / "README.md").read_text())
    assert said is not None
    ram, flash = (int(number.replace(",", "")) for number in said.groups())
    declared = re.search(r"KIT_ARENA_BYTES (\d+)", (tmp_path / "networks.h").read_text())
    assert declared is not None
    assert int(declared[1]) == ram < 48_000
    assert flash < 400_000
    with pytest.raises(InputError, match="already exists and is not an empty folder"):
        write_board_kit(tmp_path)


@pytest.mark.parametrize("name", ["esp32-s3", "stm32f746"])
def test_programs_of_ours_start_with_their_counted_instructions(name: str) -> None:
    """Not with what other software takes, whatever it is called."""
    assert with_runtime(name, "c99") == with_c99_costs(load_device(name))
