"""The stage MixedPrecision: operations that lose most in low precision keep more bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from compress.argument_checks import is_whole, is_within
from compress.data.dataset import Split
from compress.networks.artifact import Artifact
from compress.networks.network_graph import inputs_of, network_graph, with_integers
from compress.networks.onnx_export import onnx_bytes
from compress.networks.store_weights import require_float
from compress.quantization.int8.fidelity import Fidelity, FidelityEvaluator
from compress.quantization.int8.ptq import Quantize
from compress.quantization.mixed_precision.measured_groups import faster_in_float
from compress.quantization.mixed_precision.precision_sensitivity import (
    LOW_BITS,
    EightBits,
    FourBits,
    Sensitivity,
    estimated,
    ranked,
    sensitivity,
)
from compress.stage_interface import Context
from compress.weight_codecs.codecs import GROUP, check_group
from hw_profiles.budget import violations
from hw_profiles.devices.footprint import flash_bytes, ram_bytes
from hw_profiles.errors import InputError
from hw_profiles.latency.estimate import upper_bound_ms
from hw_profiles.network.graph import Graph
from hw_profiles.onnx_io.writer import write_graph
from hw_profiles.runtimes.fusion import fuse
from hw_profiles.spelling_suggestions import check_one_of


@dataclass(frozen=True, kw_only=True, slots=True)
class MixedPrecision:
    """Use low precision for layers where it costs little accuracy, and elsewhere only as far as the limits require.

    ``bits`` 8: operations in int8, others in float; a float network is quantized first
    (:class:`compress.quantization.int8.ptq.Quantize`). 4: weights as 4-bit integers (see
    :class:`compress.quantization.weight_only.int4.Int4`), others unchanged; in an int8 network these are 8-bit
    integers, and 4-bit ones are widened to 8 bits when the file is loaded. Biases compensate the shift that 4 bits
    cause in the mean of each channel.

    All operations start in low precision. Those that lose most for what they save (estimated latency for 8 bits, bytes
    for 4), by :func:`sensitivity` on ``images`` training images, are moved to higher precision one after the other
    until the validation accuracy drop against the float network is at most ``max_accuracy_drop`` points (None: that of
    the context); an operation that would exceed the budget is not moved. With ``only_faster``, operations that 8 bits
    do not make faster are in float from the start, such as hard-swish blocks that the runtime does not fuse: measured
    block by block on this machine, estimated for another device. Accuracy is that of the file in ONNX Runtime; latency
    is estimated in between, and measured for the final file.

    >>> MixedPrecision(bits=4).name
    'mixed'
    """

    name: ClassVar[str] = "mixed"
    lossy: ClassVar[bool] = True

    bits: int = 8
    group: int = GROUP
    images: int = 256
    max_accuracy_drop: float | None = None
    only_faster: bool = False

    def __post_init__(self) -> None:
        if self.max_accuracy_drop is not None and not is_within(self.max_accuracy_drop, 0, 100):
            raise InputError(
                "MixedPrecision.max_accuracy_drop must be between 0 and 100 (percentage points), got "
                f"{self.max_accuracy_drop!r}"
            )
        check_one_of("MixedPrecision.bits", self.bits, LOW_BITS)
        check_group("MixedPrecision.group", self.group)
        if not is_whole(self.images, 1):
            raise InputError(f"MixedPrecision.images must be at least 1, got {self.images!r}")

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The network with some operations in low precision; ``metrics`` holds the table and what was chosen."""
        artifact = self._start(artifact)
        one = artifact.preprocessing.tensor(context.data.train.images[:1])
        graph = network_graph(artifact, one)
        lowering = self._lowering(artifact, graph, context)
        metrics = lowering.artifact.metrics
        screened = context.data.train.some(self.images, context.seed)
        screen, evaluator = (_evaluator(graph, artifact, split) for split in (screened, context.data.val))
        table = sensitivity(lowering, screen, context)
        allowed = context.max_accuracy_drop if self.max_accuracy_drop is None else self.max_accuracy_drop
        raised = self._no_faster(lowering, table, context)
        chosen = lowering(raised)
        fidelity = evaluator(onnx_bytes(chosen))
        for row in ranked(table, by_latency=self.bits == 8):
            if fidelity.points_lost <= allowed:
                break
            if row.name in raised:
                continue
            candidate = lowering([*raised, row.name])
            if not _breaks_more(candidate, chosen, context):
                raised.append(row.name)
                chosen, fidelity = candidate, evaluator(onnx_bytes(candidate))
        return replace(chosen, metrics={**metrics, "mixed": self._metrics(raised, table, fidelity)})

    def _no_faster(self, lowering: EightBits | FourBits, table: Sequence[Sensitivity], context: Context) -> list[str]:
        """What ``only_faster`` leaves in float: by blocks that are measured on this machine, else as estimated."""
        if not self.only_faster:
            return []
        if context.measured and self.bits == 8:
            return faster_in_float(lowering, [row.name for row in table], context.device)
        return [row.name for row in table if row.saved_ms <= 0]

    def _start(self, artifact: Artifact) -> Artifact:
        """The artifact, with scales or in float."""
        if artifact.quantization is not None:
            return artifact
        if self.bits == 4:
            require_float(artifact)
        elif artifact.precision == "int8":
            if not artifact.weights:
                raise InputError("MixedPrecision with bits=8 begins with a float32 ONNX file, this is int8 already")
            artifact = replace(artifact, deployed=None)  # from the module again
        return artifact

    def _lowering(self, artifact: Artifact, graph: Graph, context: Context) -> EightBits | FourBits:
        if self.bits == 4:
            return FourBits(artifact, graph, self.group).corrected(context)
        if artifact.quantization is not None:
            return EightBits(artifact, graph, artifact.quantization)
        found = Quantize().calibrated(graph, artifact.preprocessing, context)
        integers = with_integers(artifact, found.graph, found.quantization)
        metrics = {**artifact.metrics, "quantization": found.metrics}
        return EightBits(replace(integers, metrics=metrics), found.graph, found.quantization)

    def _metrics(self, raised: Sequence[str], table: Sequence[Sensitivity], fidelity: Fidelity) -> dict[str, object]:
        return {
            "bits": self.bits,
            "raised": list(raised),
            "sensitivity": [asdict(row) for row in table],
            **fidelity.to_dict(),
        }


