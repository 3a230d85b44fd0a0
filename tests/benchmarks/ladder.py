"""What each rung of the tolerance ladder brings and costs where plain int8 loses too much.

    python tests/benchmarks/ladder.py --data FILE.npz --minutes 30

Each line: one of the trained networks of ``networks/`` and the plan of plain int8 with at most half a point of accuracy
lost, for a microcontroller, on which int8 is faster (latency estimated): what was tried in turn, with the points that it
lost on the validation images, its coded bytes and seconds, and what the deployed file loses on the test images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
import nas
from compress.stages.plan_file import Plan
from nas.compression.strengths import PLAIN_INT8
from tests.benchmarks.lines import extend, latest_by_case
from tests.benchmarks.markdown import commits, table
from tests.benchmarks.train_networks import MAKERS, NETWORKS

NAME, ALLOWED = "ladder", 0.5
_SHOWN = ("rung", "val_accuracy", "coded_bytes", "latency_ms", "seconds", "accepted", "rejection_reason")


def climbed(case: str, seed: int, *, data: Path, device: str) -> dict[str, Any]:
    """What was tried for one network."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.toml"
        plan.write_text(Plan(stages=(PLAIN_INT8,)).to_toml())
        found = nas.compress(
            NETWORKS / case, data=str(data), size=32, device=device, seed=seed, plan=plan, max_accuracy_drop=ALLOWED,
            latency_from="estimated", stage_epochs=1, out=Path(folder) / "run",
        ).metrics  # fmt: skip
    (row,) = found["waterfall"][1:]
    return {
        "device": device,
        "reference_test_accuracy": found["reference_test_accuracy"],
        "test_accuracy": found["test_accuracy"],
        "test_points_lost": found["test_change"]["points"],
        "accepted": row["accepted"],
        "tried": [{**{name: each[name] for name in _SHOWN}, **each["change"]} for each in row["tried"]],
    }


def ladder() -> str:
    """The section of docs/benchmarks.md."""
    lines = [line for group in latest_by_case(NAME).values() for line in group]
    if not lines:
        return ""
    rows = [
        (
            line["case"], each["rung"], f"{each['points']:.2f} ({each['low']:.2f} to {each['high']:.2f})",
            f"{each['coded_bytes']:,}", f"{each['seconds']:.0f}", "yes" if each["accepted"] else "no",
            f"{line['test_points_lost']:.2f}" if each is line["tried"][-1] and line["accepted"] else "",
        )
        for line in lines
        for each in line["tried"]
    ]  # fmt: skip
    head = ("network", "tried", "points lost on validation images", "coded bytes", "seconds", "accepted",
            "points lost on test images")  # fmt: skip
    return (
        f"## The tolerance ladder\n\n`python tests/benchmarks/ladder.py`; commit {commits(lines)}. Plain int8 with at most "
        f"{ALLOWED} points lost for {lines[0]['device']}, and what was tried in its place.\n\n{table(head, rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as .npz: x_train, y_train, x_test, y_test")
    parser.add_argument("--device", default="stm32f746")
    parser.add_argument("--case", choices=list(MAKERS), action="append")
    parser.add_argument("--minutes", type=float, default=30)
    given = parser.parse_args()
    cases = [(case, 0) for case in given.case or MAKERS]
    extend(NAME, cases, partial(climbed, data=given.data, device=given.device), given.minutes)


if __name__ == "__main__":
    main()
