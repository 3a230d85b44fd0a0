"""Looking at a module leaves it as it was."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch import Tensor, nn

from compress import Preprocessing
from compress.data.dataset import Split
from compress.distillation.distill import Distill
from compress.distillation.feature_distillation import FeatureDistillation
from compress.distillation.feature_maps import feature_layers
from compress.networks.network_source import nothing_changed
from compress.networks.torch_export import export_module
from compress.training.evaluation import mean_loss, predict
from compress.training.teachers import ModuleTeacher

RECORD = Preprocessing(channels=3, sizes=((8, 8),), mean=(0.5,) * 3, std=(0.5,) * 3, class_names=("a", "b"))
SPLIT = Split(np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 1]))


class Network(nn.Sequential):
    """Training, but for its normalization; told to, it fails."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 2))
        self.train()[1].eval()
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        if self.fails:
            raise KeyboardInterrupt
        return super().forward(x)


def guided(model: nn.Module) -> object:
    teacher = ModuleTeacher(nn.Sequential(nn.Conv2d(3, 4, 3)), RECORD)
    stage = Distill(method="hints", layers=("0",), teacher_layers=("0",))
    return FeatureDistillation.of(stage, model, teacher, (3, 8, 8), seed=0)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    "look",
    [
        lambda model: predict(model, SPLIT, RECORD),
        lambda model: mean_loss(model, SPLIT, RECORD),
        lambda model: feature_layers(model, (3, 8, 8)),
        lambda model: export_module(model, (3, 8, 8)),
        lambda model: nothing_changed(nn.Sequential(), model, (3, 8, 8)),
        guided,
    ],
    ids=["predict", "mean_loss", "feature_layers", "export_module", "nothing_changed", "guided"],
)
def test_each_part_stays_in_its_mode(look: Callable[[nn.Module], object], fails: bool) -> None:
    model = Network()
    model.fails = fails
    before = [module.training for module in model.modules()]
    if fails:
        with pytest.raises(KeyboardInterrupt):
            look(model)
    else:
        look(model)
    assert [module.training for module in model.modules()] == before
    assert not any(module._forward_hooks for module in model.modules())
