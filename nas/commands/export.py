"""``nas export``: write an int8 file as C99 source code."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from compress.atomic_files import read_json
from nas.config import Config, config_of_folder
from nas.errors import InputError, user_input

_TEST_IMAGES = 1000  # of the test set, or all


def run_export(parsed: Namespace) -> int:
    """Write the folder and, if asked, verify it; 1 where it was not verified.

    Raises:
        InputError: no such run or file, an operation or format that cannot be written, or a folder that is not empty.
    """
    with user_input():
        file = _int8_file(Path(parsed.source))
        images = _test_images(parsed.data, file, _config(Path(parsed.source))) if parsed.data else None
        from compress.c99.writer import write_c99

        out = Path(parsed.out)
        written = write_c99(file, out, force=parsed.force, test_images=None if images is None else images[:8])
    print(f"{out}: {len(written.files)} files, arena {written.arena_bytes:,} bytes", file=sys.stderr)
    if not parsed.verify:
        again = shlex.join(["nas", "export", parsed.source, "--out", parsed.out, "--force", "--verify"])
        print(f"not verified; to verify it: {again} [--data DATA]")
        return 0
    from compress.c99.verification import summary, verify

    with user_input():
        found = verify(out, file, images)
    print(summary(found))
    return 0 if found.verified else 1


def _int8_file(source: Path) -> Path:
    if source.suffix.lower() == ".onnx":
        return source
    metrics = source / "metrics.json"
    if not metrics.is_file():
        raise InputError(f"export needs a finished run's folder or an .onnx file, got {str(source)!r}")
    deployed = str(read_json(metrics).get("deployed"))
    file = source / "model.int8.onnx"
    if not file.is_file():
        raise InputError(f"{source}: export needs an int8 file, but the run deployed {deployed}")
    return file


def _config(source: Path) -> Config:
    """The config of the run, so that its images are split in the same way; the defaults for a file."""
    return config_of_folder(source) or Config()


def _test_images(data: str, file: Path, config: Config) -> Any:
    """Test images as network inputs, split as in the run and resized as the metadata of the file say."""
    from compress.data.dataset import load_data
    from compress.data.preprocessing import METADATA_KEY, Preprocessing
    from hw_profiles.onnx_io.reader import read_metadata

    metadata = read_metadata(file)
    if METADATA_KEY not in metadata:
        raise InputError(f"{file}: it has no preprocessing metadata, so --data cannot be used")
    preprocessing = Preprocessing.from_json(metadata[METADATA_KEY])
    dataset = load_data(data, seed=config.seed, size=config.size, unreadable=config.unreadable)
    dataset = dataset.resized(*preprocessing.input_shape[1:])
    return preprocessing.tensor(dataset.test.images[:_TEST_IMAGES])
