"""Published latencies as one list: the folder with the tables is an argument, nothing of it is in the repository."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hw_profiles.cost_model.features import CostFeatures, network_features
from hw_profiles.network.workload import Workload
from hw_profiles.runtimes.fusion import fuse
from search_spaces import preset
from tests.benchmarks.published.workloads import (
    autoencoder,
    ds_cnn,
    mobilenet_v1,
    nas_bench_201,
    published,
    resnet_v1,
    single_layer,
)

TRACED = Path(__file__).with_name("traced_features.json")
"""Cost features of networks that only PyTorch can read, by runtime, precision and name; see ``trace_published.py``."""
_KINDS = {
    "macs_conv": ("first", "conv"), "macs_conv1x1": ("pointwise",), "macs_dwconv": ("depthwise",), "macs_fc": ("linear",)
}  # fmt: skip
_FLOATS = ("float32", "fp16", "ncnn default (fp16/fp32)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A latency that somebody published, and what the network costs by kind of kernel."""

    table: str  # who measured: rows of one table share machine, software and threads
    network: str
    family: str
    runtime: str
    precision: str
    ms: float
    macs: float
    features: tuple[CostFeatures, ...]
    source: str
    power_mw: float | None = None
    workload: Workload | None = None


def rows(folder: Path) -> list[Published]:
    """All that can be read of all tables."""
    return [*cpu_networks(folder), *mcu_networks(folder), *mlperf_tiny(folder), *kernels(folder), *nrf5340(folder)]


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _source(row: Mapping[str, str]) -> str:
    path = row["source_path"] if "/results/" not in row["source_path"] else row["source_path"].partition("/results/")[0]
    return f"{row['source_repo']} {path} @{row['source_commit'][:10]}".strip(" @")


def cpu_networks(folder: Path) -> Iterator[Published]:
    """Networks on boards, phones and computers, on their CPUs."""
    traced = json.loads(TRACED.read_text()) if TRACED.is_file() else {}
    runtimes = {"ncnn": "ncnn", "TFLite": "tflite", "TensorFlow Lite": "tflite", "ArmNN": "tflite"}
    for row in table_of(folder / "cpu_networks.csv"):
        if row["runtime"] not in runtimes or row["compute_unit"] not in ("", "CPU") or row["accelerator"]:
            continue
        precision = "int8" if row["precision"] == "int8" else "fp32" if row["precision"] in _FLOATS else None
        ms = _number(row["mean_ms"]) or _number(row["latency_ms"])
        if precision is None or not ms:
            continue
        runtime = runtimes[row["runtime"]]
        side = int(row["input"].split("x")[0]) if row["input"] else 224
        found, workload = _cpu_features(row, traced, runtime, precision, side)
        if found is None:
            continue
        power = _number(row["power_w"])
        yield Published(
            table="|".join((row["device"], row["runtime"], row["runtime_version"], row["threads"], row["precision"])),
            network=f"{row['network']} {row['width']} {side}".strip(),
            family=_family(row["network"]),
            runtime=runtime,
            precision=precision,
            ms=ms,
            macs=_number(row["macs"])
            or 1e6 * sum(each.quantities[1] for each in found if each.kind.startswith("layer/")),
            features=found,
            source=_source(row),
            power_mw=None if power is None else 1000 * power,
            workload=workload,
        )


_FAMILIES = {
    "mobilenetv3": "mobilenet_v3", "mobilenet_v3": "mobilenet_v3", "mobilenet_v2": "mobilenet_v2",
    "mobilenetv2": "mobilenet_v2", "mobilenet": "mobilenet_v1", "squeezenet": "squeezenet", "mixnet": "mixnet",
    "resnet": "resnet",
}  # fmt: skip


def _family(network: str) -> str:
    """Networks of one backbone are one family, detectors too."""
    name = network.lower().replace("-", "_").removesuffix("_int8")
    return next((family for start, family in _FAMILIES.items() if name.startswith(start)), name)


