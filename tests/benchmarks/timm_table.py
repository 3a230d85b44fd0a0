"""What the one-line functions make of 80 networks of timm with random weights.

    python tests/benchmarks/timm_table.py [--minutes 60] [--task int8 ...] [--network NAME ...] [--again]

A cell is a network and a task, in a process of its own with 120 seconds of the processor (one thread) and 8 GiB:

- profile: a finite latency, and as many parameters as the module has.
- encode: the file that torch exports is coded and decoded, byte by byte the same.
- int8: quantized with 8 images; the file runs in ONNX Runtime, half of its multiply-accumulates at least are in
  integers, and its signal-to-noise ratio on these images is at most 1 dB below that of ONNX Runtime's own quantizer.
- c99: that file becomes C99, which is built, run and verified on this machine; networks up to 10 million parameters.
- prune: 20 % fewer multiply-accumulates are asked for, two training steps; the file runs in ONNX Runtime.
- qat: two training steps; the file runs, half of its multiply-accumulates at least in integers.
- cluster: two training steps; each layer has at most 16 values besides zero, and the file runs.

Each line is one cell. A cell that has a line is left out; with ``--again`` those that did not work at another commit
are run again.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress import Cluster, Dataset, Preprocessing, Prune, QuantizeAware, Recipe, cluster, decode, encode, prune
from compress.api import quantize
from compress.c99 import verify, write_c99
from compress.data.dataset import Split
from compress.networks.artifact import Artifact
from compress.networks.as_artifact import as_artifact
from compress.networks.onnx_export import export_onnx, onnx_bytes
from compress.networks.torch_export import export_module
from compress.networks.weight_layers import layers_of
from compress.training.evaluation import signal_to_noise_db
from hw_profiles import load_device, profile
from hw_profiles.onnx_io.session import open_session
from hw_profiles.torch_io.timm_models import timm_module
from hw_profiles.torch_io.trace import trace
from tests.benchmarks.integer_macs import integer_share
from tests.benchmarks.limited_process import run_limited
from tests.benchmarks.lines import ROOT, append, commit, latest
from tests.benchmarks.runtime_quantizer import quantized_by_runtime
from tests.benchmarks.timm_networks import SIDES

NAME = "timm_table"
HERE = commit()
"""Of the code that was imported, which is the one that runs."""
CLASSES, IMAGES = 10, 8
MOST_DB_BELOW, LEAST_SHARE, MOST_MACS, MOST_PARAMS_IN_C = 1.0, 0.5, 0.8, 10_000_000
RECIPE = Recipe(epochs=1, batch_size=IMAGES // 2, learning_rate=0.001)


@dataclass(frozen=True, slots=True)
class Case:
    """A network by name, and the folder where its int8 file stays for the task c99."""

    name: str
    folder: Path

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image, (3, side, side)."""
        return (3, SIDES[self.name], SIDES[self.name])

    @property
    def int8_file(self) -> Path:
        """What the task int8 leaves, by commit."""
        return self.folder / f"{self.name} {HERE}.onnx"

    def module(self) -> nn.Module:
        """With the random weights of a seed, in evaluation mode."""
        torch.manual_seed(0)
        return timm_module(self.name, self.shape, CLASSES).eval()

    def data(self) -> Dataset:
        """The images, all of them for training and for validation."""
        split = Split(pictures(self.shape[1]), np.arange(IMAGES) % CLASSES)
        record = Preprocessing(
            channels=3, sizes=(self.shape[1:],), mean=(0.5,) * 3, std=(0.25,) * 3,
            class_names=tuple(map(str, range(CLASSES))),
        )  # fmt: skip
        return Dataset(name="random pictures", train=split, val=split, test=split, preprocessing=record)


