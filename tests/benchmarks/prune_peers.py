"""Structured pruning at twice fewer MACs by torch-pruning, by ours, and the same small network from scratch.

    python tests/benchmarks/prune_peers.py --data FOLDER --minutes 8 [--state FOLDER] [NETWORK ...]

Every method begins with a trained network of ``networks/`` and has the same epochs after it by the one training loop,
beginning at the learning rate that the network began with (2003.02389: better than to go on at a low one);
torch-pruning prunes as its own reproduction of the paper does (2301.12900; global, in 400 small steps until the MACs
are halved; at least a quarter of each layer stays, as in ours), its channels rounded to 8. What ours left is also
trained from scratch for all epochs that the trained network and the fine-tuning had together (1810.05270). Each line:
one network and method; accuracy on the test images of the ONNX file that torch exports, and how many times as long it
takes as the unpruned one, both run in turn in float32.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress import Artifact, Context, Dataset, Prune, Recipe, load_data
from compress.learning import Lessons
from compress.module_export import export_module
from compress.teacher import ModuleTeacher
from compress.train import evaluate, train
from hw_profiles import load_device
from hw_profiles.host import compare
from hw_profiles.trace import trace
from search_spaces import Arch, build_model
from tests.benchmarks.lines import extend, read
from tests.benchmarks.ptq import right
from tests.benchmarks.train_networks import MAKERS, NETWORKS

EPOCHS = 8
SHARE_OF_MACS = 0.5
_STEPS, _ROUND_TO, _MOST_OF_A_LAYER = 400, 8, 0.75


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A trained network by name, images, how it is trained on, and where the state of that may be kept."""

    network: str
    artifact: Artifact
    data: Dataset
    recipe: Recipe
    checkpoint: Path | None

    @property
    def epochs(self) -> float:
        """Those of both trainings together."""
        return float(self.recipe.epochs + self.artifact.metrics["training"]["epochs"])


# What a method leaves, trained, and what else its line shall tell.
Method = Callable[[Case], tuple[nn.Module, Mapping[str, Any]]]


def unpruned(case: Case) -> tuple[nn.Module, Mapping[str, Any]]:
    """The network as it was given."""
    return case.artifact.model(), {"epochs": case.artifact.metrics["training"]["epochs"]}


def trained_on(case: Case) -> tuple[nn.Module, Mapping[str, Any]]:
    """The network as it was given, with as many more epochs as the pruned ones."""
    model = case.artifact.model()
    train(model, case.data, case.recipe, checkpoint=case.checkpoint)
    return model, {"epochs": case.epochs}


def torch_pruning(norm: int, taught: bool, case: Case) -> tuple[nn.Module, Mapping[str, Any]]:
    """``norm`` 1: their L1 magnitude; 2: their group importance. ``taught``: by the unpruned network, as ours is."""
    model = halved(case.artifact, norm)
    teacher = ModuleTeacher(case.artifact.model(), case.artifact.preprocessing) if taught else None
    Lessons(data=case.data, recipe=case.recipe, teacher=teacher, checkpoint=case.checkpoint)(model)
    return model, {"epochs": case.epochs}


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
    """What :func:`hw_profiles.trace.trace` counts, in a tenth of the time."""
    found = []

    def count(layer: nn.Module, inputs: object, output: torch.Tensor) -> None:
        found.append(layer.get_parameter("weight").numel() * output.shape[2:].numel())

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    model.eval()(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return sum(found)


def ours(stage: Prune, case: Case) -> tuple[nn.Module, Mapping[str, Any]]:
    """The unpruned network teaches; multiples of channels as the device of this machine wants them."""
    stage = replace(stage, macs=SHARE_OF_MACS * case.artifact.arch.workload().macs, recipe=case.recipe)
    context = Context(data=case.data, device=load_device("host"), checkpoint=case.checkpoint)
    done = stage(case.artifact, context)
    return done.model(), {"epochs": case.epochs, "arch": done.arch.to_dict()}


def from_scratch(case: Case) -> tuple[nn.Module, Mapping[str, Any]]:
    """What ours left, with new weights, trained for as many epochs as both trainings of the pruned one together."""
    pruned = [line for line in read("prune_peers") if line["case"] == f"{case.network}: fitnas"][-1]
    model = build_model(Arch.from_dict(pruned["arch"]))
    train(model, case.data, replace(case.recipe, epochs=case.epochs), checkpoint=case.checkpoint)
    return model, {"epochs": case.epochs}


METHODS: dict[str, Method] = {  # in the order in which they must run
    "unpruned": unpruned,
    "fitnas": functools.partial(ours, Prune()),
    "torch-pruning L1": functools.partial(torch_pruning, 1, False),
    "torch-pruning group": functools.partial(torch_pruning, 2, False),
    "the same from scratch": from_scratch,
    "torch-pruning group, taught": functools.partial(torch_pruning, 2, True),
    "unpruned, trained on": trained_on,
}


def run(case: str, seed: int, *, data: Dataset, folder: Path) -> dict[str, Any]:
    """One line; files and states of trainings are in the folder."""
    network, _, method = case.partition(": ")
    artifact = Artifact.load(NETWORKS / network)
    recipe = Recipe(epochs=EPOCHS, batch_size=64)
    start = time.perf_counter()
    model, facts = METHODS[method](
        Case(network=network, artifact=artifact, data=data, recipe=recipe, checkpoint=folder / f"{network} {method}.pt")
    )
    minutes = (time.perf_counter() - start) / 60
    plain, path = (folder / f"{network} {name}.onnx" for name in ("plain", method))
    shape = artifact.source.input_shape
    plain.write_bytes(export_module(artifact.model(), shape))
    path.write_bytes(export_module(model, shape))
    found = compare(path, plain, load_device("host"), max_rounds=200)
    return {
        "macs_share": round(macs(model, shape) / macs(artifact.model(), shape), 4),
        "params": sum(p.numel() for p in model.parameters()),
        "val_accuracy": round(evaluate(model, data.val, artifact.preprocessing), 4),
        "test_accuracy": round(float(right(path, data).mean()), 4),
        "latency_over_unpruned": [round(each, 4) for each in found],
        "minutes": round(minutes, 2), **facts,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="all of networks/ by default")
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--state", type=Path, help="a folder from which a training that was stopped goes on")
    arguments = parser.parse_args()
    data = load_data(arguments.data)
    cases = [(f"{network}: {method}", 0) for network in arguments.names or MAKERS for method in METHODS]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.state or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        extend("prune_peers", cases, functools.partial(run, data=data, folder=folder), arguments.minutes)


if __name__ == "__main__":
    main()
