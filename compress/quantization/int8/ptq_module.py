"""Post-training quantization of networks that are not an Arch, by way of their ONNX file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.networks.artifact import Artifact
from compress.networks.network_source import require_arch
from compress.networks.onnx_export import onnx_bytes
from compress.networks.onnx_weights import with_int8_file
from compress.quantization.int8.ptq_onnx import quantize_onnx
from compress.stage_interface import Context

if TYPE_CHECKING:
    from compress.quantization.int8.ptq import Quantize


def quantized_file(artifact: Artifact, stage: Quantize, context: Context) -> Artifact:
    """The artifact with its file in 8-bit integers, its ranges from training images.

    Raises:
        InputError: an option that is for an Arch only, or a file that cannot be quantized.
    """
    for name in ("equalize", "bias_correction", "adaround"):
        if getattr(stage, name) not in (None, False, "none"):
            require_arch(f"Quantize.{name}", artifact.source)
    split = context.data.train.some(2 * stage.images, context.seed)  # one half to calibrate, the other to choose by
    data = quantize_onnx(
        onnx_bytes(artifact),
        artifact.preprocessing.tensor(split.images),
        calibration=stage.calibration,
        activations=stage.activations_on(context.device),
        per_channel=stage.per_channel,
    )
    return with_int8_file(artifact, data)
