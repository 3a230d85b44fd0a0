"""The traced workloads of timm's models, as package data: compressed JSON."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_profiles.model_zoo.workload_records import Record, from_records
from hw_profiles.network.workload import Workload

FILE = Path(__file__).parent / "workloads.json.xz"
_SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredNetwork:
    """One architecture at one image size: what it computes in float32, and the parameters of its module."""

    architecture: str
    image_size: int
    params: int
    workload: Workload


def stored_networks(file: Path = FILE) -> Iterator[StoredNetwork]:
    """The networks of a file that :func:`write_networks` wrote, one after the other.

    >>> network = next(stored_networks())
    >>> network.architecture, network.workload.shapes[network.workload.output]
    ('bat_resnext26ts', (1, 1000))
    """
    stored = _read(file)
    for row in stored["networks"]:
        operations = [stored["operations"][number] for number in row["operations"]]
        records: list[Record] = [[*op, inputs] for op, inputs in zip(operations, row["inputs"], strict=True)]
        yield StoredNetwork(
            architecture=row["architecture"],
            image_size=row["image_size"],
            params=row["params"],
            workload=from_records((1, 3, row["image_size"], row["image_size"]), records),
        )


def untraceable(file: Path = FILE) -> dict[str, str]:
    """The networks that could not be traced, as ``architecture@image_size``, and why."""
    reasons: dict[str, str] = _read(file)["untraceable"]
    return reasons


def write_networks(lines: Iterable[dict[str, Any]], file: Path) -> None:
    """Store the lines of :mod:`hw_profiles.model_zoo.trace_models`; an operation that many networks have stands in the
    file once.
    """
    operations: dict[str, int] = {}
    networks, reasons = [], {}
    for line in sorted(lines, key=lambda line: (line["architecture"], line["image_size"])):
        if "error" in line:
            reasons[f"{line['architecture']}@{line['image_size']}"] = line["error"]
            continue
        texts = [_text(record[:-1]) for record in line["operations"]]
        networks.append(
            {
                **{name: line[name] for name in ("architecture", "image_size", "params")},
                "operations": [operations.setdefault(text, len(operations)) for text in texts],
                "inputs": [record[-1] for record in line["operations"]],
            }
        )
    unique = [json.loads(text) for text in operations]
    stored = {"schema": _SCHEMA, "untraceable": reasons, "operations": unique, "networks": networks}
    file.write_bytes(lzma.compress(_text(stored).encode(), preset=9 | lzma.PRESET_EXTREME))


def _read(file: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(lzma.decompress(file.read_bytes()))
    return stored


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
