"""Post-training quantization to int8."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray

from compress.artifact import Artifact
from compress.data import Split
from compress.export import folded_weights
from compress.preprocessing import Preprocessing
from compress.stage import Context
from hw_profiles.host import open_session
from hw_profiles.onnx_write import quantized_tensors, write_onnx
from hw_profiles.workload import Workload

CALIBRATIONS = ("minmax", "percentile")
_BATCH = 64
_LOWEST, _HIGHEST = 0.01, 99.99


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantize:
    """Weights as signed 8-bit integers with a scale per output channel, activations as unsigned ones with a scale and
    zero point per tensor (1712.05877), from the ranges that ``images`` training images produce in ONNX Runtime.

    ``"minmax"`` takes the extremes, ``"percentile"`` leaves out the outermost 0.01 % of each batch on either side.
    """

    name: ClassVar[str] = "int8"
    lossy: ClassVar[bool] = True

    calibration: str = "minmax"
    images: int = 512

    def __post_init__(self) -> None:
        if self.calibration not in CALIBRATIONS:
            raise ValueError(f"Quantize.calibration must be one of {', '.join(CALIBRATIONS)}, got {self.calibration!r}")
        if self.images < 1:
            raise ValueError(f"Quantize.images must be at least 1, got {self.images}")

    def __call__(self, artifact: Artifact, context: Context) -> Artifact:
        """The same network with scales for every tensor that will be held as integers."""
        workload = artifact.source.workload()
        weights = folded_weights(artifact.model(), workload)
        train = context.data.train
        chosen = np.random.default_rng(context.seed).permutation(len(train))[: self.images]
        model = _with_outputs(write_onnx(workload, weights), quantized_tensors(workload))
        ranges = self._ranges(model, workload, train.take(np.sort(chosen)), artifact.preprocessing, context)
        return replace(artifact, activations={name: scale_and_zero_point(*r) for name, r in ranges.items()})

    def _ranges(
        self, model: bytes, workload: Workload, split: Split, preprocessing: Preprocessing, context: Context
    ) -> dict[str, tuple[float, float]]:
        session = open_session(model)
        names = [output.name for output in session.get_outputs()]
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in (workload.input, *names)}
        for i in range(0, len(split), _BATCH):
            x = preprocessing.tensor(split.images[i : i + _BATCH])
            for name, value in zip(names, session.run(names, {workload.input: x}), strict=True):
                seen[name].append(self._range(value))
            seen[workload.input].append(self._range(x))
            context.report(i / len(split), "calibrating")
        reduce = (min, max) if self.calibration == "minmax" else (np.mean, np.mean)
        return {
            name: (float(reduce[0]([a for a, _ in pairs])), float(reduce[1]([b for _, b in pairs])))
            for name, pairs in seen.items()
        }

    def _range(self, value: NDArray[np.float32]) -> tuple[float, float]:
        if self.calibration == "minmax":
            return float(value.min()), float(value.max())
        low, high = np.percentile(value, (_LOWEST, _HIGHEST))
        return float(low), float(high)


def scale_and_zero_point(low: float, high: float) -> tuple[float, int]:
    """Unsigned 8-bit numbers for a range, widened so that zero is one of them.

    Raises:
        ValueError: the range is not finite.

    >>> scale_and_zero_point(-1.0, 3.0)
    (0.01568627450980392, 64)
    """
    if not np.isfinite([low, high]).all():
        raise ValueError(f"the range of an activation must be finite, got {low}..{high}")
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / 255, 1e-8)
    return scale, round(-low / scale)


def _with_outputs(model: bytes, names: list[str]) -> bytes:
    """The file with more of its tensors as outputs."""
    parsed = onnx.load_model_from_string(model)
    given = {value.name for value in (*parsed.graph.output, *parsed.graph.input)}
    parsed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    data: bytes = parsed.SerializeToString()
    return data