def _cpu_features(
    row: Mapping[str, str], traced: Mapping[str, Mapping[str, Mapping[str, list[float]]]], runtime: str,
    precision: str, side: int,
) -> tuple[tuple[CostFeatures, ...] | None, Workload | None]:  # fmt: skip
    width, name = _number(row["width"]) or 1.0, row["network"].lower()
    if name.startswith("mobilenet") and "v3" not in name.partition("_yolo")[0]:
        workload = published(name, side, width, 1001 if runtime == "tflite" else 1000)
        if workload is not None:
            return _scaled(row, features_of(workload, runtime, precision)), workload
    by_kind = traced.get(f"{runtime} {precision}", {}).get(f"{name} {side}")
    if by_kind is None or width != 1.0:
        return None, None
    return _scaled(row, [_of_row(kind, quantities) for kind, quantities in by_kind.items()]), None


def _of_row(kind: str, quantities: Sequence[float]) -> CostFeatures:
    return CostFeatures(kind, (), tuple(quantities))


def _scaled(row: Mapping[str, str], features: Sequence[CostFeatures]) -> tuple[CostFeatures, ...] | None:
    """The features with the MACs of each kind that the table states: for detectors and near relatives. None where a
    kind has none to be scaled, or more than three times as many.
    """
    found = {each.kind: each for each in features}
    for column, names in _KINDS.items():
        wanted = _number(row.get(column, ""))
        if wanted is None or wanted < 1e5:
            continue
        kinds = [f"layer/{name}" for name in names if f"layer/{name}" in found]
        have = sum(1e6 * found[kind].quantities[1] for kind in kinds)
        if not have or not 1 / 3 < wanted / have < 3:
            return None
        for kind in kinds:
            found[kind] = CostFeatures(kind, (), tuple(q * wanted / have for q in found[kind].quantities))
    return tuple(found.values())


def features_of(workload: Workload, runtime: str, precision: str) -> tuple[CostFeatures, ...]:
    """The features of a network in a runtime, those of one kind added up: costs of layers are linear in them."""
    workload = workload.with_precision(precision)
    sums: dict[str, tuple[float, ...]] = {}
    for each in network_features(workload, fuse(workload, runtime)):
        before = sums.get(each.kind, (0.0,) * len(each.quantities))
        sums[each.kind] = tuple(a + b for a, b in zip(before, each.quantities, strict=True))
    return tuple(CostFeatures(kind, (), quantities) for kind, quantities in sums.items())


def _mcu_workload(name: str, side: int, channels: int) -> Workload | None:
    """Networks of ST's model zoo, and two of TensorFlow Lite Micro."""
    name = name.lower()
    classes = 5 if "fft" in name or "tfs" in name else 1000
    width = next((float(part) for part in name.split() if part.replace(".", "").isdigit() and float(part) <= 1.4), 1.0)
    builders: dict[str, Callable[[], Workload | None]] = {
        "person_detect": lambda: mobilenet_v1(0.25, side, 2, channels),
        "mobilenetv3 small": lambda: preset("mobilenetv3_small_100", num_classes=classes).workload(),
        "mobilenet v1": lambda: mobilenet_v1(width, side, classes if side > 96 else 2, channels),
        "mobilenet v2": lambda: published("mobilenet_v2", side, width, classes),
        "fdmobilenet": lambda: mobilenet_v1(width, side, 5, fast=True),
        "st fdmobilenet": lambda: mobilenet_v1(0.375, side, 5, fast=True),
        "resnet v1": lambda: resnet_v1(8 if " 8" in name else 32, side),
    }
    return next((build() for start, build in builders.items() if name.startswith(start)), None)


