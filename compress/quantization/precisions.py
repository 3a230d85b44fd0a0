"""The precisions by name, and the stage that produces each: int8, qat, mixed, fp16, int4, binary."""

from __future__ import annotations

from compress.networks.artifact import Artifact
from compress.quantization.int8.ptq import Quantize
from compress.quantization.int8.qat import QuantizeAware
from compress.quantization.mixed_precision.mixed_precision import MixedPrecision
from compress.quantization.weight_only.binary import Binarize
from compress.quantization.weight_only.fp16 import Half
from compress.quantization.weight_only.int4 import Int4
from hw_profiles.errors import InputError
from hw_profiles.spelling_suggestions import check_one_of

Precision = Quantize | Half | Int4 | Binarize | MixedPrecision | QuantizeAware

PRECISION_STAGES: dict[str, type[Precision]] = {
    "int8": Quantize,
    "fp16": Half,
    "int4": Int4,
    "binary": Binarize,
    "mixed": MixedPrecision,
    "qat": QuantizeAware,
}
_USUAL = "int8"


def stage_of(precision: str | None, config: Precision | None) -> Precision:
    """The stage of a precision, with its usual options or as ``config`` says.

    Raises:
        InputError: no such precision, no such config, or one of another precision.

    >>> stage_of("int4", None), stage_of(None, Half()).name, stage_of(None, None).name
    (Int4(group=32, recipe=None), 'fp16', 'int8')
    """
    if precision is not None:
        check_one_of("precision", precision, PRECISION_STAGES)
    if config is None:
        return PRECISION_STAGES[precision or _USUAL]()
    if not isinstance(config, Precision):
        valid = ", ".join(stage.__name__ for stage in PRECISION_STAGES.values())
        raise InputError(f"config must be one of {valid}, got {type(config).__name__}")
    if precision not in (None, config.name):
        raise InputError(f"config and precision must agree, got {type(config).__name__} and {precision!r}")
    return config


def check_needs_no_images(stage: Precision, artifact: Artifact) -> None:
    """Raise an InputError where a stage cannot do without images."""
    trains = isinstance(stage, Int4) and stage.recipe is not None
    if trains or not isinstance(stage, Half | Int4):
        raise InputError(f"precision {stage.name!r} needs images: data must be given (without: fp16, int4)")
    if artifact.weights and artifact.network.stated_shape is None:
        raise InputError(f"{artifact.network.label}: does not say what it reads: data must be given")
