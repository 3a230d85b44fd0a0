"""Structured pruning at twice fewer MACs by torch-pruning, by ours, and the same small network from scratch.

    python tests/benchmarks/prune_peers.py --data FOLDER --minutes 8 [--state FOLDER] [--device cuda] [NETWORK ...]

Every method begins with a trained network of ``networks/`` and has the same epochs after it by the one training loop,
beginning at the learning rate that the network began with (2003.02389: better than to go on at a low one);
torch-pruning prunes as its own reproduction of the paper does (2301.12900; global, in 400 small steps until the MACs
are halved; at least a quarter of each layer stays, as in ours), its channels rounded to 8. What ours left is also
trained from scratch for all epochs that the trained network and the fine-tuning had together (1810.05270). Each line:
one network and method; accuracy on the test images of the ONNX file that torch exports, and how many times as long it
takes as the unpruned one, both run in turn in float32. What was trained is kept in the ``--state`` folder; with
``--train-only``, for a machine with an accelerator, nothing else is made, and the same command without it, where the
folder is, measures.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress import Artifact, Context, Dataset, Prune, Recipe, load_data
from compress.distillation.guided_training import GuidedTraining
from compress.networks.torch_export import export_module
from compress.training.evaluation import evaluate
from compress.training.loop import BeforeStep
from compress.training.teachers import ModuleTeacher
from hw_profiles import load_device
from hw_profiles.measurement.latency_measurement import compare
from hw_profiles.torch_io.trace import trace
from search_spaces import Arch, build_model
from tests.benchmarks.lines import ROOT, extend
from tests.benchmarks.ptq import right
from tests.benchmarks.train_networks import MAKERS, NETWORKS

EPOCHS = 9
SHARE_OF_MACS = 0.5
_STEPS, _ROUND_TO, _MOST_OF_A_LAYER = 400, 8, 0.75


@dataclass(kw_only=True)
class Elsewhere(GuidedTraining):
    """Trains on a device of torch; the module comes back to the CPU."""

    device: str

    def __call__(self, model: nn.Module, before_step: BeforeStep | None = None) -> None:
        """The next part of the recipe."""
        model.to(self.device)
        if self.teacher is not None:
            self.teacher.model.to(self.device)
        super().__call__(model, before_step)
        model.to("cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A trained network by name, images, how it is trained on and where, and the folder of what was trained."""

    network: str
    method: str
    artifact: Artifact
    data: Dataset
    device: str
    folder: Path

    @property
    def epochs(self) -> float:
        """Those of both trainings together."""
        return float(EPOCHS + self.artifact.metrics["training"]["epochs"])

    def kept(self, method: str, suffix: str) -> Path:
        """A file of the folder."""
        return self.folder / f"{self.network} {method}{suffix}"

    def training(self, epochs: float, teacher: ModuleTeacher | None = None) -> GuidedTraining:
        """The one training loop."""
        return Elsewhere(
            data=self.data, recipe=Recipe(epochs=epochs), teacher=teacher, device=self.device,
            checkpoint=self.kept(self.method, ".pt"),
        )  # fmt: skip


# What a method leaves, fine-tuned, and further entries of its line.
Method = Callable[[Case], tuple[nn.Module, Mapping[str, Any]]]


def unpruned(case: Case) -> tuple[nn.Module, Mapping[str, Any]]:
    """The network as it was given."""
    return case.artifact.model(), {"epochs": case.artifact.metrics["training"]["epochs"]}


def trained_on(case: Case) -> tuple[nn.Module, Mapping[str, Any]]:
    """The network as it was given, with as many more epochs as the pruned ones."""
    model = case.artifact.model()
    case.training(EPOCHS)(model)
    return model, {"epochs": case.epochs}


def torch_pruning(norm: int, has_teacher: bool, case: Case) -> tuple[nn.Module, Mapping[str, Any]]:
    """``norm`` 1: their L1 magnitude; 2: their group importance. ``has_teacher``: trained by the unpruned network, as ours is."""
    model = halved(case.artifact, norm)
    case.training(EPOCHS, unpruned_teacher(case) if has_teacher else None)(model)
    return model, {"epochs": case.epochs}


def unpruned_teacher(case: Case) -> ModuleTeacher:
    """The network as it was given, teaching."""
    return ModuleTeacher(case.artifact.model(), case.artifact.preprocessing)


