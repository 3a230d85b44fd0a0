"""An Artifact: a network with its weights, formats, preprocessing, files, metrics and history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file, save
from torch import Tensor, nn

from compress.atomic_files import read_json, write_bytes, write_json
from compress.data.preprocessing import Preprocessing
from compress.data.unknown_preprocessing import UnknownPreprocessing
from compress.networks.network_interface import Network
from compress.networks.network_source import OnnxFile, Source, network_of, read_source
from hw_profiles.errors import InputError
from hw_profiles.network.quantization import Quantization, quantized_workload
from hw_profiles.network.tensor_formats import FLOAT32, TensorFormat
from hw_profiles.network.workload import Workload
from search_spaces.arch import Arch

ARTIFACT_SCHEMA = 3
DEPLOYED = "deployed.onnx"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Artifact:
    """A network with its weights, preprocessing, metrics and history: the input and output of all compression steps.

    ``weights`` is the state dict of the module of ``source``, empty for an ONNX file. ``quantization`` holds the scales
    of an Arch in int8. ``weight_formats`` maps each weight that a stage stored in another format to that format.
    ``deployed`` is the final ONNX file if a stage changed that of a source other than an Arch. ``files`` are names in
    the folder of the artifact; ``metrics`` were measured on these files; ``history`` has one record per stage, accepted
    or reverted.
    """

    source: Source
    weights: Mapping[str, Tensor]
    preprocessing: Preprocessing
    quantization: Quantization | None = None
    weight_formats: Mapping[str, TensorFormat] = field(default_factory=dict)
    deployed: OnnxFile | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        # The weights are here: a file that they started from is no longer read.
        bare = self.network.by_description(lambda arch: replace(arch, weights=None), lambda: self.source)
        object.__setattr__(self, "source", bare)

    @property
    def network(self) -> Network:
        """What can be done with the source, of whatever kind it is."""
        return network_of(self.source)

    @property
    def arch(self) -> Arch:
        """The source of an artifact that is an Arch; an InputError says so of any other."""
        return self.network.arch

    @property
    def precision(self) -> str:
        """``"int8"`` once it has scales or its file has, else ``"fp32"``."""
        file = self._file()
        if file is not None:
            return file.precision
        return "fp32" if self.quantization is None else "int8"

    @property
    def formats(self) -> Mapping[str, TensorFormat]:
        """How each tensor is stored once the file is coded; a tensor that is not named is float32."""
        workload = self.workload()
        changed = {name: _coded(workload.format(name), stored) for name, stored in self.weight_formats.items()}
        return {**workload.formats, **changed}

    def workload(self) -> Workload:
        """The operations of the file that will run, each tensor in the format in which it is stored."""
        file = self._file()
        if file is not None:
            return file.workload()
        plain = self.source.workload()
        if self.quantization is not None:
            plain = quantized_workload(plain, self.quantization)
        # An ONNX file stores zeros and shared values as it stores any others; only coding makes them small.
        given = {name: f for name, f in self.weight_formats.items() if not f.codebook and f.bits < FLOAT32.bits}
        stored = {name: replace(f, density=1.0) for name, f in given.items()}
        return replace(plain, formats={**plain.formats, **stored})

    def model(self) -> nn.Module:
        """The float32 module with these weights, in evaluation mode; an InputError for an ONNX file."""
        model = self.network.build()
        model.load_state_dict(dict(self.weights))
        return model.eval()

    def with_model(self, model: nn.Module) -> Artifact:
        """The same artifact with a module's weights; a file that was made of earlier ones is dropped."""
        weights = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
        return replace(self, weights=weights, deployed=None)

    def bare(self) -> Artifact:
        """The network without what was measured of it and done to it."""
        return replace(self, metrics={}, files={}, history=())

    def save(self, folder: Path | str) -> None:
        """Write the source (arch.json, source.json or source.onnx), weights.safetensors and, last, artifact.json.

        Raises:
            InputError: the source is a module that nobody could build again.
        """
        folder = Path(folder)
        kind = self.network.write(folder)
        if self.deployed is not None:
            write_bytes(folder / DEPLOYED, self.deployed.data)
        write_bytes(folder / "weights.safetensors", save({k: v.contiguous() for k, v in self.weights.items()}))
        scales = self.quantization.weights if self.quantization else {}
        if scales:
            write_bytes(
                folder / "scales.safetensors", save_arrays({k: np.ascontiguousarray(v) for k, v in scales.items()})
            )
        record = {
            "schema": ARTIFACT_SCHEMA,
            "source": kind,
            "deployed": self.deployed is not None,
            "preprocessing": None
            if isinstance(self.preprocessing, UnknownPreprocessing)
            else self.preprocessing.to_json(),
            "quantization": _quantization_json(self.quantization),
            "weight_formats": {name: asdict(value) for name, value in self.weight_formats.items()},
            "files": dict(self.files),
            "metrics": dict(self.metrics),
            "history": [dict(record) for record in self.history],
        }
        write_json(folder / "artifact.json", record)

    @classmethod
    def load(cls, folder: Path | str) -> Artifact:
        """The inverse of :meth:`save`; an InputError where the folder holds no artifact of this version."""
        folder = Path(folder)
        if not (folder / "artifact.json").is_file():
            raise InputError(f"{folder}: there is no artifact.json")
        record = read_json(folder / "artifact.json")
        if record.get("schema") != ARTIFACT_SCHEMA:
            raise InputError(f"{folder}: artifact schema must be {ARTIFACT_SCHEMA}, got {record.get('schema')!r}")
        try:
            return cls._of_record(record, folder)
        except InputError as error:
            raise InputError(f"{folder}: not an artifact ({error})") from None
        except (KeyError, TypeError, ValueError, AttributeError, OSError, SafetensorError) as error:
            raise InputError(f"{folder}: not an artifact ({error!r})") from None

    @classmethod
    def _of_record(cls, record: Mapping[str, Any], folder: Path) -> Artifact:
        preprocessing = record["preprocessing"]
        return cls(
            source=read_source(folder, record.get("source", "arch")),
            deployed=OnnxFile.read(folder / DEPLOYED) if record.get("deployed") else None,
            weights=load_file(folder / "weights.safetensors"),
            preprocessing=UnknownPreprocessing() if preprocessing is None else Preprocessing.from_json(preprocessing),
            quantization=_quantization(record["quantization"], folder / "scales.safetensors"),
            weight_formats={name: TensorFormat(**value) for name, value in record["weight_formats"].items()},
            files=record["files"],
            metrics=record["metrics"],
            history=tuple(record["history"]),
        )

    def _file(self) -> OnnxFile | None:
        return self.deployed or self.network.file


