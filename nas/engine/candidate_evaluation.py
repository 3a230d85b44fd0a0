"""The cost and the accuracy of a candidate: profile or measurement, and a short training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from compress.data.dataset import Dataset
from compress.data.folds import fold
from compress.training.evaluation import predict
from compress.training.loop import Recipe, train
from hw_profiles.budget import violations
from hw_profiles.devices.c99_program import deployed_precisions
from hw_profiles.devices.device import Device
from hw_profiles.profiling import profile
from nas.engine.score import Score
from search_spaces.arch import Arch
from search_spaces.model import build_model


@dataclass(frozen=True, slots=True)
class CandidateCost:
    """Costs of an Arch in the form in which it will run: int8 or float32, whichever keeps ``limits`` better, or else
    is faster; on a microcontroller int8.

    Of a measured latency the upper end of its 90% interval counts, of an estimated one what is kept with a chance of
    90%.
    """

    device: Device
    limits: Mapping[str, float]
    measured: bool

    def __call__(self, arch: Arch) -> dict[str, float]:
        """Latency, memory and size by name; ``bits`` tells the form."""
        return min((self._in(arch, precision) for precision in deployed_precisions(self.device)), key=self._worse)

    def _worse(self, costs: Mapping[str, float]) -> tuple[float, float]:
        return max([0.0, *violations(costs, self.limits).values()]), costs["latency_ms"]

    def _in(self, arch: Arch, precision: str) -> dict[str, float]:
        found = profile(arch, self.device, precision, measured=self.measured)
        return {
            "latency_ms": found.latency_upper_bound_ms,
            "peak_ram_bytes": found.peak_ram_bytes,
            "flash_bytes": found.flash_bytes,
            "macs": found.macs,
            "params": found.params or 0,
            "bits": 8 if precision == "int8" else 32,
        }


@dataclass(slots=True)
class ShortTraining:
    """Accuracy on the validation images after a short training; a lower fidelity trains for less.

    ``data`` should hold no test images, which no candidate may meet. ``place`` is where torch trains, such as cuda.
    """

    data: Dataset
    recipe: Recipe
    seed: int
    place: str = "cpu"
    _sizes: dict[tuple[int, int], Dataset] = field(default_factory=dict)

    def __call__(self, arch: Arch, fidelity: float) -> Score:
        """Accuracy on the validation images and on two halves of them."""
        data = self._resized(arch)
        model = build_model(arch, seed=self.seed).to(self.place)
        seconds = None if self.recipe.seconds is None else self.recipe.seconds * fidelity
        recipe = replace(self.recipe, epochs=self.recipe.epochs * fidelity, seconds=seconds)
        train(model, data, recipe, seed=self.seed)
        return Score.of(predict(model, data.val, data.preprocessing) == data.val.labels)

    @property
    def alternative(self) -> ShortTraining:
        """The same by other kernels, for where the usual ones crash."""
        return replace(self, recipe=self.recipe.alternative)

    def repeated(self, number: int) -> ShortTraining:
        """The same with other random numbers and, where they may be others, other validation images."""
        return replace(self, data=fold(self.data, number), seed=self.seed + number, _sizes={})

    def _resized(self, arch: Arch) -> Dataset:
        size = (arch.input_shape[1], arch.input_shape[2])
        if size not in self._sizes:
            self._sizes[size] = self.data.resized(*size)
        return self._sizes[size]
