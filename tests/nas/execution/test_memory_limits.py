"""The memory that is free: of the machine, and of the control groups of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.execution.memory_limits import available_bytes, fair_share

MACHINE = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 4000 kB\n"}
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


def group_v2(path: str, limit: str, used: int, cache: int = 0) -> dict[str, str]:
    folder = f"{V2}{path}"
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": f"anon 1\ninactive_file {cache}\n",
    }


def group_v1(path: str, limit: int, used: int, cache: int = 0) -> dict[str, str]:
    folder = f"{V1}{path}"
    return {
        f"{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"{folder}/memory.usage_in_bytes": f"{used}\n",
        f"{folder}/memory.stat": f"cache 1\ntotal_inactive_file {cache}\n",
    }


def groups(line: str) -> dict[str, str]:
    return {**MACHINE, "proc/self/cgroup": f"{line}\n"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (MACHINE, 4_096_000),
        ({**groups("0::/a/b"), **group_v2("/a/b", "max", 7)}, 4_096_000),
        ({**groups("0::/a/b"), **group_v2("/a/b", "50000", 20000, cache=5000)}, 35000),
        ({**groups("0::/a/b"), **group_v2("/a/b", "50000", 10), **group_v2("/a", "9000", 1000)}, 8000),
        ({**groups("0::/of/the/host"), **group_v2("", "60000", 10000)}, 50000),
        ({**groups("0::/a"), **group_v2("/a", "100", 200)}, 0),
        ({**groups("4:memory:/a\n3:cpu:/a"), **group_v1("/a", 70000, 10000, cache=1000)}, 61000),
        ({**groups("4:memory:/a"), **group_v1("", 80000, 10000), **group_v1("/a", 1 << 60, 10000)}, 70000),
    ],
    ids=["none", "no limit", "own", "outer", "container", "exceeded", "v1", "v1 outer"],
)
def test_the_tightest_limit_counts(files: dict[str, str], free: int, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_bytes(tmp_path) == free


def test_workers_share_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.execution.memory_limits.available_bytes", lambda: 40 << 30)
    assert fair_share(1) == 32 << 30
    assert fair_share(4) == 8 << 30
    assert fair_share(1000) == 1 << 30
