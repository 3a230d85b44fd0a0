"""Compares two models on the same test images; each is an ONNX file, a .fnz file or the deployed file of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress.atomic_files import read_json
from nas.config import Config, config_of_folder
from nas.errors import InputError, user_input

if TYPE_CHECKING:
    from compress.data.dataset import Dataset
    from compress.file_comparison import Comparison

_VALID = "an .onnx file, an .fnz file or the folder of a finished run"
DEFAULT_THRESHOLD = 0.1


def compare(
    a: str | Path,
    b: str | Path,
    *,
    data: str | None = None,
    seed: int | None = None,
    threshold: float = DEFAULT_THRESHOLD,
) -> Comparison:
    """Run two models on the same test images and compare their accuracy, predictions, outputs and layers.

    ``a`` and ``b`` are .onnx files, .fnz files, or folders of finished runs. ``data`` are the images that they were
    trained on, and ``seed`` is that of the split; by default both are those of the run. ``threshold`` is the relative
    error at which a layer counts as diverged.

    Raises:
        InputError: no such file, data that do not fit the models, or runs with different test images.

    >>> import tempfile
    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = Path(folder) / "model.onnx"
    ...     _ = model.write_bytes(write_onnx(preset("resnet8", input_shape=(1, 16, 16)).workload()))
    ...     compare(model, model, data="digits").agreement
    1.0
    """
    with user_input():
        return read_pair(a, b, data, seed).compared(threshold)


@dataclass(frozen=True, slots=True)
class _Model:
    """A model, the bytes that it takes on disk, and the config of the run that it comes from."""

    label: str
    file: bytes
    file_bytes: int
    config: Config | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two models and the images on which they are compared; ``file_bytes`` are sizes on disk."""

    labels: tuple[str, str]
    files: tuple[bytes, bytes]
    file_bytes: tuple[int, int]
    data: str
    seed: int
    images: Dataset

    def compared(self, threshold: float = DEFAULT_THRESHOLD) -> Comparison:
        """Run both."""
        from compress.file_comparison import compare_files

        found = compare_files(*self.files, self.images, threshold=threshold)
        return replace(found, file_bytes=self.file_bytes)


def read_pair(a: str | Path, b: str | Path, data: str | None = None, seed: int | None = None) -> Pair:
    """Read the models and the images that :func:`compare` needs.

    Raises:
        InputError: as :func:`compare`.
    """
    if seed is not None and seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")
    one, other = _read(Path(a)), _read(Path(b))
    name, configs = _data((one, other), data)
    seeds = [config.seed for config in configs]
    if seed is not None:
        seeds.insert(0, seed)
    seeds = seeds or [0]
    return Pair(
        labels=(one.label, other.label),
        files=(one.file, other.file),
        file_bytes=(one.file_bytes, other.file_bytes),
        data=name,
        seed=seeds[0],
        images=_images(name, configs, seeds),
    )


def _data(given: Sequence[_Model], asked: str | None) -> tuple[str, list[Config]]:
    """The name of the data, and the configs of the runs that used it."""
    configs = [each.config for each in given if each.config is not None]
    names = list({_resolved(config.data): config.data for config in configs}.values())
    if asked is None and not names:
        raise InputError("--data is required: the dataset that the models were trained on")
    if asked is None and len(names) > 1:
        raise InputError(f"the runs were trained on different data, {names[0]} and {names[1]}: pass --data")
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
                "of a run: pass --data with images that no run was trained on"
            )
    return found[0]


def _read(path: Path) -> _Model:
    if path.is_dir():
        return _of_run(path)
    if not path.is_file() or path.suffix.lower() not in (".onnx", ".fnz"):
        what = "another kind of file" if path.exists() else "missing"
        raise InputError(f"compare needs {_VALID}, got {str(path)!r}, which is {what}")
    return _Model(str(path), _bytes(path), path.stat().st_size)


def _bytes(path: Path) -> bytes:
    from compress.fnz import decode_onnx
    from hw_profiles.onnx_io.untrusted_file import load_model, read_file, self_contained

    data = read_file(path) if path.suffix.lower() == ".fnz" else self_contained(path)
    try:
        data = decode_onnx(data) if path.suffix.lower() == ".fnz" else data
        load_model(data)
    except ValueError as error:
        raise InputError(f"{path}: {str(error).removeprefix('the given bytes: ')}") from None
    return data


def _of_run(folder: Path) -> _Model:
    metrics = folder / "metrics.json"
    if not metrics.is_file():
        raise InputError(f"compare needs {_VALID}, got {str(folder)!r}, which has no metrics.json")
    name = str(read_json(metrics).get("deployed"))
    if name != Path(name).name or not (folder / name).is_file():
        raise InputError(f"{folder}: the deployed file {name!r} is missing")
    return _Model(str(folder / name), _bytes(folder / name), (folder / name).stat().st_size, config_of_folder(folder))
