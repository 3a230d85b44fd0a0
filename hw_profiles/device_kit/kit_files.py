"""Writes the kit: a folder that is copied to a machine and run there."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from importlib import import_module
from importlib.resources import files
from pathlib import Path

from hw_profiles.device_kit.kit_networks import in_precisions, kit_digest, kit_file, kit_names
from hw_profiles.errors import InputError
from hw_profiles.measurement.latency_measurement import reference_model
from hw_profiles.network.tensor_formats import PRECISIONS, check_precision

SCRIPT = "measure.py"
_SCRIPT_MODULE = "hw_profiles.device_kit.kit_script"
_OURS = "hw_profiles."


def kit_contents(precisions: Sequence[str] = PRECISIONS) -> dict[str, bytes]:
    """The files of the kit by name: the networks, what they are called, and the script that times them.

    Raises:
        InputError: an unknown precision.
    """
    for precision in precisions:
        check_precision(precision)
    contents = {"reference.onnx": reference_model()}
    rows = []
    for name in kit_names():
        for precision in in_precisions(name, precisions):
            file = f"{name}.{precision}.onnx"
            contents[file] = kit_file(name, precision)
            rows.append({"network": name, "precision": precision, "file": file})
    kit = {"kit": kit_digest(), "reference": "reference.onnx", "networks": rows}
    contents["kit.json"] = (json.dumps(kit, indent=1) + "\n").encode()
    contents[SCRIPT] = script().encode()
    return contents


def write_kit(out: str | Path, precisions: Sequence[str] = PRECISIONS) -> tuple[Path, ...]:
    """Write the benchmark kit into a new or empty folder and return its files.

    Raises:
        InputError: the folder is a file or holds something, or an unknown precision.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} already exists and is not an empty folder; choose another")
    contents = kit_contents(precisions)
    out.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (out / name).write_bytes(data)
    return tuple(out / name for name in contents)


def script() -> str:
    """The one script of the kit: the module that measures, with those of ours that it imports in their place."""
    source = _source(_SCRIPT_MODULE)
    lines = source.splitlines(keepends=True)
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(_OURS):
            lines[node.lineno - 1 : node.end_lineno] = ["\n", _body(str(node.module)), "\n"]
    return "".join(lines)


def _body(module: str) -> str:
    """A module without its docstring and without what must stand at the beginning of a file."""
    source = _source(module)
    first = next(node for node in ast.parse(source).body[1:] if getattr(node, "module", None) != "__future__")
    return "".join(source.splitlines(keepends=True)[first.lineno - 1 :])


def _source(module: str) -> str:
    package, _, name = module.rpartition(".")
    import_module(package)
    return files(package).joinpath(f"{name}.py").read_text(encoding="utf-8")