def halved(artifact: Artifact, norm: int) -> nn.Module:
    """The module that torch-pruning leaves, untrained."""
    import torch_pruning as peer

    model, shape = artifact.model(), artifact.source.input_shape
    importance = peer.importance.GroupMagnitudeImportance(p=norm)
    kind = peer.pruner.GroupNormPruner if norm == 2 else peer.pruner.MagnitudePruner
    pruner = kind(
        model, torch.zeros(1, *shape), importance=importance, global_pruning=True, pruning_ratio=1.0,
        max_pruning_ratio=_MOST_OF_A_LAYER, iterative_steps=_STEPS, round_to=_ROUND_TO,
        ignored_layers=[model.get_submodule("classifier")],
    )  # fmt: skip
    most = SHARE_OF_MACS * macs(model, shape)
    while macs(model, shape) > most:
        if pruner.current_step == _STEPS:
            raise RuntimeError(f"torch-pruning ends at {macs(model, shape)} MACs, {most:.0f} are wanted")
        pruner.step()
    assert macs(model, shape) == trace(model, shape).macs
    return model


@torch.inference_mode()
def macs(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """What :func:`hw_profiles.torch_io.trace.trace` counts, in a tenth of the time."""
    found = []

    def count(layer: nn.Module, inputs: object, output: torch.Tensor) -> None:
        found.append(layer.get_parameter("weight").numel() * output.shape[2:].numel())

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    model.eval()(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return sum(found)


def ours(has_teacher: bool, case: Case) -> tuple[nn.Module, Mapping[str, Any]]:
    """Multiples of channels as the device of this machine wants them. ``has_teacher``: trained by the unpruned network."""

    class Trained(Prune):
        def training(self, artifact: Artifact, context: Context) -> GuidedTraining:
            return case.training(EPOCHS, unpruned_teacher(case) if has_teacher else None)

    most = SHARE_OF_MACS * case.artifact.arch.workload().macs
    done = Trained(macs=most)(case.artifact, Context(data=case.data, device=load_device("host")))
    return done.model(), {"epochs": case.epochs, "arch": done.arch.to_dict()}


def from_scratch(case: Case) -> tuple[nn.Module, Mapping[str, Any]]:
    """What ours left, with new weights, trained for as many epochs as both trainings of the pruned one together."""
    model = build_model(Arch.from_dict(json.loads(case.kept("fitnas", ".json").read_text())["arch"]))
    case.training(case.epochs)(model)
    return model, {"epochs": case.epochs}


METHODS: dict[str, Method] = {  # in the order in which they must run
    "unpruned": unpruned,
    "fitnas": functools.partial(ours, True),
    "torch-pruning L1": functools.partial(torch_pruning, 1, False),
    "torch-pruning group": functools.partial(torch_pruning, 2, False),
    "the same from scratch": from_scratch,
    "fitnas, not taught": functools.partial(ours, False),
    "torch-pruning group, taught": functools.partial(torch_pruning, 2, True),
    "unpruned, trained on": trained_on,
}


def train_method(case: Case) -> None:
    """Keep the file that a method makes, and what is known of it; nothing where that was kept before."""
    if case.kept(case.method, ".json").is_file():
        return
    torch.manual_seed(0)
    start = time.perf_counter()
    model, facts = METHODS[case.method](case)
    shape = case.artifact.source.input_shape
    case.kept(case.method, ".onnx").write_bytes(export_module(model, shape))
    found = {
        "macs_share": round(macs(model, shape) / macs(case.artifact.model(), shape), 4),
        "params": sum(p.numel() for p in model.parameters()),
        "val_accuracy": round(evaluate(model, case.data.val, case.artifact.preprocessing), 4),
        "device": torch.cuda.get_device_name() if case.device == "cuda" else case.device,
        "minutes": round((time.perf_counter() - start) / 60, 2),
        **facts,
    }
    case.kept(case.method, ".json").write_text(json.dumps(found))


def run(case: Case) -> dict[str, Any]:
    """One line."""
    train_method(case)
    path, plain = (case.kept(method, ".onnx") for method in (case.method, "unpruned"))
    times = compare(path, plain, load_device("host"), max_rounds=200)
    return {
        **json.loads(case.kept(case.method, ".json").read_text()),
        "test_accuracy": round(float(right(path, case.data).mean()), 4),
        "latency_over_unpruned": [round(each, 4) for each in times],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="all of networks/ by default")
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--method", action="append", choices=list(METHODS), help="all by default")
    parser.add_argument("--state", type=Path, default=ROOT / "runs" / "prune_peers")
    parser.add_argument("--device", default="cpu", help="where torch trains")
    parser.add_argument("--train-only", action="store_true")
    given = parser.parse_args()
    given.state.mkdir(parents=True, exist_ok=True)
    data = load_data(given.data)
    cases = {
        f"{network}: {method}": Case(
            network=network, method=method, artifact=Artifact.load(NETWORKS / network), data=data,
            device=given.device, folder=given.state,
        )
        for network in given.names or MAKERS
        for method in METHODS
        if method in (given.method or METHODS)
    }  # fmt: skip
    if given.train_only:
        for case in cases.values():
            train_method(case)
    else:
        extend("prune_peers", [(name, 0) for name in cases], lambda name, seed: run(cases[name]), given.minutes)


if __name__ == "__main__":
    main()
