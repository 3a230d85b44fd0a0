"""The stage Quantize: post-training quantization to int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from compress.argument_checks import is_whole
from compress.data.network_inputs import NamedInputs
from compress.data.preprocessing import Preprocessing
from compress.networks.artifact import Artifact
from compress.networks.network_graph import network_graph, with_integers
from compress.quantization.int8.activation_stats import Floats, channel_extents, check_images, histograms
from compress.quantization.int8.adaround import rounded_weights
from compress.quantization.int8.bias_correction import corrected_biases
from compress.quantization.int8.calibration import (
    ACTIVATIONS,
    CALIBRATIONS,
    Histogram,
    calibrated_range,
    scale_and_zero_point,
)
from compress.quantization.int8.equalization import EQUALIZATIONS, equalized
from compress.quantization.int8.fidelity import Fidelity, FidelityEvaluator
from compress.quantization.int8.several_inputs import has_no_graph, with_quantized_file
from compress.stage_interface import Context
from hw_profiles.devices.device import Device
from hw_profiles.errors import InputError
from hw_profiles.network.graph import MOVES, Graph
from hw_profiles.network.quantization import (
    Quantization,
    Scales,
    in_float_around,
    quantized_tensors,
    tensors_in_float,
    weight_scales,
)
from hw_profiles.network.workload import VIEWS, WEIGHTED, Workload
from hw_profiles.onnx_io.writer import write_graph
from hw_profiles.spelling_suggestions import did_you_mean

_SIGNED_MACHINES = ("aarch64", "arm64")
_LARGEST_BIAS = 2.0**30  # in steps: a channel that hardly anything writes must not lose its bias to saturation


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantize:
    """Weights and activations as 8-bit integers (1712.05877), without training; scales from ``images`` training images.

    ``calibration``: how the range of an activation is chosen, see
    :func:`compress.quantization.int8.calibration.calibrated_range`. ``equalize``: ``"weights"`` or ``"activations"``
    brings channels to one range before, see :func:`compress.quantization.int8.equalization.equalized`; ``"none"``
    does not. ``bias_correction``: see :func:`compress.quantization.int8.bias_correction.corrected_biases`.
    ``adaround``: see :func:`compress.quantization.int8.adaround.rounded_weights`, about a minute for a network of 10
    million MACs. What is None is decided by as many other training images, on which the file that diverges least from
    the float network wins; AdaRound is then only tried where they lose more accuracy than the context allows.
    ``metrics`` has what was chosen.

    ``per_channel``: a scale for each output channel of a weight, else one for the whole. ``activations``: unsigned
    ones, or signed ones; None takes signed ones on 64-bit ARM, whose integer products take signed numbers on both
    sides, and unsigned ones elsewhere: those of x86 (VNNI) take one side unsigned, so that ONNX Runtime makes signed
    ones unsigned again, and where several operations read a tensor falls back to float.

    Raises:
        InputError: an option that does not exist, or images that calibration cannot use.
    """

    name: ClassVar[str] = "int8"
    lossy: ClassVar[bool] = True

    calibration: str | None = None
    equalize: str | None = None
    bias_correction: bool | None = None
    adaround: bool | None = None
    per_channel: bool = True
    activations: str | None = None
    images: int = 512

    def __post_init__(self) -> None:
        for name, valid in (
            ("calibration", tuple(CALIBRATIONS)),
            ("equalize", EQUALIZATIONS),
            ("activations", ACTIVATIONS),
        ):
            value = getattr(self, name)
            if value is not None and value not in valid:
                hint = did_you_mean(str(value), valid)
                raise InputError(f"Quantize.{name} must be one of {', '.join(valid)}, got {value!r}{hint}")
        for name in ("bias_correction", "adaround"):
            if getattr(self, name) not in (None, True, False):
                raise InputError(f"Quantize.{name} must be True, False or None, got {getattr(self, name)!r}")
        if not is_whole(self.images, 1):
            raise InputError(f"Quantize.images must be at least 1, got {self.images!r}")

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The same network with scales for every tensor that will be held as integers; of another source than an Arch
        the file is in integers."""
        if has_no_graph(artifact):
            return with_quantized_file(artifact, self, context)
        shape = np.shape(artifact.preprocessing.tensor(_of_one_input(context.data.train.images[:1])))[1:]
        search = self._search(network_graph(artifact, shape), artifact.preprocessing, context)
        best = search.best()
        chosen = {**best.choice, "activations": search.activations, "per_channel": self.per_channel}
        metrics = {**chosen, **best.fidelity.to_dict(), "tried": search.tried}
        changed = with_integers(artifact, best.graph, best.quantization)
        return replace(changed, metrics={**artifact.metrics, "quantization": metrics})

    def calibrated(self, graph: Graph, preprocessing: Preprocessing, context: Context) -> tuple[Graph, Quantization]:
        """A network that reads images made by ``preprocessing`` with weights as its scales fit them, and the scales."""
        best = self._search(graph, preprocessing, context).best()
        return best.graph, best.quantization

    def _search(self, graph: Graph, preprocessing: Preprocessing, context: Context) -> _Search:
        workload, train = graph.workload, context.data.train
        if not any(op.kind in (*WEIGHTED, "matmul") for op in workload.ops):
            raise InputError("nothing in this network can be held as integers: no convolution or matrix product")
        order = np.random.default_rng(context.seed).permutation(len(train))
        count = max(1, min(self.images, len(order) // 2))
        calibrating, judging = train.take(np.sort(order[:count])), train.take(np.sort(order[-count:]))
        images, judged = (
            preprocessing.tensor(_of_one_input(each.images, workload.input)) for each in (calibrating, judging)
        )
        check_images(images, workload.shapes[workload.input][1:])
        labels = judging.labels if judging.is_labelled else None
        evaluator = FidelityEvaluator(write_graph(graph), judged, labels)
        return _Search(self, graph, images, evaluator, context, self.activations_on(context.device))

    def activations_on(self, device: Device) -> str:
        """``"unsigned"`` or ``"signed"``, as it was asked for or as the device computes faster."""
        machine = device.conditions.get("machine", "")
        return self.activations or ("signed" if machine in _SIGNED_MACHINES else "unsigned")


def _of_one_input(images: Any, name: str | None = None) -> Any:
    """What the one input reads, also where it is given by its ``name``; None is any."""
    if not isinstance(images, NamedInputs):
        return images
    if len(images.arrays) != 1 or name not in (None, *images.arrays):
        raise InputError(f"inputs must be given for {name or 'one input'}, got {', '.join(images.arrays)}")
    return next(iter(images.arrays.values()))


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
    images: Floats
    evaluator: FidelityEvaluator
    context: Context
    activations: str
    tried: int = field(default=0)

    def best(self) -> _Candidate:
        """Calibration and equalisation first, then the correction of biases, then, where needed, roundings."""
        best = min(self._calibrated(), key=_divergence)
        corrected = self._corrected(best)
        if self._needs_rounding(corrected):
            corrected = self._better(corrected, self._corrected(self._rounded(best)), self.stage.adaround)
        return corrected

    def _calibrated(self) -> list[_Candidate]:
        candidates = []
        equalizations = EQUALIZATIONS if self.stage.equalize is None else (self.stage.equalize,)
        calibrations = CALIBRATIONS if self.stage.calibration is None else (self.stage.calibration,)
        for i, equalization in enumerate(equalizations):
            self.context.report(0.5 * i / len(equalizations), "calibrating")
            graph = self._equalized(equalization)
            seen = histograms(write_graph(graph), self._tensors(), self.images)
            for calibration in calibrations:
                activations = activation_scales(graph.workload, seen, calibration, signed=self._signed)
                choice = {"calibration": calibration, "equalize": equalization}
                candidates.append(self._candidate(graph, self._quantization(graph, activations), choice))
        return candidates

    def _corrected(self, candidate: _Candidate) -> _Candidate:
        wanted = self.stage.bias_correction
        plain = replace(candidate, choice={"adaround": False, **candidate.choice, "bias_correction": False})
        if wanted is False:
            return plain
        weights = corrected_biases(candidate.graph, candidate.quantization, self.images, self._report)
        corrected, choice = candidate.graph.with_weights(weights), {**plain.choice, "bias_correction": True}
        return self._better(plain, self._candidate(corrected, candidate.quantization, choice), wanted)

    def _rounded(self, candidate: _Candidate) -> _Candidate:
        weights = rounded_weights(
            candidate.graph, candidate.quantization, self.images, seed=self.context.seed, report=self._report
        )
        rounded, choice = candidate.graph.with_weights(weights), {**candidate.choice, "adaround": True}
        return self._candidate(rounded, candidate.quantization, choice)

    def _needs_rounding(self, candidate: _Candidate) -> bool:
        if self.stage.adaround is None:
            return candidate.fidelity.points_lost > self.context.max_accuracy_drop
        return self.stage.adaround

    def _better(self, one: _Candidate, other: _Candidate, asked: bool | None) -> _Candidate:
        return other if asked else min(one, other, key=_divergence)

    def _candidate(self, graph: Graph, quantization: Quantization, choice: Mapping[str, Any]) -> _Candidate:
        self.tried += 1
        return _Candidate(graph, quantization, choice, self.evaluator(write_graph(graph, quantization)))

    def _tensors(self) -> list[str]:
        """Those that are held as integers."""
        workload = self.graph.workload
        between = tensors_in_float(workload, in_float_around(workload))
        return [name for name in quantized_tensors(workload) if name not in between]

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
            if op.kind in WEIGHTED:
                bias = graph.weights[op.bias_name] if op.bias else None
                found = _scales(graph.weights[op.weight], bias, activations[op.inputs[0]][0], self.stage.per_channel)
                scales[op.weight] = np.maximum(found, scales.get(op.weight, found))  # for all that read it
        in_float = in_float_around(graph.workload)
        return Quantization(activations=activations, weights=scales, signed=self._signed, in_float=in_float)

    @property
    def _signed(self) -> bool:
        return self.activations == "signed"

    def _report(self, share: float, note: str) -> None:
        self.context.report(0.5 + 0.5 * share, note)


def activation_scales(
    workload: Workload, seen: Mapping[str, Histogram], calibration: str, *, signed: bool = False
) -> dict[str, tuple[float, int]]:
    """Scale and zero point of every tensor that is held as integers, from its histogram; a maximum, a view and what
    only moves numbers have those of what they are taken of.
    """
    consumers = workload.consumers()
    ranges = {}
    for name, histogram in seen.items():
        functions = {op.function if op.kind == "activation" else "none" for op in consumers[name]}
        function = functions.pop() if len(functions) == 1 else "none"
        ranges[name] = calibrated_range(histogram, calibration, function)
    for op in workload.ops:
        if op.kind in (*VIEWS, *MOVES, "max_pool") and op.inputs[0] in ranges:
            ranges[op.name] = ranges[op.inputs[0]]
    return {name: scale_and_zero_point(*both, signed=signed) for name, both in ranges.items()}


def _scales(
    weight: NDArray[np.float32], bias: NDArray[np.float32] | None, input_scale: float, per_channel: bool
) -> Scales:
    """The largest magnitude is 127, unless the bias needs larger steps to be an int32."""
    scales = weight_scales(weight)
    if bias is not None:
        scales = np.maximum(scales, np.abs(bias) / np.float32(_LARGEST_BIAS * input_scale)).astype(np.float32)
    return scales if per_channel else np.asarray(scales.max(), np.float32)


def _divergence(candidate: _Candidate) -> float:
    return candidate.fidelity.divergence
