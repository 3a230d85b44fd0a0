"""What identifies a machine, from files as Linux has them on several processors."""

from __future__ import annotations

from pathlib import Path

import pytest

from hw_profiles.devices import machine
from hw_profiles.devices.machine import conditions, differing_conditions, matches_this_machine

XEON = """processor : 0
vendor_id	: GenuineIntel
cpu family	: 6
model		: 207
model name	: Intel(R) Xeon(R) Processor
stepping	: 2
flags		: fpu sse4_1 avx2 avx512f avx512_vnni amx_int8 avx_vnni md_clear fma

processor : 1
model		: 106
"""
PI = """processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x4
CPU part	: 0xd0b
CPU revision	: 1

Hardware	: BCM2835
"""


def structure(kind: int, body: bytes) -> bytes:
    """One of the firmware's table (SMBIOS): kind, length, handle, body, and its texts."""
    return bytes([kind, 4 + len(body), 0, 0]) + body + b"text\0\0"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    machine._conditions.cache_clear()
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "_CPU", tmp_path / "cpu0")
    monkeypatch.setattr(machine, "_FIRMWARE", tmp_path / "DMI")
    yield tmp_path
    machine._conditions.cache_clear()


def test_generations_of_one_name_differ(files: Path) -> None:
    (files / "cpuinfo").write_text(XEON)
    here = conditions(1)
    assert here["cpu"] == "Intel(R) Xeon(R) Processor"
    assert (here["family"], here["model"], here["stepping"]) == ("6", "207", "2")
    assert here["flags"] == "amx_int8 avx2 avx512_vnni avx512f avx_vnni fma sse4_1"
    machine._conditions.cache_clear()
    (files / "cpuinfo").write_text(XEON.replace("207", "106").replace("amx_int8 ", ""))
    assert differing_conditions(here, 1) == ("model", "flags")
    assert not matches_this_machine(here, 1)


def test_what_a_file_does_not_state_is_not_taken_as_equal(files: Path) -> None:
    (files / "cpuinfo").write_text(XEON)
    stated = {name: value for name, value in conditions(1).items() if name != "stepping"}
    assert differing_conditions(stated, 1) == ("stepping",)
    assert not matches_this_machine(stated, 1)
    assert not matches_this_machine({**conditions(1), "caches": "L3 1K"}, 1)  # stated there, unknown here
    assert matches_this_machine({**conditions(1), "date": "2026-01-01"}, 1)


def test_arm_is_told_by_its_part(files: Path) -> None:
    (files / "cpuinfo").write_text(PI)
    here = conditions(4)
    assert (here["family"], here["model"], here["stepping"], here["threads"]) == ("0x41", "0xd0b", "1", "4")
    assert (here["cpu"], here["flags"]) == ("BCM2835", "asimd asimddp")


def test_caches_and_clocks_are_read_where_they_are_stated(files: Path) -> None:
    for index, entries in enumerate([("1", "Data", "48K"), ("2", "Unified", "2048K")]):
        folder = files / "cpu0" / "cache" / f"index{index}"
        folder.mkdir(parents=True)
        for name, value in zip(("level", "type", "size"), entries, strict=True):
            (folder / name).write_text(f"{value}\n")
    (files / "cpu0" / "cpufreq").mkdir()
    (files / "cpu0" / "cpufreq" / "cpuinfo_max_freq").write_text("1800000\n")
    memory = structure(17, bytes(0x20 - 4) + (5600).to_bytes(2, "little"))
    empty = structure(17, bytes(0x20 - 4 + 2))
    (files / "DMI").write_bytes(structure(4, b"1234") + memory + empty + structure(127, b""))
    here = conditions(1)
    assert (here["caches"], here["clock_mhz"], here["memory_mt_per_s"]) == ("L1d 48K, L2 2048K", "1800", "5600")
    assert matches_this_machine({**here, "clock_mhz": "3600", "memory_mt_per_s": ""}, 1)


@pytest.mark.parametrize("table", [b"", b"\x11", b"\x11\x00\x00\x00", b"\x11\xff" + bytes(100), bytes(1000)])
def test_a_broken_table_of_the_firmware_does_no_harm(table: bytes, files: Path) -> None:
    (files / "DMI").write_bytes(table)
    assert "memory_mt_per_s" not in conditions(1)
