"""Weights in 16-bit floating point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from compress.networks.artifact import Artifact
from compress.networks.store_weights import wider_than, with_stored_weights
from compress.stage_interface import Context
from compress.weight_codecs.codecs import FP16
from compress.weight_codecs.onnx_storage import store


@dataclass(frozen=True, kw_only=True, slots=True)
class Half:
    """Store weights as float16, except those already stored in fewer bits; biases stay float32.

    This halves the file size. Weights are converted back to float32 when the file is loaded, so that neither memory nor
    latency changes.

    >>> Half().name
    'fp16'
    """

    name: ClassVar[str] = "fp16"
    lossy: ClassVar[bool] = True

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The network with rounded weights; an InputError where it is in integers already."""
        return with_stored_weights(artifact, FP16, wider_than(artifact, 16))


def store_half(source: Path | str | bytes) -> bytes:
    """Any ONNX file with the weights of its convolutions and linear layers in float16.

    Raises:
        InputError: not an ONNX file, no such weights, or one above 65504.

    >>> from hw_profiles.onnx_io.writer import write_onnx
    >>> from search_spaces import preset
    >>> data = write_onnx(preset("resnet8").workload())
    >>> round(len(store_half(data)) / len(data), 2)
    0.51
    """
    return store(source, FP16)