def mcu_networks(folder: Path) -> Iterator[Published]:
    """Networks of ST's model zoo on its microcontrollers, and of TensorFlow Lite Micro on others."""
    runtimes = {"STM32Cube.AI": "c99", "tflite-micro + ESP-NN": "tflite", "tflite-micro + CMSIS-NN": "tflite"}
    for row in table_of(folder / "mcu_networks.csv"):
        ms = _number(row["latency_ms"])
        runtime = runtimes.get(row["runtime"])
        if runtime is None or not ms or row["precision"] != "int8" or not row["input"] or "2 cores" in row["config"]:
            continue
        sides = row["input"].split("x")
        workload = _mcu_workload(row["network"], int(sides[0]), int(sides[2]) if len(sides) > 2 else 3)
        features = None if workload is None else _scaled(row, features_of(workload, runtime, "int8"))
        if workload is None or features is None:
            continue
        yield Published(
            table=f"{row['mcu']}|{row['runtime']}|{row['runtime_version']}", network=f"{row['network']} {row['input']}",
            family=" ".join(row["network"].lower().removeprefix("st ").split()[:2]).partition(" 0")[0],
            runtime=runtime, precision="int8", ms=ms, macs=float(row["macs"] or workload.macs), features=features, source=_source(row),
            workload=workload,
        )  # fmt: skip


TINY = {"ic": lambda: resnet_v1(8), "kws": ds_cnn, "vww": lambda: mobilenet_v1(0.25, 96, 2), "ad": autoencoder}


def mlperf_tiny(folder: Path) -> Iterator[Published]:
    """MLPerf Tiny on CPUs; rows in which dead channels were dropped are left out."""
    for row in table_of(folder / "mcu_mlperf_tiny.csv"):
        ms = _number(row["latency_ms"])
        if row["division"] != "closed" or row["accelerator"] or row["flag"] or not ms or row["precision"] != "int8":
            continue
        if row["benchmark"] not in TINY:
            continue
        software = row["software"].partition(";")[0].partition(",")[0].strip()
        runtime = "tflite" if "ensorFlow Lite" in software or "tflite" in software else "c99"
        workload = TINY[row["benchmark"]]()
        yield Published(
            table=f"{row['mcu'][:11]}|{software}|{row['clock_mhz']}", network=row["model"], family=row["benchmark"],
            runtime=runtime, precision="int8", ms=ms, macs=float(row["macs"]),
            features=features_of(workload, runtime, "int8"),
            source=f"mlcommons/tiny_results_{row['round']} {row['source_performance'].partition('/results/')[0]} "
            f"@{row['source_commit'][:10]}",
            power_mw=_number(row["power_mw"]), workload=workload,
        )  # fmt: skip


def kernels(folder: Path) -> Iterator[Published]:
    """Layers that were measured alone."""
    for row in table_of(folder / "mcu_kernels.csv"):
        ms, macs = _number(row["time_us"]), _number(row["macs"])
        if row["accelerator"] or row["bits"] != "8" or not ms or not macs or row["runtime"] == "esp-dl":
            continue
        if row["variant"] == "ansi_c" or not row["cin"]:
            continue
        pairs = [tuple(int(float(row[key] or 1)) for key in keys)
                 for keys in (("kh", "kw"), ("stride_h", "stride_w"), ("h_in", "w_in"))]  # fmt: skip
        cout = int(float(row["cout"] or row["cin"]))
        layer = single_layer(row["kind"], int(float(row["cin"])), cout, pairs)
        if layer is None:
            continue
        yield Published(
            table=f"{row['device']}|{row['runtime']}|{row['variant']}|kernels", family=row["kind"],
            network=f"{row['kind']} {row['cin']}-{cout} {row['h_in']}x{row['w_in']}", runtime="tflite",
            precision="int8", ms=ms / 1000, macs=macs, features=features_of(layer, "tflite", "int8")[1:],
            source=_source(row), workload=layer,
        )  # fmt: skip


def nrf5340(folder: Path) -> Iterator[Published]:
    """Cells of NAS-Bench-201 on the nRF5340."""
    for row in table_of(folder / "nb201_mcu_nrf5340.csv"):
        workload = nas_bench_201(row["arch_code"])
        yield Published(
            table="nRF5340|tflite-micro", network=row["arch_code"], family=row["arch_code"][0], runtime="tflite",
            precision="int8", ms=float(row["latency_ms"]), macs=float(row["macs_live"]),
            features=features_of(workload, "tflite", "int8"), source=_source(row), power_mw=_number(row["power_mw"]),
            workload=workload,
        )  # fmt: skip
