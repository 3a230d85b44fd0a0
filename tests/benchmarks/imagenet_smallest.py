"""The smallest file of EfficientNet-Lite0 with its ImageNet weights that loses at most one point, nothing trained.

    python tests/benchmarks/imagenet_smallest.py --data FOLDER --files FOLDER --minutes 30

The pictures and the weights are those of ``imagenet_int8.py``, whose files are found again in ``--files``. On 200 pictures
int8 is calibrated, each layer's sensitivity measured, and the number of values that the weights of all layers take
together chosen: the fewest at which the promise of ``nas compress`` holds on these pictures. The 800 others are read once
for each line: int8 of ONNX Runtime under xz, our int8 as .fnz, and the chosen file as .fnz.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
import compress
from compress import Artifact, Cluster, Quantize
from compress.clustering.cluster import integer_steps
from compress.clustering.values_per_layer import divergence_on, layer_divergences, values_of_layers
from compress.fnz import decode_onnx, encode_onnx
from compress.networks.batchnorm_folding import fold_normalisation
from compress.networks.onnx_export import onnx_bytes
from compress.networks.weight_layers import layers_of
from compress.stages.accuracy_change import AccuracyChange, confidence_on
from hw_profiles import load_device
from hw_profiles.measurement.latency_measurement import measure
from tests.benchmarks.imagenet_int8 import PEER, RECORD, Files, Pictures, logits, methods, network, split
from tests.benchmarks.lines import extend, latest_by_case
from tests.benchmarks.markdown import commits, table

NAME = "imagenet_smallest"
ALLOWED, CONFIDENCE = 1.0, 0.9
_MEANS = (128, 96, 64, 48, 32, 24, 16, 12, 8)  # values of a weight, in the geometric mean
_PROBED = 100


@dataclass(frozen=True, eq=False)
class Work:
    """The pictures that choose and those that judge, and where files are."""

    choosing: Pictures
    judging: Pictures
    files: Files

    def peer(self) -> tuple[bytes, int, dict[str, Any]]:
        """ONNX Runtime's int8 file under xz."""
        data = self.files.int8(PEER, methods(None)[PEER], self.choosing)[0].read_bytes()
        return data, len(lzma.compress(data, preset=9)), {}

    def int8(self) -> tuple[bytes, int, dict[str, Any]]:
        """Our int8 file as .fnz."""
        return coded(onnx_bytes(self.quantized()))

    def smallest(self) -> tuple[bytes, int, dict[str, Any]]:
        """Our int8 file with as few values as the promise allows, as .fnz."""
        int8, tried, best = self.quantized(), [], self.int8()
        of_layer = self.divergences(int8)
        sizes = {name: layer.weight.numel() for name, layer in layers_of(int8, int8.model()).items()}
        for mean in _MEANS:
            values = values_of_layers(of_layer, sizes, mean)
            made = coded(onnx_bytes(compress.cluster(int8, config=Cluster(clusters=values, start="even"))))
            change = self.change(made[0], self.choosing)
            asked = confidence_on(change.images, ALLOWED, CONFIDENCE)
            tried.append({"mean": mean, "bytes": made[1], **change.to_dict(asked)})
            print(tried[-1], flush=True)
            if change.upper(asked) <= ALLOWED:
                best = (*made[:2], {"values": values, "tried": tried})
        return best

    def quantized(self) -> Artifact:
        """Our int8 network, made where it is missing."""
        place = self.files.folder / "int8_artifact"
        if not (place / "artifact.json").is_file():
            place.mkdir(parents=True, exist_ok=True)
            compress.quantize(network(), self.choosing.pixels, Quantize()).save(place)
        return Artifact.load(place)

    def divergences(self, int8: Artifact) -> dict[str, float]:
        """The sensitivity of each layer, measured where it is not known yet."""
        known = self.files.folder / "sensitivity.json"
        if not known.is_file():
            model = int8.model()
            fold_normalisation(model)
            measured = divergence_on(model, self.choosing.pixels[:_PROBED], RECORD)
            found = layer_divergences(model, layers_of(int8, model), "even", integer_steps(int8), measured)
            known.write_text(json.dumps(found))
        return dict(json.loads(known.read_text()))

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
            "latency_ms": round(
                measure(self.files.folder / "judged.onnx", load_device("host"), input_shape=(3, 224, 224)).ms, 3
            ),
            **record,
        }


CASES: dict[str, Callable[[Work], tuple[bytes, int, dict[str, Any]]]] = {
    "int8 of ONNX Runtime, xz": Work.peer,
    "int8 of fitnas, .fnz": Work.int8,
    "values by layer, .fnz": Work.smallest,
}


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
         f"{line['accuracy']:.2%}", f"{line['points_points']:.2f} ({line['points_low']:.2f} to {line['points_high']:.2f})",
         f"{line['latency_ms']:.2f}")
        for line in lines
    ]  # fmt: skip
    head = ("file", "bytes", "times smaller than float32", "bytes / ONNX Runtime's", "accuracy", "points lost (80 %)",
            "latency ms")  # fmt: skip
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
