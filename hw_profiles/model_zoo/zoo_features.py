"""What an estimate of every stored network needs, worked out once for each runtime and precision.

Tracing, fusing and planning a thousand networks takes minutes. Their results do not depend on the device: the cost
features of the kernels and how often each occurs, the peak of the memory, the bytes of the weights. They are package
data, so that a device's costs are all that is left to apply.
"""

from __future__ import annotations

import io
import logging
import lzma
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.cost_model.features import CostFeatures, network_features
from hw_profiles.memory.planner import plan
from hw_profiles.model_zoo.stored_workloads import StoredNetwork, stored_networks
from hw_profiles.runtimes.fusion import fuse

_FOLDER = Path(__file__).parent
_REPORT_SECONDS = 5.0
_SAME_KERNELS = {"torch": "ncnn"}  # runtimes that are taken to fuse and plan alike
_log = logging.getLogger("fitnas")

Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ZooFeatures:
    """``features`` are those of all networks, each once; ``counts`` says how often feature ``members`` occurs in
    network ``owners``. The other arrays hold one number for each network, in the order of ``architectures``.
    """

    features: tuple[CostFeatures, ...]
    owners: Integers
    members: Integers
    counts: Integers
    architectures: tuple[str, ...]
    image_sizes: Integers
    params: Integers
    macs: Integers
    weight_counts: Integers
    weight_bytes: Integers
    peak_bytes: Integers

    def totals(self, costs: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum over each network of what its features cost."""
        weights = self.counts * costs[self.members]
        sums: NDArray[np.float64] = np.bincount(self.owners, weights, len(self.architectures)).astype(np.float64)
        return sums


@lru_cache(maxsize=4)
def zoo_features(runtime: str, precision: str) -> ZooFeatures:
    """Of all stored networks: read from the package, or worked out where the package holds none of this runtime.

    >>> found = zoo_features("ort", "int8")
    >>> len(found.architectures) > 1000, found.features[0].kind
    (True, 'call/call')
    """
    path = features_file(runtime, precision)
    if path.is_file():
        return read_features(path)
    _log.info("no stored features for the runtime %s; computing them (30 s or more)", runtime)
    return work_out_features(_told(stored_networks()), runtime, precision)


def _told(networks: Iterable[StoredNetwork]) -> Iterator[StoredNetwork]:
    """The networks, with a line in the log every few seconds."""
    reported = time.monotonic()
    for number, network in enumerate(networks):
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            _log.info("%d networks computed", number)
        yield network


def features_file(runtime: str, precision: str) -> Path:
    """Where the package keeps them.

    >>> features_file("torch", "fp32").name
    'features_ncnn_fp32.npz.xz'
    """
    return _FOLDER / f"features_{_SAME_KERNELS.get(runtime, runtime)}_{precision}.npz.xz"


def work_out_features(networks: Iterable[StoredNetwork], runtime: str, precision: str) -> ZooFeatures:
    """Fuse and plan each network as ``profile`` does."""
    numbers: dict[CostFeatures, int] = {}
    entries: list[tuple[int, int, int]] = []
    rows: list[tuple[int, ...]] = []
    names: list[str] = []
    for network in networks:
        workload = network.workload.with_precision(precision)
        kernels = fuse(workload, runtime)
        for features, count in Counter(network_features(workload, kernels)).items():
            entries.append((len(names), numbers.setdefault(features, len(numbers)), count))
        weight_count, weight_bytes = workload.weight_amounts()
        peak = plan(workload, kernels, runtime).arena_bytes
        rows.append((network.image_size, network.params, workload.macs, weight_count, weight_bytes, peak))
        names.append(network.architecture)
    owners, members, counts = np.array(entries, dtype=np.int64).reshape(-1, 3).T
    sizes, params, macs, weight_counts, stored_bytes, peaks = np.array(rows, dtype=np.int64).reshape(-1, 6).T
    return ZooFeatures(
        features=tuple(numbers), owners=owners, members=members, counts=counts, architectures=tuple(names),
        image_sizes=sizes, params=params, macs=macs, weight_counts=weight_counts, weight_bytes=stored_bytes,
        peak_bytes=peaks,
    )  # fmt: skip


_NUMBERS = ("image_sizes", "params", "macs", "weight_counts", "weight_bytes", "peak_bytes")


def write_features(zoo: ZooFeatures, path: Path) -> None:
    """Numpy's own format, compressed as a whole.

    The numbers of the features of one kind are columns of places in the sorted list of all numbers that occur: there
    are few, and integers compress better.
    """
    kinds = sorted({features.kind for features in zoo.features})
    values = np.unique([value for f in zoo.features for value in (*f.coordinates, *f.quantities)])
    order = sorted(range(len(zoo.features)), key=lambda i: kinds.index(zoo.features[i].kind))  # keeps first ones first
    moved = np.empty(len(order), dtype=np.int64)
    moved[order] = np.arange(len(order))
    arrays: dict[str, NDArray[Any]] = {
        "values": values,
        "kinds": np.array(kinds),
        "architectures": np.array(zoo.architectures),
        "members": _small(moved[zoo.members]),
        "owners": _small(np.diff(zoo.owners, prepend=0)),
        "counts": _small(zoo.counts),
        **{name: getattr(zoo, name) for name in _NUMBERS},
    }
    for number, kind in enumerate(kinds):
        mine = [zoo.features[i] for i in order if zoo.features[i].kind == kind]
        arrays[f"coordinates_{number}"] = _small(np.searchsorted(values, np.array([f.coordinates for f in mine]).T))
        arrays[f"quantities_{number}"] = _small(np.searchsorted(values, np.array([f.quantities for f in mine]).T))
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    path.write_bytes(lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def read_features(path: Path) -> ZooFeatures:
    """What :func:`write_features` wrote."""
    with np.load(io.BytesIO(lzma.decompress(path.read_bytes())), allow_pickle=False) as arrays:
        values = arrays["values"]
        features: list[CostFeatures] = []
        for number, kind in enumerate(arrays["kinds"].tolist()):
            quantities = _rows(values[arrays[f"quantities_{number}"]])
            coordinates = _rows(values[arrays[f"coordinates_{number}"]]) or [()] * len(quantities)
            features += [CostFeatures(kind, *row) for row in zip(coordinates, quantities, strict=True)]
        return ZooFeatures(
            features=tuple(features),
            owners=np.cumsum(arrays["owners"], dtype=np.int64),
            members=arrays["members"].astype(np.int64),
            counts=arrays["counts"].astype(np.int64),
            architectures=tuple(arrays["architectures"].tolist()),
            **{name: arrays[name] for name in _NUMBERS},
        )


def _rows(columns: NDArray[np.float64]) -> list[tuple[float, ...]]:
    return list(zip(*columns.tolist(), strict=True))


def _small(numbers: NDArray[np.int64]) -> NDArray[Any]:
    """In as few bytes as hold them."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