def _evaluator(graph: Graph, artifact: Artifact, split: Split) -> FidelityEvaluator:
    """What compares files with the float network on these images."""
    labels = split.labels if split.is_labeled else None
    return FidelityEvaluator(write_graph(graph), inputs_of(graph, artifact.preprocessing, split), labels)


def check_budget(artifact: Artifact, context: Context, precision: str) -> None:
    """Raise an InputError where a limit is broken, which is named; latency is estimated. ``precision``: what it is."""
    limits = context.budget.limits()
    costs = _costs(artifact, context) if limits else {}
    for name, excess in violations(costs, limits).items():
        if excess > 0:
            raise InputError(
                f"budget.{name} must be at least {costs[name]:.6g}, what the network takes in {precision} on "
                f"{context.device.name}, got {limits[name]:g}"
            )


def _breaks_more(candidate: Artifact, before: Artifact, context: Context) -> bool:
    """Whether a limit is broken that was not, or further than it was."""
    limits = context.budget.limits()
    now, then = (violations(_costs(each, context), limits) for each in (candidate, before))
    return any(excess > max(0.0, then[name]) for name, excess in now.items())


def _costs(artifact: Artifact, context: Context) -> dict[str, float | None]:
    latency, workload, device = estimated(artifact, context), artifact.workload(), context.device
    kernels = fuse(workload, device.runtime)
    return {
        "latency_ms": upper_bound_ms(latency.ms, latency.high_ms, latency.source),
        "peak_ram_bytes": ram_bytes(workload, kernels, device),
        "flash_bytes": flash_bytes(workload, kernels, device),
        "energy_mj": None,
    }