def pictures(side: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(8, side, side, 3): coarse random colors with noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(IMAGES, 3, 5, 5, generator=generator)
    fine = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    noisy = fine + 0.05 * torch.randn(fine.shape, generator=generator)
    return (255 * noisy.clamp(0, 1)).byte().permute(0, 2, 3, 1).contiguous().numpy()


def profiled(case: Case) -> Mapping[str, Any]:
    """The task profile."""
    module = case.module()
    found = profile(module, load_device("host"), input_shape=case.shape)
    params = sum(parameter.numel() for parameter in module.parameters())
    wrong = "" if found.params == params and found.macs and math.isfinite(found.latency_ms) else "other parameters"
    return _judged({"params": params, "macs": found.macs, "latency_ms": round(found.latency_ms, 4)}, wrong)


def encoded(case: Case) -> Mapping[str, Any]:
    """The task encode."""
    with tempfile.TemporaryDirectory() as name:
        file, coded, again = (Path(name) / each for each in ("model.onnx", "model.fnz", "again.onnx"))
        export_onnx(as_artifact(case.module(), None, input_shape=case.shape), file)
        sizes = encode(file, coded)
        decode(coded, again)
        wrong = "" if file.read_bytes() == again.read_bytes() else "other bytes"
        return _judged({"onnx_bytes": sizes.onnx_bytes, "fnz_bytes": sizes.fnz_bytes}, wrong)


def quantized(case: Case) -> Mapping[str, Any]:
    """The task int8."""
    module = case.module()
    images = pictures(case.shape[1])
    done = quantize(module, images)
    file, x = onnx_bytes(done), done.preprocessing.tensor(images)
    case.int8_file.write_bytes(file)
    before = export_module(module, case.shape)
    reference, ours = _outputs(before, x), _outputs(file, x)
    theirs = _outputs(quantized_by_runtime(before, [{"input": x[i : i + 1]} for i in range(len(x))]), x)
    found = {
        "share_in_integers": round(integer_share(file, {"input": x[:1]}), 4),
        "snr_db": round(signal_to_noise_db(reference, ours), 2),
        "runtime_snr_db": round(signal_to_noise_db(reference, theirs), 2),
        "file_bytes": len(file),
    }
    wrong = "" if found["snr_db"] >= found["runtime_snr_db"] - MOST_DB_BELOW else "noisier than ONNX Runtime's"
    return _judged(found, wrong or _too_few_integers(found["share_in_integers"]))


def in_c(case: Case) -> Mapping[str, Any]:
    """The task c99."""
    params = trace(case.module(), case.shape).params
    if params > MOST_PARAMS_IN_C:
        return {"outcome": "too large", "reason": f"{params:,} parameters"}
    images = pictures(case.shape[1])
    record = as_artifact(case.module(), _images_only(images)).preprocessing
    if not case.int8_file.is_file():
        case.int8_file.write_bytes(onnx_bytes(quantize(case.module(), images)))
    with tempfile.TemporaryDirectory() as name:
        written = write_c99(case.int8_file, Path(name) / "c")
        result = verify(Path(name) / "c", case.int8_file, record.tensor(images)[:2], machines=("host",))
        return _judged({"arena_bytes": written.arena_bytes}, "; ".join(result.problems))


def pruned(case: Case) -> Mapping[str, Any]:
    """The task prune."""
    module = case.module()
    before = trace(module, case.shape).macs
    done = prune(module, case.data(), Prune(macs=MOST_MACS * before, recipe=RECIPE))
    after = trace(done.model(), case.shape).macs
    _runs(done, case)
    return _judged({"macs_left": round(after / before, 4)}, "" if after <= MOST_MACS * before else "more MACs left")


def trained_in_integers(case: Case) -> Mapping[str, Any]:
    """The task qat."""
    done = quantize(case.module(), case.data(), QuantizeAware(recipe=RECIPE))
    file = _runs(done, case)
    share = integer_share(file, {"input": np.zeros((1, *case.shape), np.float32)})
    return _judged({"share_in_integers": round(share, 4)}, _too_few_integers(share))


def clustered(case: Case) -> Mapping[str, Any]:
    """The task cluster."""
    done = cluster(case.module(), case.data(), Cluster(recipe=RECIPE))
    _runs(done, case)
    layers = layers_of(done, done.model()).values()  # without those whose outputs are the same for every image
    most = max(len(layer.weight[layer.weight != 0].unique()) for layer in layers)
    return _judged({"most_values": most}, "" if most <= Cluster().clusters else "more values than asked for")


TASKS: dict[str, Callable[[Case], Mapping[str, Any]]] = {
    "profile": profiled, "encode": encoded, "int8": quantized, "c99": in_c, "prune": pruned,
    "qat": trained_in_integers, "cluster": clustered,
}  # fmt: skip


def _judged(found: Mapping[str, Any], wrong: str) -> dict[str, Any]:
    return {**found, **({"outcome": "wrong", "reason": wrong} if wrong else {})}


def _too_few_integers(share: float) -> str:
    return "" if share >= LEAST_SHARE else f"{share:.0%} of the MACs in integers"


def _images_only(images: np.ndarray[Any, Any]) -> Dataset:
    from compress.networks.calibration_data import calibration_dataset

    return calibration_dataset(images)


def _runs(done: Artifact, case: Case) -> bytes:
    """The file, which must make finite numbers of the images."""
    file = onnx_bytes(done)
    outputs = _outputs(file, case.data().preprocessing.tensor(pictures(case.shape[1])))
    if not np.isfinite(outputs).all():
        raise ArithmeticError("the file makes numbers that are not finite")
    return file


def _outputs(file: bytes, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The first output (N, ...), one image after the other."""
    session = open_session(file)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[i : i + 1]})[0] for i in range(len(x))])


def _left(cells: list[tuple[str, str]], again: bool) -> Iterator[tuple[str, str]]:
    """The cells to run."""
    done = latest(NAME)
    for task, network in cells:
        line = done.get((f"{network}: {task}", 0))
        outdated = line is not None and line["outcome"] not in ("works", "too large") and line["commit"] != HERE
        if line is None or (again and outdated):
            yield task, network


def _import_all(folder: Path) -> None:
    """Load what is imported late, which would cost each process some seconds."""
    smallest = Case(next(iter(SIDES)), folder)
    profiled(smallest)
    encoded(smallest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--task", action="append", choices=list(TASKS), help="all by default")
    parser.add_argument("--network", action="append", choices=list(SIDES), metavar="NAME", help="all by default")
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = ROOT / "runs" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * given.minutes
    _import_all(folder)
    cells = [(task, name) for name in given.network or SIDES for task in given.task or TASKS]
    for task, name in _left(cells, given.again):
        if time.monotonic() > deadline:
            print("the time is over; the same command goes on")
            return
        found = run_limited(functools.partial(TASKS[task], Case(name, folder)))
        append(NAME, {"case": f"{name}: {task}", "seed": 0, "commit": HERE, **found})


if __name__ == "__main__":
    main()
