"""The main job on a data set of one's own: the winner beside the preset that was trained as long.

    python tests/benchmarks/budget_run.py --data DIR --latency 0.2ms --time 40min --out runs/budget --minutes 45

Each line: accuracies on validation and test images, latency, bytes, and whether the budget was kept. A run that was
interrupted goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
import nas
from tests.benchmarks.lines import extend

SHOWN = ("label", "val_accuracy", "test_accuracy", "params", "macs", "file_bytes", "latency_ms", "latency_high_ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("data", "latency", "time", "out"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--minutes", type=float, default=60)
    given = parser.parse_args()

    def run(case: str, seed: int) -> dict[str, Any]:
        start = time.monotonic()
        asked = {"latency": given.latency, "time": given.time, "seed": seed, "baseline": "resnet8"}
        result = nas.run(data=given.data, device="host", out=f"{given.out}_{seed}", **asked)
        rows = [{name: row.get(name) for name in (*SHOWN, "rejection_reason")} for row in result.metrics["rows"]]
        minutes = round((time.monotonic() - start) / 60, 1)
        return {**asked, "minutes": minutes, "verdict": result.metrics["verdict"], "rows": rows}

    extend("budget_run", [(Path(given.data).name, 0)], run, given.minutes)


if __name__ == "__main__":
    main()
