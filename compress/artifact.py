"""A network on its way to the device: what it is, its weights, its formats, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor, nn

from compress.files import read_json, write_bytes, write_json, write_text
from compress.preprocessing import Preprocessing
from hw_profiles.formats import TensorFormat
from hw_profiles.onnx_write import Quantization
from search_spaces.arch import Arch
from search_spaces.model import build_model

SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """``weights`` is the state dict of ``build_model(source)``. ``activations`` holds scale and zero point of the
    tensors that are held as integers, empty in float32. ``files`` are names in the artifact's folder; ``metrics``
    what was measured on them; ``history`` one record for each stage, kept or undone.
    """

    source: Arch
    weights: Mapping[str, Tensor]
    preprocessing: Preprocessing
    activations: Quantization = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        # The weights are here: a file that they started from is no longer read.
        object.__setattr__(self, "source", replace(self.source, weights=None))

    @property
    def precision(self) -> str:
        """``"int8"`` once activations have scales, else ``"fp32"``."""
        return "int8" if self.activations else "fp32"

    @property
    def formats(self) -> Mapping[str, TensorFormat]:
        """How each tensor is stored; a tensor that is not named is float32."""
        return self.source.workload().with_precision(self.precision).formats

    def model(self) -> nn.Module:
        """The float32 module with these weights, in evaluation mode."""
        model = build_model(self.source)
        model.load_state_dict(dict(self.weights))
        return model.eval()

    def with_model(self, model: nn.Module) -> Artifact:
        """The same artifact with a module's weights."""
        return replace(self, weights={k: v.detach().clone().contiguous() for k, v in model.state_dict().items()})

    def save(self, folder: Path) -> None:
        """Write arch.json, weights.safetensors and, last, artifact.json."""
        write_text(folder / "arch.json", self.source.to_json())
        write_bytes(folder / "weights.safetensors", save({k: v.contiguous() for k, v in self.weights.items()}))
        record = {
            "schema": SCHEMA,
            "preprocessing": self.preprocessing.to_json(),
            "activations": {name: list(pair) for name, pair in self.activations.items()},
            "files": dict(self.files),
            "metrics": dict(self.metrics),
            "history": [dict(record) for record in self.history],
        }
        write_json(folder / "artifact.json", record)

    @classmethod
    def load(cls, folder: Path) -> Artifact:
        """The inverse of :meth:`save`; a ValueError where the folder holds no artifact of this version."""
        if not (folder / "artifact.json").is_file():
            raise ValueError(f"{folder}: holds no artifact.json")
        record = read_json(folder / "artifact.json")
        if record.get("schema") != SCHEMA:
            raise ValueError(f"{folder}: artifact schema must be {SCHEMA}, got {record.get('schema')!r}")
        return cls(
            source=Arch.from_json((folder / "arch.json").read_text()),
            weights=load_file(folder / "weights.safetensors"),
            preprocessing=Preprocessing.from_json(record["preprocessing"]),
            activations={name: (float(s), int(z)) for name, (s, z) in record["activations"].items()},
            files=record["files"],
            metrics=record["metrics"],
            history=tuple(record["history"]),
        )
