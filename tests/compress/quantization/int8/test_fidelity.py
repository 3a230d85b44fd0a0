"""How far an int8 file is from the float network."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.quantization.int8.fidelity import FidelityEvaluator

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.standard_normal((20, 6)).astype(np.float32)


def file_of(weight: np.ndarray) -> bytes:
    """A linear layer."""
    ends = [helper.make_tensor_value_info(*end) for end in (("x", 1, ["N", 6]), ("y", TensorProto.FLOAT, ["N", 4]))]
    tensor = numpy_helper.from_array(weight.astype(np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [tensor])
    data: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    ).SerializeToString()
    return data


@pytest.mark.parametrize("size", [1e-9, 1e-3, 1, 100])
def test_the_divergence_is_exact_for_outputs_of_every_size(size: float) -> None:
    """Where they are tiny, all classes are equally likely: half the variance of the error. Elsewhere as torch has it."""
    weight = size * RANDOM.standard_normal((6, 4))
    changed = weight + 0.1 * size * RANDOM.standard_normal((6, 4))
    found = FidelityEvaluator(file_of(weight), IMAGES)(file_of(changed)).divergence
    before, after = (IMAGES @ each.astype(np.float32) for each in (weight, changed))
    if size < 1e-6:
        expected = np.mean(np.var((after - before).astype(np.float64), axis=1)) / 2
    else:
        import torch

        logs = [torch.from_numpy(each).double().log_softmax(1) for each in (after, before)]
        expected = torch.nn.functional.kl_div(*logs, reduction="batchmean", log_target=True).item()
    assert found == pytest.approx(expected, rel=1e-3)
