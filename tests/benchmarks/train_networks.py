"""Train the small networks that the benchmarks of compression begin with, and keep them.

    python tests/benchmarks/train_networks.py --data FOLDER [--minutes 90] [--state FOLDER] [--device cuda] [NAME ...]

Each is one of the known families with one halving of the image left out so that 32×32 pixels are enough, below 10 M
MACs and 2 MB; it is kept as an artifact in ``tests/benchmarks/networks/NAME``, with its accuracy on the test images and
what the training took in ``artifact.json``. The minutes are those of one network; with ``--state`` a training that was
stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from compress import Artifact, Dataset, Recipe, load_data
from compress.training.evaluation import evaluate
from compress.training.loop import train
from search_spaces import Arch, build_model, load_space, preset

NETWORKS = Path(__file__).parent / "networks"


def mobilenetv2(input_shape: tuple[int, int, int], num_classes: int) -> Arch:
    """ReLU6, no squeeze-excite."""
    return _finer(preset("mobilenetv2_025", input_shape=input_shape, num_classes=num_classes), head=320)


def mobilenetv3(input_shape: tuple[int, int, int], num_classes: int) -> Arch:
    """Hard-swish, squeeze-excite with hard sigmoids."""
    return _finer(preset("mobilenetv3_small_050", input_shape=input_shape, num_classes=num_classes), head=512)


def efficientnet(input_shape: tuple[int, int, int], num_classes: int) -> Arch:
    """SiLU, squeeze-excite with sigmoids."""
    space = load_space("efficientnet", input_shape=input_shape, num_classes=num_classes)
    params = {name: values[0] for name, values in space.choices.items()} | {"width": 0.25, "depth": 0.5}
    kernels = {f"stage{i}.kernel": size for i, size in enumerate((3, 5, 3, 5, 5, 3), 1)}
    arch = space.build(params | kernels | {f"stage{i}.expansion": 4 for i in range(1, 7)})
    first, *others = arch.stages
    return replace(arch, stages=((replace(first[0], stride=2, shortcut="none"), *first[1:]), *others))


MAKERS: dict[str, Callable[[tuple[int, int, int], int], Arch]] = {
    "mobilenetv2": mobilenetv2,
    "mobilenetv3": mobilenetv3,
    "efficientnet": efficientnet,
}


def _finer(arch: Arch, head: int) -> Arch:
    """The stem's stride becomes 1, the last convolution gets ``head`` channels."""
    assert arch.head is not None
    return replace(arch, stem=replace(arch.stem, stride=1), head=replace(arch.head, out_channels=head))


def train_network(name: str, data: Dataset, recipe: Recipe, device: str, state: Path | None = None) -> Artifact:
    """The trained network with its training and accuracies as metrics; ``state``: a folder to go on from."""
    arch = MAKERS[name](data.preprocessing.input_shape, data.num_classes)
    torch.manual_seed(0)
    model = build_model(arch).to(device)
    training = train(model, data, recipe, checkpoint=state and state / f"{name}.pt")
    model.to("cpu")
    artifact = Artifact(source=arch, weights={}, preprocessing=data.preprocessing).with_model(model)
    scores = {f"{s}_accuracy": evaluate(model, getattr(data, s), data.preprocessing) for s in ("val", "test")}
    return replace(artifact, metrics={"data": data.name, "training": asdict(training), **scores})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MAKERS)}; all by default")
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--device", default="cpu", help="where torch trains")
    arguments = parser.parse_args()
    data, recipe = load_data(arguments.data), Recipe(epochs=60, seconds=60 * arguments.minutes)
    for name in arguments.names or MAKERS:
        artifact = train_network(name, data, recipe, arguments.device, arguments.state)
        artifact.save(NETWORKS / name)
        print(name, f"{artifact.source.workload().macs / 1e6:.1f} M MACs", dict(artifact.metrics), flush=True)


if __name__ == "__main__":
    main()
