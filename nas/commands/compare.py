"""``nas compare``: run two files on the same images."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.atomic_files import json_text, read_json
from nas.commands.output.text_table import aligned, cut, printable
from nas.config import Config, load_config
from nas.errors import InputError, user_input

if TYPE_CHECKING:
    from compress.data.dataset import Dataset

_NAME_WIDTH = 48
_WORST = 5  # layers that are listed
Facts = Mapping[str, Any]
_VALID = "an .onnx file, an .fnz file or the folder of a finished run"


@dataclass(frozen=True, slots=True)
class _Given:
    """A file of the command line, and the config of the run that it comes from."""

    label: str
    file: bytes
    file_bytes: int
    config: Config | None = None


def run_compare(parsed: Namespace) -> None:
    """Print what the command line asks for.

    Raises:
        InputError: no such file, data that do not fit, or options that do not go together.
    """
    with user_input():
        if parsed.seed is not None and parsed.seed < 0:
            raise InputError(f"--seed must be at least 0, got {parsed.seed}")
        given = [_read(Path(path)) for path in (parsed.a, parsed.b)]
        facts = _facts(given, parsed)
    print(json_text(facts) if parsed.json else "\n".join(lines(facts)))


def _facts(given: Sequence[_Given], parsed: Namespace) -> dict[str, Any]:
    from compress.file_comparison import compare_files

    data, configs = _data(given, parsed.data)
    seeds = [config.seed for config in configs]
    if parsed.seed is not None:
        seeds.insert(0, parsed.seed)
    seed = seeds[0] if seeds else 0
    images = _images(data, configs, seeds or [0])
    found = compare_files(given[0].file, given[1].file, images, threshold=parsed.threshold)
    facts = {"a": given[0].label, "b": given[1].label, "data": data, "seed": seed, **found.to_dict()}
    facts["file_bytes"] = [each.file_bytes for each in given]  # of a .fnz file, its own size
    if parsed.measure:
        facts["latency"] = _measured([each.file for each in given], parsed.device)
    return facts


def lines(facts: Mapping[str, Any]) -> list[str]:
    """The facts as a table and sentences.

    >>> none = {"layers": [], "diverges_at": None, "threshold": 0.1, "agreement": 1.0, "images": 2}
    >>> none |= {"a": "a.onnx", "b": "b.onnx", "accuracies": (1.0, 0.5), "file_bytes": (4000, 1000)}
    >>> lines(none | {"largest_difference": 0.5, "largest_logit": 2.0, "snr_db": 9})[1:3]
    ['A: a.onnx  100.00 %  4,000', 'B: b.onnx   50.00 %  1,000']
    """
    right = (
        ["no labels"] * 2 if facts["accuracies"] is None else [f"{100 * each:.2f} %" for each in facts["accuracies"]]
    )
    rows = [
        [f"{letter}: {cut(printable(facts[letter.lower()]), _NAME_WIDTH)}", each, f"{size:,}"]
        for letter, each, size in zip("AB", right, facts["file_bytes"], strict=True)
    ]
    head = ["file", "accuracy", "bytes"]
    if "latency" in facts:
        head.append("ms")
        for row, ms in zip(rows, facts["latency"]["ms"], strict=True):
            row.append(f"{ms:.4f}")
    shown = [
        *aligned(head, rows, left=1),
        *_output_lines(facts),
        *_layer_lines(facts),
    ]
    if "latency" in facts:
        ratio, low, high = facts["latency"]["ratio"]
        shown.append(
            f"B takes {ratio:.3f} times as long as A (90 % interval {low:.3f} to {high:.3f}), measured in alternation"
        )
    return shown


def _output_lines(facts: Facts) -> list[str]:
    """How far the outputs are apart: of a classifier in one line, of other networks a line for each output."""
    if facts["agreement"] is not None:
        return [
            f"same prediction for {100 * facts['agreement']:.2f} % of {facts['images']} test images",
            f"largest difference between two logits: {facts['largest_difference']:.4g} "
            f"(largest logit of A: {facts['largest_logit']:.4g}; signal-to-noise ratio {facts['snr_db']:.1f} dB)",
        ]
    rows = [
        f"output {cut(printable(name), _NAME_WIDTH)}: largest difference {each['largest_difference']:.4g} (largest "
        f"number of A: {each['largest']:.4g}; signal-to-noise ratio {each['snr_db']:.1f} dB)"
        for name, each in facts["outputs"].items()
    ]
    return [f"outputs for {facts['images']} test inputs, which are no classes:", *rows]


def _layer_lines(facts: Mapping[str, Any]) -> list[str]:
    layers, found = facts["layers"], facts["diverges_at"]
    if not layers:
        return ["layers: the two files have no tensor of the same name and shape"]
    limit = f"{facts['threshold']:g}"
    if found is None:
        worst = max(layers, key=lambda layer: float(layer["error"]))
        name = printable(worst["name"])
        return [f"layers: none of {len(layers)} differs by more than {limit}; largest: {worst['error']:.2g} at {name}"]
    at = next(i for i, layer in enumerate(layers) if layer["name"] == found["name"])
    rows = [
        [printable(layer["name"]), printable(layer["kind"]), f"{layer['error']:.2g}"]
        for layer in layers[max(0, at - 2) : at + _WORST]
    ]
    first = f"layers: {printable(found['name'])} ({printable(found['kind'])}) is the first that differs by more than"
    return [f"{first} {limit} (relative error; {at + 1} of {len(layers)})", *aligned(["", "", "error"], rows, left=2)]


def _data(given: Sequence[_Given], asked: str | None) -> tuple[str, list[Config]]:
    """The name of the data, and the configs of the runs that used it."""
    configs = [each.config for each in given if each.config is not None]
    names = list({_resolved(config.data): config.data for config in configs}.values())
    if asked is None and not names:
        raise InputError("compare needs images: give --data, the images that the networks were trained on")
    if asked is None and len(names) > 1:
        raise InputError(f"the runs were trained on different data, {names[0]} and {names[1]}: give --data")
    data = names[0] if asked is None else asked
    return data, [config for config in configs if _resolved(config.data) == _resolved(data)]


def _resolved(data: str) -> str:
    """The same text for each way to name the same images.

    >>> _resolved("photos/") == _resolved("./photos"), _resolved("torchvision:MNIST")
    (True, 'torchvision:MNIST')
    """
    return data if data == "digits" or data.startswith("torchvision:") else str(Path(data).resolve())


def _images(data: str, configs: Sequence[Config], seeds: Sequence[int]) -> Dataset:
    """The images, read as the runs read them, if every seed makes the same test images of them.

    Raises:
        InputError: it does not: the test images of one run would be training images of the other.
    """
    from compress.data.dataset import load_data
    from compress.networks.calibration_data import calibration_dataset

    if not configs and data != "digits" and Path(data).exists():  # images that no run says how to read
        return calibration_dataset(data, seeds[0])
    sizes = {config.size for config in configs}
    size = sizes.pop() if len(sizes) == 1 else None
    unreadable = "skip" if any(config.unreadable == "skip" for config in configs) else "refuse"
    found = [load_data(data, seed=seed, size=size, unreadable=unreadable) for seed in dict.fromkeys(seeds)]
    for seed, other in zip(list(dict.fromkeys(seeds))[1:], found[1:], strict=True):
        same = np.array_equal(found[0].test.labels, other.test.labels)
        if not same or not np.array_equal(found[0].test.images, other.test.images):
            raise InputError(
                f"the seeds {seeds[0]} and {seed} choose different test images of {data}, so some were training images "
                "of a run: give --data with images that no run was trained on"
            )
    return found[0]


def _read(path: Path) -> _Given:
    if path.is_dir():
        return _of_run(path)
    if not path.is_file() or path.suffix not in (".onnx", ".fnz"):
        what = "another kind of file" if path.exists() else "missing"
        raise InputError(f"compare needs {_VALID}, got {str(path)!r}, which is {what}")
    return _Given(str(path), _bytes(path), path.stat().st_size)


def _bytes(path: Path) -> bytes:
    from compress.fnz import decode_onnx
    from hw_profiles.onnx_io.untrusted_file import load_model, read_file, self_contained

    data = read_file(path) if path.suffix == ".fnz" else self_contained(path)
    try:
        data = decode_onnx(data) if path.suffix == ".fnz" else data
        load_model(data)
    except ValueError as error:
        raise InputError(f"{path}: {str(error).removeprefix('the given bytes: ')}") from None
    return data


def _of_run(folder: Path) -> _Given:
    metrics = folder / "metrics.json"
    if not metrics.is_file():
        raise InputError(f"compare needs {_VALID}, got {str(folder)!r}, which has no metrics.json")
    name = str(read_json(metrics).get("deployed"))
    if name != Path(name).name or not (folder / name).is_file():
        raise InputError(f"{folder}: the deployed file {name!r} is missing")
    config = load_config(folder / "config.toml") if (folder / "config.toml").is_file() else None
    return _Given(str(folder / name), _bytes(folder / name), (folder / name).stat().st_size, config)


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
