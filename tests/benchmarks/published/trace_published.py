"""Writes ``traced_features.json``: what networks cost by kind of kernel that only PyTorch, timm or torchvision hold.

python -m tests.benchmarks.published.trace_published --tables FOLDER
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from tests.benchmarks.published.tables import TRACED, features_of
from tests.benchmarks.published.workloads import published


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True)
    with (parser.parse_args().tables / "cpu_networks.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = {(row["network"].lower(), int(row["input"].split("x")[0])) for row in rows if row["input"]
              and row["runtime"] in ("ncnn", "TFLite") and row["width"] in ("", "1.0")}  # fmt: skip
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, side in sorted(wanted):
        try:
            workload = published(name, side)
        except Exception as error:
            print(f"{name}: {error}")
            continue
        if workload is None:
            print(f"{name}: unknown")
            continue
        for runtime, precision in (("ncnn", "fp32"), ("ncnn", "int8"), ("tflite", "fp32"), ("tflite", "int8")):
            features = features_of(workload, runtime, precision)
            rounded = {each.kind: [float(f"{q:.6g}") for q in each.quantities] for each in features}
            found.setdefault(f"{runtime} {precision}", {})[f"{name} {side}"] = rounded
    TRACED.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
