"""The last stage: the file, coded without loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compress.artifact import Artifact
from compress.export import onnx_bytes
from compress.files import write_bytes
from compress.fnz import encode_onnx
from compress.stage import Context

FILE = "model.fnz"


@dataclass(frozen=True, kw_only=True, slots=True)
class Encode:
    """Write ``model.fnz`` beside the ONNX file: the same file, byte by byte, in fewer bytes. The network stays as it
    is. ``metrics`` says how many they are; without a folder they are only counted.

    >>> Encode().name
    'encode'
    """

    name: ClassVar[str] = "encode"
    lossy: ClassVar[bool] = False

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The same artifact, with one file more."""
        coded = encode_onnx(onnx_bytes(artifact))
        files = dict(artifact.files)
        if context.folder is not None:
            write_bytes(context.folder / FILE, coded)
            files["fnz"] = FILE
        return replace(artifact, files=files, metrics={**artifact.metrics, "fnz_bytes": len(coded)})
