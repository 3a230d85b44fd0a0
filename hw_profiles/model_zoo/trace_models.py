"""Traces timm's models into a file of lines: ``python -m hw_profiles.model_zoo.trace_models --help``.

Each architecture is traced once at each image size for which an accuracy was published, on the meta device: nothing is
downloaded and nothing computed. The same command resumes. ``store_networks`` then makes the package's data of it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hw_profiles.model_zoo.accuracies import published_accuracies
from hw_profiles.model_zoo.workload_records import to_records

CLASSES = 1000  # of ImageNet, which the accuracies are of; some weights have a head for others


def main(arguments: Sequence[str] | None = None) -> int:
    """Trace what the file lacks; the exit code is 0 when nothing is left, 4 when ``--count`` stopped it."""
    parser = argparse.ArgumentParser(description="Trace timm's models; rerun the same command to resume.")
    parser.add_argument("--out", type=Path, required=True, help="the file of lines")
    parser.add_argument("--count", type=int, default=10**6, help="how many are traced before it stops")
    parser.add_argument("--again", action="store_true", help="try those once more that could not be traced")
    parsed = parser.parse_args(arguments)
    done = {(line["architecture"], line["image_size"]) for line in read_lines(parsed.out, failed=not parsed.again)}
    models = tasks()
    left = [key for key in sorted(models) if key not in done]
    _drop_torn_line(parsed.out)
    with parsed.out.open("a") as file:
        for key in left[: parsed.count]:
            line = traced(*key, models[key])
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
            file.flush()
            print(*key, line["error"] if "error" in line else f"{line['seconds']:.1f} s", flush=True)
    return 4 if len(left) > parsed.count else 0


def tasks() -> dict[tuple[str, int], str]:
    """Every architecture with every image size that an accuracy was published for, and a model that it was for.

    >>> tasks()["resnet18", 288]
    'resnet18.a1_in1k'
    """
    return {(row.architecture, row.image_size): row.model for row in reversed(published_accuracies())}


def traced(architecture: str, image_size: int, model: str) -> dict[str, Any]:
    """The line of one network: its operations and parameters, or why it cannot be traced."""
    from hw_profiles.torch_io.timm_models import trace_timm

    line: dict[str, Any] = {"architecture": architecture, "image_size": image_size}
    begin = time.perf_counter()
    try:
        workload = trace_timm(model, (3, image_size, image_size), CLASSES)
        operations = to_records(workload)
    except Exception as error:  # one of a thousand models of others must not end the script
        return line | {"error": f"{type(error).__name__}: {error}"}
    seconds = round(time.perf_counter() - begin, 2)
    return line | {"params": workload.params, "operations": operations, "seconds": seconds}


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that was not written to its end."""
    if path.is_file():
        data = path.read_bytes()
        path.write_bytes(data[: data.rfind(b"\n") + 1])


def read_lines(path: Path, *, failed: bool = False) -> Iterator[dict[str, Any]]:
    """The lines of a file, if there is one; those of networks that could not be traced only where ``failed``."""
    if not path.is_file():
        return
    with path.open() as file:
        for text in file:
            if text.endswith("\n"):  # the last one may be torn
                line = json.loads(text)
                if failed or "error" not in line:
                    yield line


if __name__ == "__main__":
    raise SystemExit(main())
