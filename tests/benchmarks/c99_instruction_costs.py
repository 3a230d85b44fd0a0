"""Costs of the kernels of our C99 programs in instructions, and the cycles of an instruction by core.

    python tests/benchmarks/c99_instruction_costs.py count --minutes 20
    python tests/benchmarks/c99_instruction_costs.py fit
    python tests/benchmarks/c99_instruction_costs.py cycles --tables FOLDER

``count`` appends, for networks with random weights, the instructions of each layer on an emulated Cortex-M4, with DSP
instructions and without, and on a Cortex-M0+, which has no floating-point unit either. ``fit`` writes ``hw_profiles/cost_model/c99_instructions.py``: for each
kind of kernel non-negative least squares of relative errors, judged on networks that are left out, a fifth at a time.
``cycles`` prints by core what published cycles of other programs (MLPerf Tiny; Espressif's kernels in plain C) are in
instructions of ours for the same networks and layers.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import lsq_linear

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress.c99 import verify, write_c99
from compress.c99.network_reader import read_network
from compress.c99.target_machines import MACHINES, Machine
from hw_profiles.cost_model.c99_instructions import CALL_INSTRUCTIONS, INSTRUCTIONS
from hw_profiles.cost_model.features import LAYER_KINDS, layer_features
from hw_profiles.network.workload import Workload
from hw_profiles.onnx_io.reader import read_onnx
from hw_profiles.runtimes.fusion import fuse
from search_spaces import Arch, preset, sample
from tests.benchmarks.lines import ROOT, extend, read
from tests.benchmarks.published.tables import TINY, features_of, table_of
from tests.benchmarks.published.workloads import single_layer
from tests.compress.c99.files import network_file

NAME = "c99_counts"
_M4 = MACHINES["cortex-m4"]
CODES: dict[str, Machine] = {
    "dsp": _M4,
    "portable": replace(_M4, name="portable", flags=(*_M4.flags, "-DKERNEL_PORTABLE")),
    "soft_float": MACHINES["cortex-m0plus"],
}
CASES = [
    *((f"tiny@{side}x{channels}", seed) for seed in range(3) for side, channels in ((28, 1), (32, 3), (64, 3), (96, 3))),
    *((f"{space}@32x3", seed) for seed in range(2) for space in ("mobilenet", "fused", "efficientnet")),
    *((f"{name}@{side}x3", 0) for name, side in (
        ("resnet8", 32), ("mobilenetv1_025", 96), ("mobilenetv2_035", 96), ("mobilenetv3_small_050", 64),
    )),
]  # fmt: skip
_PARTS = 5
_LARGEST_START = 5000.0  # instructions: what is more belongs to the size of a layer
_ALIKE = {
    "grouped": "depthwise", "conv_transpose": "conv", "matmul": "linear", "nonlinear": "elementwise", "copy": "elementwise",
}  # fmt: skip
_FILE = ROOT / "hw_profiles" / "cost_model" / "c99_instructions.py"


def arch_of(case: str, seed: int) -> Arch:
    name, side, channels = re.fullmatch(r"(\w+)@(\d+)x(\d+)", case).groups()  # type: ignore[union-attr]
    shape = (int(channels), int(side), int(side))
    if name in ("tiny", "mobilenet", "fused", "efficientnet"):
        return sample(name, seed=seed, input_shape=shape, num_classes=10)
    return preset(name, input_shape=shape, num_classes=10)


def count(file: Path) -> dict[str, Any]:
    """Of each layer its kind, quantities and instructions; and bytes of code, constants and stack."""
    workload, network = read_onnx(file), read_network(file)
    kernels = {kernel.output: kernel for kernel in fuse(workload, "c99")}
    shape = (*workload.shapes[workload.input][1:],)
    with tempfile.TemporaryDirectory() as folder:
        write_c99(file, Path(folder, "c"))
        x = np.random.default_rng(1).standard_normal((1, *shape)).astype(np.float32)
        found = verify(Path(folder, "c"), file, x, machines=list(CODES.values()), layer_images=1, emulated_images=1)
    measured = dict(zip(CODES, found.machines, strict=True))
    layers = []
    for i, layer in enumerate(network.layers):
        features = layer_features(workload, kernels[layer.output.name])
        quantities = [round(value, 9) for value in features.quantities[1:]]
        layers.append([features.kind, *quantities, *(m.instructions[i] for m in measured.values())])
    return {
        "layers": layers,
        "weight_bytes": workload.weight_bytes,
        "code_bytes": {name: m.sizes.code for name, m in measured.items()},
        "constant_bytes": {name: m.sizes.constants for name, m in measured.items()},
        "stack_bytes": {name: m.stack_bytes for name, m in measured.items()},
        "problems": list(found.problems),
    }


def count_case(case: str, seed: int) -> dict[str, Any]:
    arch = arch_of(case, seed)
    with tempfile.TemporaryDirectory() as folder:
        return count(network_file(Path(folder, "model.onnx"), arch, seed=seed))


def fitted(lines: Sequence[Mapping[str, Any]], column: int) -> dict[str, tuple[float, ...]]:
    """Instructions of a start, and millions for each million of MACs and megabytes, by kind of kernel."""
    rows: dict[str, list[tuple[list[float], float]]] = {}
    for line in lines:
        for kind, macs, moved, weights, *instructions in line["layers"]:
            if instructions[column]:
                rows.setdefault(kind, []).append(([1.0, 1e6 * macs, 1e6 * moved, 1e6 * weights], instructions[column]))
    return {kind: _of_kind(kind, found) for kind, found in rows.items()}


def _of_kind(kind: str, rows: Sequence[tuple[list[float], float]]) -> tuple[float, ...]:
    """Least squares of relative errors, none below zero. A linear layer takes its MACs, as they grow with what it reads
    and with what it writes; of other layers what they read and write counts as well."""
    quantities = np.array([each for each, _ in rows])
    wanted = np.array([each for _, each in rows], dtype=float)
    relative = quantities / wanted[:, None]
    most = np.array([_LARGEST_START, np.inf, 1e-12 if kind == "layer/linear" else np.inf, 1e-12])
    scales = relative.max(axis=0) + 1e-30
    found = lsq_linear(relative / scales, np.ones(len(wanted)), bounds=(0, most * scales + 1e-15))
    return tuple(
        float(v) if v > 1e-9 and scale > 1e-29 else 0.0 for v, scale in zip(found.x / scales, scales, strict=True)
    )


def total(line: Mapping[str, Any], costs: Mapping[str, Sequence[float]]) -> float:
    sums = 0.0
    for kind, macs, moved, weights, *_ in line["layers"]:
        known = costs.get(kind) or max(costs.values(), key=lambda each: each[1])
        sums += sum(c * q for c, q in zip(known, (1.0, 1e6 * macs, 1e6 * moved, 1e6 * weights), strict=True))
    return sums


def deviation(lines: Sequence[Mapping[str, Any]], column: int) -> float:
    """Root mean square of the logarithms of estimate / count of whole networks that were left out."""
    logs = []
    for part in range(_PARTS):
        costs = fitted([line for i, line in enumerate(lines) if i % _PARTS != part], column)
        for i, line in enumerate(lines):
            counted = sum(layer[4 + column] for layer in line["layers"])
            if i % _PARTS == part and all(layer[4 + column] for layer in line["layers"]):
                logs.append(math.log(total(line, costs) / counted))
    return math.sqrt(float(np.mean(np.square(logs))))


def fit() -> None:
    """Write the costs into the package."""
    lines = read(NAME)
    tables, unseen, deviations = {}, {}, {}
    for column, code in enumerate(CODES):
        costs = fitted(lines, column)
        unseen[code] = tuple(f"layer/{kind}" for kind in LAYER_KINDS if f"layer/{kind}" not in costs)
        for kind in unseen[code]:
            name = kind.partition("/")[2]
            costs[kind] = costs[f"layer/{_ALIKE[name]}"]
        tables[code] = {f"layer/{kind}": costs[f"layer/{kind}"] for kind in LAYER_KINDS}
        deviations[code] = round(deviation(lines, column), 4)
    print(deviations, unseen)
    text = _FILE.read_text()
    for name, value in (
        ("INSTRUCTIONS", _table_text(tables)),
        ("UNSEEN", repr(unseen)),
        ("DEVIATION", repr(deviations)),
    ):
        text = re.sub(rf"(?ms)^({name}: [^=]*= ).*?(?=^\"\"\")", lambda m, v=value: f"{m[1]}{v}\n", text)  # type: ignore[misc]
    _FILE.write_text(text)


def _literal(value: Any) -> str:
    return repr(value).replace("'", '"')


def _table_text(tables: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    lines = ["{"]
    for code, costs in tables.items():
        lines.append(f'    "{code}": {{')
        for kind, (start, *millions) in costs.items():
            lines.append(f'        "{kind}": ({start:.1f}, {", ".join(f"{each:.4g}" for each in millions)}),')
        lines.append("    },")
    return "\n".join([*lines, "}"])


_CORES = {"Cortex-M0+": "soft_float", "Cortex-M4": "dsp", "Cortex-M7": "dsp", "Cortex-M33": "dsp"}


def cycles(folder: Path) -> None:
    """Print, by core, published cycles of MLPerf Tiny's networks, and of Espressif's kernels in plain C, in instructions
    of our programs for the same."""
    ratios: dict[str, dict[str, list[float]]] = {}
    for row in table_of(folder / "mcu_mlperf_tiny.csv"):
        usual = row["precision"] == "int8" and row["division"] == "closed" and row["benchmark"] in TINY
        if usual and not row["flag"] and not row["accelerator"] and row["core"] in _CORES and row["latency_ms"]:
            taken = 1000 * float(row["latency_ms"]) * float(row["clock_mhz"])
            ours = _instructions(TINY[row["benchmark"]](), _CORES[row["core"]])
            ratios.setdefault(row["core"], {}).setdefault(row["benchmark"], []).append(taken / ours)
    for row in table_of(folder / "mcu_kernels.csv"):
        if row["variant"] == "ansi_c" and row["cin"] and row["macs"]:
            pairs = [tuple(int(float(row[key] or 1)) for key in keys)
                     for keys in (("kh", "kw"), ("stride_h", "stride_w"), ("h_in", "w_in"))]  # fmt: skip
            channels = int(float(row["cin"])), int(float(row["cout"] or row["cin"]))
            layer = single_layer(row["kind"], *channels, pairs)
            if layer is not None:
                taken = float(row["cycles"]) / _instructions(layer, "portable", call=False)
                ratios.setdefault(row["device"], {}).setdefault(row["kind"], []).append(taken)
    for core, found in ratios.items():
        means = {name: math.exp(float(np.mean(np.log(each)))) for name, each in found.items()}
        whole = [each for several in found.values() for each in several]
        middle = math.exp(float(np.mean(np.log(list(means.values())))))
        print(core, f"{middle:.3f} ({min(whole):.3f} to {max(whole):.3f})", {n: round(m, 3) for n, m in means.items()})


def _instructions(workload: Workload, code: str, *, call: bool = True) -> float:
    costs = INSTRUCTIONS[code]
    total = CALL_INSTRUCTIONS if call else 0.0
    for features in features_of(workload, "c99", "int8")[1:]:
        units = (features.quantities[0], *(1e6 * each for each in features.quantities[1:]))
        total += sum(cost * unit for cost, unit in zip(costs[features.kind], units, strict=True))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["count", "fit", "cycles"])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--tables", type=Path, help="folder with mcu_mlperf_tiny.csv and mcu_kernels.csv")
    given = parser.parse_args()
    if given.what == "count":
        extend(NAME, CASES, count_case, given.minutes)
    elif given.what == "fit":
        fit()
    else:
        cycles(given.tables)


if __name__ == "__main__":
    main()
