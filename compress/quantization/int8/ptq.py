"""The stage Quantize: post-training quantization to int8."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from compress.argument_checks import is_whole
from compress.data.network_inputs import NamedInputs
from compress.data.preprocessing import Preprocessing
from compress.networks.artifact import Artifact
from compress.networks.network_graph import inputs_of, network_graph, with_integers
from compress.quantization.int8.activation_stats import channel_extents, histograms
from compress.quantization.int8.adaround import rounded_weights
from compress.quantization.int8.bias_correction import corrected_biases
from compress.quantization.int8.calibration import (
    ACTIVATIONS,
    CALIBRATIONS,
    LEVELS,
    Histogram,
    calibrated_range,
    scale_and_zero_point,
)
from compress.quantization.int8.equalization import EQUALIZATIONS, equalized
from compress.quantization.int8.fidelity import Fidelity, FidelityEvaluator
from compress.quantization.int8.least_squares import fitted_weights
from compress.quantization.int8.weight_levels import FEWEST, MOST, Levels, levels_of
from compress.quantization.int8.weight_scales import WeightGrid
from compress.stage_interface import Context
from hw_profiles.devices.device import Device
from hw_profiles.errors import InputError
from hw_profiles.network.graph import MOVES, Graph
from hw_profiles.network.quantization import (
    Quantization,
    Scales,
    gate_of,
    in_float_around,
    quantized_tensors,
    rounded_tensors,
    tensors_in_float,
)
from hw_profiles.network.workload import VIEWS, WEIGHTED, Workload
from hw_profiles.onnx_io.writer import write_graph
from hw_profiles.spelling_suggestions import check_one_of

_OPTIONS = ("calibration", "equalize", "bias_correction", "least_squares", "adaround")
_SCREENED = 128  # images on which calibrations are compared
_FEW = 32  # images below which all calibrate and judge: a range of half of them says too little
_KNOWS_GATES = "ort"  # the runtime with kernels for sigmoids and products in integers, but for no SiLU
_WORTH_GATES = 1.5  # times the divergence that the time which gates in integers save is worth
_SIGNED_MACHINES = ("aarch64", "arm64")


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantize:
    """Post-training quantization of weights and activations to int8 (1712.05877), calibrated on ``images`` images.

    ``calibration``: how the range of an activation is chosen, see
    :func:`compress.quantization.int8.calibration.calibrated_range`. ``equalize``: ``"weights"`` or ``"activations"``
    equalizes the ranges of channels first, see :func:`compress.quantization.int8.equalization.equalized`; ``"none"``
    does not. ``bias_correction``: see :func:`compress.quantization.int8.bias_correction.corrected_biases`.
    ``least_squares``: see :func:`compress.quantization.int8.least_squares.fitted_weights`, which includes the biases,
    so that these are not corrected. ``adaround``: see :func:`compress.quantization.int8.adaround.rounded_weights`,
    about a minute for a network of 10 million MACs. Options set to None are chosen automatically: the variant closest
    to the float network on a second set of images (the same images if fewer than 32 are given) is used. With fewer than
    twice ``images``, half of the images choose the options, ranges are compared on all of them, and the chosen options
    are then applied with all. Weights are fitted unless an option for biases is given, and AdaRound is only tried if
    they were not fitted and more accuracy is lost than the context allows. ``metrics`` has the chosen options.

    ``per_channel``: one scale per output channel of a weight, otherwise one for the whole tensor. ``activations``:
    ``"unsigned"`` or ``"signed"``; None uses signed ones on 64-bit ARM, where both factors of an integer product are
    signed, and unsigned ones elsewhere. On x86 (VNNI) one factor must be unsigned: ONNX Runtime converts signed
    activations, and computes in float if several operations use such a tensor. ``levels``: how many integers a weight
    takes, 3 to 255, by the name or kind of the layer (``{"conv": 63, "linear": 15}``; others take 255), or one number,
    the geometric mean over all weights: layers get fewer if that changes the class probabilities less. Fewer levels
    change neither the ONNX file's size nor its latency, they make the ``.fnz`` file smaller.

    Raises:
        InputError: an option that does not exist, or images that calibration cannot use.
    """

    name: ClassVar[str] = "int8"
    lossy: ClassVar[bool] = True

    calibration: str | None = None
    equalize: str | None = None
    bias_correction: bool | None = None
    least_squares: bool | None = None
    adaround: bool | None = None
    per_channel: bool = True
    activations: str | None = None
    levels: Levels | None = None
    images: int = 512

    def __post_init__(self) -> None:
        for name, valid in (
            ("calibration", tuple(CALIBRATIONS)),
            ("equalize", EQUALIZATIONS),
            ("activations", ACTIVATIONS),
        ):
            if getattr(self, name) is not None:
                check_one_of(f"Quantize.{name}", getattr(self, name), valid)
        for name in ("bias_correction", "least_squares", "adaround"):
            if getattr(self, name) not in (None, True, False):
                raise InputError(f"Quantize.{name} must be True, False or None, got {getattr(self, name)!r}")
        for each in self.levels.values() if isinstance(self.levels, Mapping) else [self.levels]:
            if each is not None and not is_whole(each, FEWEST, MOST):
                raise InputError(f"Quantize.levels must be between {FEWEST} and {MOST}, got {each!r}")
        if not is_whole(self.images, 1):
            raise InputError(f"Quantize.images must be at least 1, got {self.images!r}")

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The same network with scales for every tensor that will be held as integers; of another source than an Arch
        the file is in integers."""
        one = artifact.preprocessing.tensor(context.data.train.images[:1])
        found = self.calibrated(network_graph(artifact, one), artifact.preprocessing, context)
        changed = with_integers(artifact, found.graph, found.quantization)
        return replace(changed, metrics={**artifact.metrics, "quantization": found.metrics})

    def calibrated(self, graph: Graph, preprocessing: Preprocessing, context: Context) -> Calibrated:
        """The same of a network that reads images made by ``preprocessing``."""
        best, tried = self._best(graph, preprocessing, context)
        chosen = {
            **best.choice, "activations": self.activations_on(context.device), "per_channel": self.per_channel
        }  # fmt: skip
        return Calibrated(best.graph, best.quantization, {**chosen, **best.fidelity.to_dict(), "tried": tried})

    def _best(self, graph: Graph, preprocessing: Preprocessing, context: Context) -> tuple[_Candidate, int]:
        """What does best, and how many candidates were tried. Where there are few images, half of them choose what is
        open, and what was chosen is done again with all."""
        workload, train = graph.workload, context.data.train
        if not any(op.kind in (*WEIGHTED, "matmul") for op in workload.ops):
            raise InputError("nothing to quantize: the network has no convolution or matrix product in float32")
        order = np.random.default_rng(context.seed).permutation(len(train))
        most = min(self.images, len(order))
        count = min(most, len(order) // 2) if len(order) >= _FEW else most
        calibrating, judging, everything = (
            train.take(np.sort(each)) for each in (order[:count], order[-count:], order[:most])
        )
        judged, images = (inputs_of(graph, preprocessing, each) for each in (judging, everything))
        labels = judging.labels if judging.is_labeled else None
        evaluator = FidelityEvaluator(write_graph(graph), judged, labels)
        activations = self.activations_on(context.device)
        grid = WeightGrid(per_channel=self.per_channel, levels=levels_of(self.levels, graph, images, context.report))
        search = _Search(self, graph, images, evaluator, context, activations, in_float_around(workload), grid)
        if self._is_decided() or count == most:
            return search.best(), search.tried
        half = inputs_of(graph, preprocessing, calibrating)
        screening = FidelityEvaluator(write_graph(graph), images)
        choosing = replace(search, images=half, screening=screening)
        chosen = choosing.best()
        decided = replace(self, **{name: chosen.choice[name] for name in _OPTIONS})
        again = replace(search, stage=decided).best()
        return replace(again, fidelity=chosen.fidelity), choosing.tried  # on images that it was not made of

    def _is_decided(self) -> bool:
        """Whether no option is left open; weights are not fitted where something is said of biases."""
        return all(getattr(self, name) is not None for name in _OPTIONS if name != "least_squares")

    def activations_on(self, device: Device) -> str:
        """``"unsigned"`` or ``"signed"``, as it was requested or as the device computes faster."""
        machine = device.conditions.get("machine", "")
        return self.activations or ("signed" if machine in _SIGNED_MACHINES else "unsigned")


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """A network with weights as its scales fit them, the scales, and what was chosen."""

    graph: Graph
    quantization: Quantization
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Candidate:
    graph: Graph
    quantization: Quantization
    choice: Mapping[str, Any]
    fidelity: Fidelity


@dataclass(slots=True)
class _Search:
    """The options that are open, tried in turn."""

    stage: Quantize
    graph: Graph
    images: NamedInputs
    evaluator: FidelityEvaluator
    context: Context
    activations: str
    in_float: frozenset[str]
    grid: WeightGrid
    screening: FidelityEvaluator | None = None
    """Compares calibrations and equalizations, where that is not done on the images of ``evaluator``."""
    tried: int = field(default=0)

    def best(self) -> _Candidate:
        """Calibration and equalization first, on some images, then weights and biases; where needed, roundings."""
        settings = [
            (equalization, calibration)
            for equalization in (EQUALIZATIONS if self.stage.equalize is None else (self.stage.equalize,))
            for calibration in (CALIBRATIONS if self.stage.calibration is None else (self.stage.calibration,))
        ]
        evaluator = (self.screening or self.evaluator).first(_SCREENED) if len(settings) > 1 else self.evaluator
        plain = min(self._calibrated(settings, evaluator), key=_divergence)
        if evaluator is not self.evaluator:
            plain = replace(plain, fidelity=self.evaluator(write_graph(plain.graph, plain.quantization)))
        best = self._changed(plain)
        if self._needs_rounding(best):
            best = self._better(best, self._corrected(self._rounded(plain)), self.stage.adaround)
        return self._with_exact_gates(best) if self._gates() else best

    def _with_exact_gates(self, best: _Candidate) -> _Candidate:
        """With SiLU computed in float, where gates in integers cost more than they save time."""
        kept = {name: pair for name, pair in best.quantization.activations.items() if name not in self._gates()}
        quantization = replace(best.quantization, activations=kept)
        exact = self._candidate(best.graph, quantization, {**best.choice, "gates": False})
        gain = best.fidelity.divergence > _WORTH_GATES * exact.fidelity.divergence
        return exact if gain else best

    def _changed(self, plain: _Candidate) -> _Candidate:
        """With the weights or the biases that were requested, or those that do best."""
        fitted = self.stage.least_squares
        if fitted is None:
            fitted = None if self.stage.bias_correction is None and not self.stage.adaround else False
        corrected = plain if fitted else self._corrected(plain)
        return corrected if fitted is False else self._better(corrected, self._fitted(plain), fitted)

    def _calibrated(self, settings: list[tuple[str, str]], evaluator: FidelityEvaluator) -> list[_Candidate]:
        candidates = []
        seen: dict[str, Histogram] = {}
        graphs: dict[str, Graph] = {}
        for i, (equalization, calibration) in enumerate(settings):
            self.context.report(0.5 * i / len(settings), "calibrating")
            if equalization not in graphs:
                graphs[equalization] = self._equalized(equalization)
                seen = self._seen(graphs[equalization])
            graph = graphs[equalization]
            activations = activation_scales(graph.workload, seen, calibration, signed=self._signed)
            choice = {
                "calibration": calibration, "equalize": equalization, "bias_correction": False, "least_squares": False,
                "adaround": False, **({"gates": True} if self._gates() else {}),
                **({"levels": dict(self.grid.levels)} if self.grid.levels else {}),
            }  # fmt: skip
            candidates.append(self._candidate(graph, self._quantization(graph, activations), choice, evaluator))
        return candidates

    def _gates(self) -> dict[str, tuple[float, int]]:
        """The scales of the gates of SiLU, where they save time."""
        workload = self.graph.workload
        if self.context.device.runtime != _KNOWS_GATES:
            return {}
        names = [gate_of(op) for op in workload.ops if op.function == "silu" and op.name not in self.in_float]
        return dict.fromkeys(names, scale_and_zero_point(0.0, 1.0, signed=self._signed))

    def _corrected(self, plain: _Candidate) -> _Candidate:
        wanted = self.stage.bias_correction
        if wanted is False:
            return plain
        weights = corrected_biases(plain.graph, plain.quantization, self.images, self._report)
        choice = {**plain.choice, "bias_correction": True}
        return self._better(
            plain, self._candidate(plain.graph.with_weights(weights), plain.quantization, choice), wanted
        )

    def _fitted(self, plain: _Candidate) -> _Candidate:
        graph, quantization = fitted_weights(
            plain.graph, plain.quantization, self.images, grid=self.grid, seed=self.context.seed,
            report=self._report,
        )  # fmt: skip
        return self._candidate(graph, quantization, {**plain.choice, "least_squares": True})

    def _rounded(self, candidate: _Candidate) -> _Candidate:
        weights = rounded_weights(
            candidate.graph, candidate.quantization, self.images, seed=self.context.seed, report=self._report
        )
        rounded, choice = candidate.graph.with_weights(weights), {**candidate.choice, "adaround": True}
        return self._candidate(rounded, candidate.quantization, choice)

    def _needs_rounding(self, candidate: _Candidate) -> bool:
        if self.stage.adaround is None:
            loses = candidate.fidelity.points_lost > self.context.max_accuracy_drop
            return loses and not candidate.choice["least_squares"]
        return self.stage.adaround

    def _better(self, one: _Candidate, other: _Candidate, asked: bool | None) -> _Candidate:
        return other if asked else min(one, other, key=_divergence)

    def _candidate(
        self,
        graph: Graph,
        quantization: Quantization,
        choice: Mapping[str, Any],
        evaluator: FidelityEvaluator | None = None,
    ) -> _Candidate:
        self.tried += 1
        evaluate = evaluator or self.evaluator
        return _Candidate(graph, quantization, choice, evaluate(write_graph(graph, quantization)))

    def _tensors(self) -> list[str]:
        """Those that are held as integers."""
        workload = self.graph.workload
        between = tensors_in_float(workload, self.in_float) - rounded_tensors(workload)
        return [name for name in quantized_tensors(workload) if name not in between]

    def _seen(self, graph: Graph) -> dict[str, Histogram]:
        """The numbers in each of these tensors; the operations around one that has none are in float from now on."""
        seen = histograms(write_graph(graph), self._tensors(), self.images)
        without = {name for name in self._tensors() if name not in seen}
        without -= tensors_in_float(graph.workload, self.in_float)
        if without:
            ops = graph.workload.ops
            beside = {op.name for op in ops if not without.isdisjoint((op.name, *op.inputs))}
            self.in_float = in_float_around(graph.workload, self.in_float | beside)
        return {name: seen[name] for name in self._tensors() if name in seen}

    def _equalized(self, equalization: str) -> Graph:
        graph = self.graph
        if equalization == "none":
            return graph
        extents = None
        if equalization == "activations":
            names = [name for name in self._tensors() if len(graph.workload.shapes[name]) > 1]
            extents = channel_extents(write_graph(graph), names, self.images)
        return graph.with_weights(equalized(graph.workload, graph.weights, extents))

    def _quantization(self, graph: Graph, activations: Mapping[str, tuple[float, int]]) -> Quantization:
        scales: dict[str, Scales] = {}
        for op in graph.workload.ops:
            if op.kind in WEIGHTED and op.name not in self.in_float:
                bias = graph.weights[op.bias_name] if op.bias else None
                found = self.grid.scales(op.name, graph.weights[op.weight], bias, activations[op.inputs[0]][0])
                scales[op.weight] = np.maximum(found, scales.get(op.weight, found))  # for all that read it
        activations = {**activations, **self._gates()}
        return Quantization(activations=activations, weights=scales, signed=self._signed, in_float=self.in_float)

    @property
    def _signed(self) -> bool:
        return self.activations == "signed"

    def _report(self, share: float, note: str) -> None:
        self.context.report(0.5 + 0.5 * share, note)


def activation_scales(
    workload: Workload, seen: Mapping[str, Histogram], calibration: str, *, signed: bool = False
) -> dict[str, tuple[float, int]]:
    """Scale and zero point of every tensor that is held as integers, from its histogram; a maximum, a view and what
    only moves numbers have those of what they are taken of. The mean of an image is no finer than a mean of integers:
    ONNX Runtime cannot compute one that is 256 times finer, such as that of an image less its mean.
    """
    consumers = workload.consumers()
    ranges = {}
    for name, histogram in seen.items():
        functions = {op.function if op.kind == "activation" else "none" for op in consumers[name]}
        function = functions.pop() if len(functions) == 1 and name != workload.output else "none"
        ranges[name] = calibrated_range(histogram, calibration, function)
    for op in workload.ops:
        if op.kind in (*VIEWS, *MOVES, "max_pool") and op.inputs[0] in ranges:
            ranges[op.name] = ranges[op.inputs[0]]
        elif op.kind == "global_avg_pool" and {op.name, op.inputs[0]} <= ranges.keys():
            low, high = ranges[op.name]
            step = scale_and_zero_point(*ranges[op.inputs[0]])[0] / math.prod(workload.shapes[op.inputs[0]][2:])
            if low < high:
                ranges[op.name] = low, max(high, low + (LEVELS - 1) * step)
    return {name: scale_and_zero_point(*both, signed=signed) for name, both in ranges.items()}


def _divergence(candidate: _Candidate) -> float:
    return candidate.fidelity.divergence
