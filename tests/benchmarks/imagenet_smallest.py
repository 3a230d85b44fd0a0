"""The smallest file of EfficientNet-Lite0 with its ImageNet weights that loses at most one point, nothing trained.

    python tests/benchmarks/imagenet_smallest.py --data FOLDER --files FOLDER --minutes 30

The pictures and the weights are those of ``imagenet_int8.py``, whose files are found again in ``--files``. On 200 pictures
int8 is calibrated, each layer's sensitivity measured, and the number of levels chosen that the weights of all layers take
on average: ever fewer, as long as the promise of ``nas compress`` holds on these pictures and their mirror images. The 800
others are read once for each line: int8 of ONNX Runtime under xz, our int8 as .fnz, and the chosen file as .fnz.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
import compress
from compress import Quantize
from compress.fnz import decode_onnx, encode_onnx
from compress.networks.network_graph import network_graph
from compress.networks.onnx_export import export_onnx
from compress.quantization.int8.weight_levels import allocated_levels, divergences
from compress.stages.accuracy_change import AccuracyChange, confidence_on
from tests.benchmarks.imagenet_int8 import PEER, RECORD, Files, Method, Pictures, logits, methods, network, split
from tests.benchmarks.lines import extend, latest_by_case
from tests.benchmarks.markdown import commits, table

NAME = "imagenet_smallest"
ALLOWED, CONFIDENCE = 1.0, 0.9
_INT8 = Quantize(
    calibration="minmax", equalize="activations", bias_correction=False, least_squares=True, adaround=False
)
"""What imagenet_int8.py chose on the same pictures."""
_MEANS = (64, 45, 32, 23, 16, 11, 8)  # levels of a weight, in the geometric mean
_PROBED = 100


@dataclass(frozen=True, eq=False)
class Work:
    """The pictures that choose and those that judge, and where files are."""

    choosing: Pictures
    judging: Pictures
    files: Files

    def peer(self) -> tuple[bytes, int, dict[str, Any]]:
        """ONNX Runtime's int8 file under xz."""
        data = self.made(PEER, methods(None)[PEER])
        return data, len(lzma.compress(data, preset=9)), {}

    def int8(self) -> tuple[bytes, int, dict[str, Any]]:
        """Our int8 file as .fnz."""
        return coded(self.made("int8", _quantized_by(_INT8)))

    def smallest(self) -> tuple[bytes, int, dict[str, Any]]:
        """Our int8 file with as few levels as the promise allows, as .fnz."""
        best, tried = self.int8(), list[dict[str, Any]]()
        for mean in _MEANS:
            levels = allocated_levels(*self.sensitivities(), mean)
            made = coded(self.made(f"levels {mean}", _quantized_by(replace(_INT8, levels=levels))))
            change = self.change(made[0], self.mirrored)
            asked = confidence_on(change.images, ALLOWED, CONFIDENCE)
            tried.append({"mean": mean, "bytes": made[1], **change.to_dict(asked)})
            print(tried[-1], flush=True)
            if change.upper(asked) > ALLOWED:
                break
            best = (*made[:2], {"levels": levels})
        return (*best[:2], {**best[2], "tried": tried})

    def made(self, name: str, method: Method) -> bytes:
        """The file of a method, which sees the pictures that choose."""
        return self.files.int8(name, method, self.choosing)[0].read_bytes()

    def sensitivities(self) -> tuple[dict[str, float], dict[str, int]]:
        """How far the classes move with few levels in each layer alone, measured where it is not known yet, and the
        number of its weights."""
        known = self.files.folder / "sensitivities.json"
        if not known.is_file():
            images = RECORD.tensor(self.choosing.pixels[:_PROBED])
            graph = network_graph(network(), images[:1])
            ops = [op for op in graph.workload.ops if op.stores_weights]
            sizes = {op.name: graph.weights[op.weight].size for op in ops}
            known.write_text(json.dumps([divergences(graph, ops, images), sizes]))
        measured, sizes = json.loads(known.read_text())
        return measured, sizes

    @cached_property
    def mirrored(self) -> Pictures:
        """The pictures that choose, and their mirror images."""
        pixels, labels = self.choosing.pixels, self.choosing.labels
        return Pictures(np.concatenate([pixels, pixels[:, :, ::-1]]), np.concatenate([labels, labels]))

    def change(self, data: bytes, pictures: Pictures) -> AccuracyChange:
        """The accuracy that a file loses against the float one."""
        path = self.files.folder / "judged.onnx"
        path.write_bytes(data)
        float_right = self.float_logits(pictures).argmax(1) == pictures.labels
        return AccuracyChange.between(float_right, logits(path, pictures.pixels).argmax(1) == pictures.labels)

    @cache  # noqa: B019 (two sets of pictures, and one object)
    def float_logits(self, pictures: Pictures) -> Any:
        """Those of the float file."""
        return logits(self.files.source, pictures.pixels)

    def run(self, case: str, seed: int) -> dict[str, Any]:
        """What a case comes to on the pictures that judge."""
        data, size, record = CASES[case](self)
        change = self.change(data, self.judging)
        right = (self.float_logits(self.judging).argmax(1) == self.judging.labels).mean()
        return {
            "bytes": size,
            "onnx_bytes": len(data),
            "float_bytes": self.files.source.stat().st_size,
            "float_accuracy": float(right),
            "accuracy": float(right) - change.points_lost / 100,
            **{f"points_{name}": value for name, value in change.to_dict(CONFIDENCE).items()},
            **record,
        }


