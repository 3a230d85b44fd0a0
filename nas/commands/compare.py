"""``nas compare``: two files on the same images."""

from __future__ import annotations

import json
import math
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.commands.text_table import aligned, cut, printable
from nas.errors import InputError, user_input

_NAME_WIDTH = 48
_WORST = 5  # layers that are listed
_VALID = "an .onnx file, an .fnz file or the folder of a finished run"


@dataclass(frozen=True, slots=True)
class _Given:
    """A file of the command line, and the data and seed of the run that it is of."""

    label: str
    file: bytes
    file_bytes: int
    data: str | None = None
    seed: int | None = None


def run_compare(parsed: Namespace) -> None:
    """Print what the command line asks for.

    Raises:
        InputError: no such file, data that do not fit, or options that do not go together.
    """
    with user_input():
        given = [_read(Path(path)) for path in (parsed.a, parsed.b)]
        data = parsed.data or given[0].data or given[1].data
        if data is None:
            raise InputError("compare needs images: --data with what the networks were trained on")
        facts = _facts(given, data, _seed(parsed, given), parsed)
    print(json.dumps(_finite(facts), indent=1) if parsed.json else "\n".join(lines(facts)))


def _finite(value: Any) -> Any:
    """With None for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _facts(given: Sequence[_Given], data: str, seed: int, parsed: Namespace) -> dict[str, Any]:
    from compress.data.dataset import load_data
    from compress.file_comparison import compare_files

    images = load_data(data, seed=seed)
    found = compare_files(given[0].file, given[1].file, images, threshold=parsed.threshold)
    facts = {"a": given[0].label, "b": given[1].label, "data": data, "seed": seed, **found.to_dict()}
    facts["file_bytes"] = [each.file_bytes for each in given]  # a .fnz as it lies there
    if parsed.measure:
        facts["latency"] = _measured([each.file for each in given], parsed.device)
    return facts


def lines(facts: Mapping[str, Any]) -> list[str]:
    """The facts as a table and sentences.

    >>> none = {"layers": [], "diverges_at": None, "threshold": 0.1, "agreement": 1.0, "images": 2}
    >>> none |= {"a": "a.onnx", "b": "b.onnx", "accuracies": (1.0, 0.5), "file_bytes": (4000, 1000)}
    >>> lines(none | {"largest_difference": 0.5, "largest_logit": 2.0})[1:3]
    ['A: a.onnx  100.00 %  4,000', 'B: b.onnx   50.00 %  1,000']
    """
    rows = [
        [f"{letter}: {cut(printable(facts[letter.lower()]), _NAME_WIDTH)}", f"{100 * right:.2f} %", f"{size:,}"]
        for letter, right, size in zip("AB", facts["accuracies"], facts["file_bytes"], strict=True)
    ]
    head = ["file", "accuracy", "bytes"]
    if "latency" in facts:
        head.append("ms")
        for row, ms in zip(rows, facts["latency"]["ms"], strict=True):
            row.append(f"{ms:.4f}")
    told = [
        *aligned(head, rows, left=1),
        f"same prediction: {100 * facts['agreement']:.2f} % of {facts['images']} test images",
        f"largest difference of two logits: {facts['largest_difference']:.4g} "
        f"(largest logit of A: {facts['largest_logit']:.4g})",
        *_layer_lines(facts),
    ]
    if "latency" in facts:
        ratio, low, high = facts["latency"]["ratio"]
        told.append(f"B takes {ratio:.3f} times as long as A (90 %: {low:.3f} to {high:.3f}), measured in turn")
    return told


def _layer_lines(facts: Mapping[str, Any]) -> list[str]:
    layers, found = facts["layers"], facts["diverges_at"]
    if not layers:
        return ["layers: no tensor has the same name and shape in both"]
    limit = f"{facts['threshold']:g}"
    if found is None:
        worst = max(layers, key=lambda layer: float(layer["error"]))
        name = printable(worst["name"])
        return [f"layers: none of {len(layers)} is off by more than {limit}; most: {name} by {worst['error']:.2g}"]
    at = next(i for i, layer in enumerate(layers) if layer["name"] == found["name"])
    rows = [
        [printable(layer["name"]), printable(layer["kind"]), f"{layer['error']:.2g}"]
        for layer in layers[max(0, at - 2) : at + _WORST]
    ]
    first = f"layers: {printable(found['name'])} ({printable(found['kind'])}) is the first that is off by more than"
    return [f"{first} {limit} (relative error; {at + 1} of {len(layers)})", *aligned(["", "", "error"], rows, left=2)]


def _seed(parsed: Namespace, given: Sequence[_Given]) -> int:
    """That of the command line, else of a run, so that its test images are compared."""
    if parsed.seed is not None and parsed.seed < 0:
        raise InputError(f"--seed must be at least 0, got {parsed.seed}")
    known = [each.seed for each in given if each.seed is not None]
    return int(parsed.seed if parsed.seed is not None else known[0] if known else 0)


def _read(path: Path) -> _Given:
    if path.is_dir():
        return _of_run(path)
    if not path.is_file() or path.suffix not in (".onnx", ".fnz"):
        what = "of another kind" if path.exists() else "not there"
        raise InputError(f"compare needs {_VALID}, got {str(path)!r}: it is {what}")
    return _Given(str(path), _bytes(path), path.stat().st_size)


def _bytes(path: Path) -> bytes:
    from compress.fnz import decode_onnx
    from hw_profiles.onnx_io.load import load_model, read_file

    data = read_file(path)
    try:
        data = decode_onnx(data) if path.suffix == ".fnz" else data
        load_model(data)
    except ValueError as error:
        raise InputError(f"{path}: {str(error).removeprefix('the given bytes: ')}") from None
    return data


def _of_run(folder: Path) -> _Given:
    from nas.config import load_config

    metrics = folder / "metrics.json"
    if not metrics.is_file():
        raise InputError(f"compare needs {_VALID}, got {str(folder)!r}: it holds no metrics.json")
    name = str(json.loads(metrics.read_text()).get("deployed"))
    if name != Path(name).name or not (folder / name).is_file():
        raise InputError(f"{folder}: the deployed file {name!r} is not there")
    config = load_config(folder / "config.toml") if (folder / "config.toml").is_file() else None
    label = str(folder / name)
    of_run = (None, None) if config is None else (config.data, config.seed)
    return _Given(label, _bytes(folder / name), (folder / name).stat().st_size, *of_run)


def _measured(files: Sequence[bytes], device_name: str) -> dict[str, Any]:
    from hw_profiles import load_device
    from hw_profiles.measurement.latency_measurement import compare, measure

    device = load_device(device_name)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("a.onnx", "b.onnx")]
        for path, file in zip(paths, files, strict=True):
            path.write_bytes(file)
        ratio = compare(paths[1], paths[0], device)
        each = [measure(path, device) for path in paths]
    return {
        "device": device.name,
        "ratio": list(ratio),
        "ms": [latency.ms for latency in each],
        "low_ms": [latency.low_ms for latency in each],
        "high_ms": [latency.high_ms for latency in each],
    }