def _coded(in_file: TensorFormat, changed: TensorFormat) -> TensorFormat:
    """How a weight is stored in the coded file: zeros leave, whatever the others became after them."""
    return replace(in_file, density=changed.density) if changed.bits == FLOAT32.bits else changed


def _quantization_json(quantization: Quantization | None) -> dict[str, Any] | None:
    """All of it but the scales of weights."""
    if quantization is None:
        return None
    return {
        "activations": {name: list(pair) for name, pair in quantization.activations.items()},
        "signed": quantization.signed,
        "in_float": sorted(quantization.in_float),
    }


def _quantization(record: Mapping[str, Any] | None, scales: Path) -> Quantization | None:
    if record is None:
        return None
    return Quantization(
        activations={name: (float(scale), int(zero)) for name, (scale, zero) in record["activations"].items()},
        weights=load_arrays(scales) if scales.is_file() else {},
        signed=bool(record["signed"]),
        in_float=frozenset(record["in_float"]),
    )


def check_trainable(stage: str, artifact: Artifact) -> None:
    """Raise an InputError where training would undo what an earlier stage made of the weights."""
    if artifact.quantization is not None or artifact.weight_formats or artifact.deployed is not None:
        raise InputError(
            f"{stage} must come before the stages that change how weights are stored, because further training would "
            f"undo them ({artifact.precision}, {len(artifact.weight_formats)} weights with a format of their own)"
        )
