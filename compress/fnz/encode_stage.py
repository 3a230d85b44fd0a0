"""The stage Encode: the deployed file is coded without loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compress.atomic_files import write_bytes
from compress.fnz import encode_onnx, sizes
from compress.networks.artifact import Artifact
from compress.networks.onnx_export import onnx_bytes
from compress.stage_interface import Context

FILE = "model.fnz"


@dataclass(frozen=True, kw_only=True, slots=True)
class Encode:
    """Write ``model.fnz`` beside the ONNX file: a losslessly compressed copy. The network does not change. Without a
    folder nothing is written.

    >>> Encode().name
    'encode'
    """

    name: ClassVar[str] = "encode"
    lossy: ClassVar[bool] = False

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The same artifact, with one file more; ``metrics`` say what gzip and xz make of the ONNX file."""
        if context.folder is None:
            return artifact
        data = onnx_bytes(artifact)
        write_bytes(context.folder / FILE, encode_onnx(data))
        metrics = {**artifact.metrics, "sizes": sizes(data)}
        return replace(artifact, files={**artifact.files, "fnz": FILE}, metrics=metrics)
