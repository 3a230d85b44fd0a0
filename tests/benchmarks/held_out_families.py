"""How far estimates of the devices that ship miss on published networks of families that were not fitted.

    python tests/benchmarks/held_out_families.py --tables FOLDER --minutes 10

Each line is one device in one precision: every family of its published networks is predicted by costs fitted to the
others, beside one time for each MAC fitted to the same networks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.lines import extend
from tests.benchmarks.make_devices import costs_of
from tests.benchmarks.published.devices import SPECS
from tests.benchmarks.published.tables import rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tables", type=Path, required=True)
    options = parser.parse_args()
    measured = rows(options.tables)
    cases = {f"{spec.name} {precision}": (spec, precision) for spec in SPECS for precision, tables in spec.tables.items()
             if tables.own}  # fmt: skip

    def run(case: str, seed: int) -> dict[str, Any]:
        spec, precision = cases[case]
        _, spread, found, _ = costs_of(spec, precision, spec.tables[precision], measured)
        if found is None:
            return {"networks": 0}
        return {
            "networks": found.networks, "families": found.families, "mean_error": found.mean_error,
            "macs_error": found.macs_error, "within_interval": found.within_interval, "spread": round(spread, 4),
        }  # fmt: skip

    extend("held_out_families", [(case, 0) for case in cases], run, options.minutes)


if __name__ == "__main__":
    main()