CASES: dict[str, Callable[[Work], tuple[bytes, int, dict[str, Any]]]] = {
    "int8 of ONNX Runtime, xz": Work.peer,
    "int8 of fitnas, .fnz": Work.int8,
    "fewer levels, .fnz": Work.smallest,
}


def _quantized_by(stage: Quantize) -> Method:
    def method(source: Path, pixels: np.ndarray, target: Path) -> dict[str, Any]:
        done = compress.quantize(network(), pixels, stage)
        export_onnx(done, target)
        return dict(done.metrics["quantization"])

    return method


def coded(data: bytes) -> tuple[bytes, int, dict[str, Any]]:
    """A file, and the bytes that it takes as .fnz, from which it comes back."""
    packed = encode_onnx(data)
    if decode_onnx(packed) != data:
        raise AssertionError("decoded to another file")
    return data, len(packed), {}


def imagenet_smallest() -> str:
    """The section of docs/benchmarks.md."""
    lines = [line for group in latest_by_case(NAME).values() for line in group]
    if not lines:
        return ""
    peer = next(line["bytes"] for line in lines if line["case"].startswith("int8 of ONNX Runtime"))
    rows = [
        (line["case"], f"{line['bytes']:,}", f"{line['float_bytes'] / line['bytes']:.1f}", f"{line['bytes'] / peer:.2f}",
         f"{line['accuracy']:.2%}", f"{line['points_points']:.2f} ({line['points_low']:.2f} to {line['points_high']:.2f})")
        for line in lines
    ]  # fmt: skip
    head = ("file", "bytes", "times smaller than float32", "bytes / ONNX Runtime's", "accuracy", "points lost (80 %)")
    return (
        f"## The smallest file, ImageNet weights\n\n`python tests/benchmarks/imagenet_smallest.py`; commit "
        f"{commits(lines)}. EfficientNet-Lite0, nothing trained: 200 pictures calibrate and choose, at most one point lost; "
        f"800 others, read once for each line, judge (float32: {lines[0]['float_accuracy']:.2%}).\n\n{table(head, rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="pictures and labels.csv, as for imagenet_int8.py")
    parser.add_argument("--files", required=True, type=Path, help="a folder where files stay")
    parser.add_argument("--case", choices=list(CASES), action="append")
    parser.add_argument("--minutes", type=float, default=30)
    given = parser.parse_args()
    given.files.mkdir(parents=True, exist_ok=True)
    work = Work(*split(given.data), Files(given.files))
    extend(NAME, [(case, 0) for case in given.case or CASES], work.run, given.minutes)


if __name__ == "__main__":
    main()
