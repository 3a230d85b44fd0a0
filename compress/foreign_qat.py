"""Quantization-aware training of networks that are no Arch."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from compress.artifact import Artifact
from compress.export import onnx_bytes
from compress.lifting import Weights, lifted
from compress.post_training import zeros_alone
from compress.sources import OnnxFile, source_name
from compress.stage import Context
from hw_profiles.formats import FLOAT32
from hw_profiles.onnx_write import write_onnx

if TYPE_CHECKING:
    from compress.qat import QuantizeAware


def trained_file(artifact: Artifact, stage: QuantizeAware, context: Context) -> Artifact:
    """The artifact with its file in the integers that were trained, led by its float module; zeros that a stage before
    made stay zeros.

    Raises:
        ValueError: an ONNX file, or a module whose file has operations that no integer arithmetic is known for.
    """
    teacher, plain = artifact.model(), replace(artifact, deployed=None)
    workload, weights = lifted(onnx_bytes(plain), artifact.source.input_shape)
    sparse = _densities(weights) if zeros_alone(artifact.weight_formats) else {}
    model = stage.learner(workload, weights, artifact.preprocessing, context, sparse=sparse)
    training = stage.train(model, teacher, artifact.preprocessing, context)
    data = write_onnx(workload, model.weights_on_the_grid(), quantization=model.quantization())
    file = OnnxFile(data=data, label=f"{source_name(artifact.source)} in int8", sides=artifact.source.input_shape)
    written = (op.weight for op in file.workload().ops if op.stores_weights)  # the last one has another name there
    names = dict(zip((op.weight for op in workload.ops if op.stores_weights), written, strict=True))
    formats = {names[name]: replace(FLOAT32, density=max(share, 1e-9)) for name, share in sparse.items()}
    return replace(artifact, deployed=file, weight_formats=formats, metrics={"training": asdict(training)})


def _densities(weights: Weights) -> dict[str, float]:
    """Of the weights of which some are zero."""
    shares = {name: np.count_nonzero(value) / value.size for name, value in weights.items() if value.ndim > 1}
    return {name: share for name, share in shares.items() if share < 1}
