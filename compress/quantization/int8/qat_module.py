"""Quantization-aware training of networks that are not an Arch."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from compress.networks.artifact import Artifact
from compress.networks.onnx_export import onnx_bytes
from compress.networks.onnx_weights import with_int8_file
from compress.quantization.int8.learned_integers import START, LearnedIntegers
from compress.quantization.int8.lift_onnx import lifted
from compress.stage_interface import Context
from compress.weight_codecs.sparse_formats import zeros_alone
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.writer import write_onnx

if TYPE_CHECKING:
    from compress.quantization.int8.qat import QuantizeAware


def trained_file(artifact: Artifact, stage: QuantizeAware, context: Context) -> Artifact:
    """The artifact with its file in the integers that were trained, led by its float module; zeros that a stage before
    made stay zeros.

    Raises:
        InputError: an ONNX file, or a module whose file has operations that no integer arithmetic is known for.
    """
    if artifact.deployed is not None and artifact.precision != "int8":
        raise InputError("QuantizeAware must come before the weights of an external network are stored in fewer bits")
    teacher, plain = artifact.model(), replace(artifact, deployed=None)
    workload, weights = lifted(onnx_bytes(plain), artifact.source.input_shape)
    zeros = bool(zeros_alone(artifact.weight_formats))
    sparse = [name for name, value in weights.items() if zeros and value.ndim > 1 and not value.all()]
    fitting, quantization = START.calibrated(workload, weights, artifact.preprocessing, context)
    model = LearnedIntegers(workload, fitting, quantization, sparse=sparse)
    training = stage.train(model, teacher, artifact.preprocessing, context)
    data = write_onnx(workload, model.weights_on_the_grid(), quantization=model.quantization())
    return replace(with_int8_file(artifact, data), metrics={"training": asdict(training)})
