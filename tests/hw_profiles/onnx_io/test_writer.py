"""Files that are written, held against torch, numpy and what is read back."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn import functional

from hw_profiles.network.quantization import fixed_quantization, weight_scales
from hw_profiles.network.workload import Workload, WorkloadBuilder
from hw_profiles.onnx_io.reader import read_metadata, read_onnx
from hw_profiles.onnx_io.writer import random_weights, write_onnx
from search_spaces import list_spaces, preset, sample

NETWORKS = {
    "resnet8": preset("resnet8").workload(),
    "mobilenetv2_035": preset("mobilenetv2_035", input_shape=(3, 96, 96)).workload(),
    "mobilenetv3_small_050": preset("mobilenetv3_small_050", input_shape=(3, 64, 64)).workload(),
    **{f"{space} {seed}": sample(space, seed=seed).workload() for space in list_spaces() for seed in range(3)},
}


def written(workload: Workload, precision: str) -> bytes:
    return write_onnx(workload, quantization=fixed_quantization(workload) if precision == "int8" else None)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_written_file_is_read_back(name: str, precision: str) -> None:
    stated = NETWORKS[name]
    workload, read = stated.with_precision(precision), read_onnx(written(stated, precision))
    assert (read.macs, read.weight_count, read.weight_bytes) == (
        workload.macs, workload.weight_count, workload.weight_bytes
    )  # fmt: skip
    assert [op.kind for op in read.ops] == [op.kind for op in workload.ops]
    assert sorted(read.shapes.values()) == sorted(workload.shapes.values())


def everything() -> Workload:
    """One of each operation that is written."""
    b = WorkloadBuilder("input", (1, 3, 13, 15))
    x = b.activation("relu6", b.conv("stem", "input", 8, kernel_size=3, stride=2, padding=(0, 1, 1, 0)), "relu6")
    y = b.activation("silu", b.conv("dw", x, 8, kernel_size=5, groups=8), "silu")
    gate = b.activation("gate", b.conv("se", b.global_avg_pool("squeeze", y), 8, kernel_size=1), "hard_sigmoid")
    z = b.binary("add", "add", x, b.binary("scale", "mul", y, gate))
    z = b.activation("swish", b.conv("dilated", z, 8, kernel_size=3, dilation=2, bias=False), "hard_swish")
    z = b.pool("window", "max_pool", z, kernel_size=2, stride=1)
    z = b.pool("mean", "avg_pool", z, kernel_size=2, stride=2)
    z = b.activation("sigmoid", b.linear("fc", b.flatten("flat", b.activation("relu", z, "relu")), 5), "sigmoid")
    return b.build(z)


def in_torch(weights: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    conv = functional.conv2d
    x = functional.pad(image, (1, 0, 0, 1))  # torch names left, right, top, bottom
    x = functional.relu6(conv(x, weights["stem.weight"], weights["stem.bias"], stride=2))
    y = functional.silu(conv(x, weights["dw.weight"], weights["dw.bias"], padding=2, groups=8))
    gate = functional.hardsigmoid(conv(y.mean((2, 3), keepdim=True), weights["se.weight"], weights["se.bias"]))
    z = functional.hardswish(conv(x + y * gate, weights["dilated.weight"], padding=1, dilation=2))
    z = functional.avg_pool2d(functional.max_pool2d(z, 2, 1), 2).relu()
    return torch.sigmoid(functional.linear(z.flatten(1), weights["fc.weight"], weights["fc.bias"]))


def test_a_written_file_computes_what_torch_does() -> None:
    workload = everything()
    weights = random_weights(workload, seed=1)
    image = np.random.default_rng(0).standard_normal((2, *workload.shapes["input"][1:])).astype(np.float32)
    expected = in_torch({name: torch.from_numpy(w) for name, w in weights.items()}, torch.from_numpy(image))
    session = onnxruntime.InferenceSession(write_onnx(workload, weights), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input": image})[0], expected.numpy(), atol=1e-5)


def test_the_batch_is_open_and_the_same_network_gives_the_same_bytes() -> None:
    data = write_onnx(everything())
    assert data == write_onnx(everything())
    assert onnx.load_model_from_string(data).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"


def test_metadata_travels_with_the_file() -> None:
    workload = preset("resnet8").workload()
    assert read_metadata(write_onnx(workload, metadata={"a": "ü"})) == {"a": "ü"}


def test_weights_of_a_wrong_shape_are_named() -> None:
    workload = preset("resnet8").workload()
    weights = random_weights(workload)
    weights["stem.bias"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"weight stem.bias must have the shape \(16,\), got \(3,\)"):
        write_onnx(workload, weights)
    del weights["stem.bias"]
    with pytest.raises(ValueError, match=r"weight stem.bias must have the shape \(16,\), got None"):
        write_onnx(workload, weights)


def test_functions_that_no_operation_computes_are_named() -> None:
    b = WorkloadBuilder("input", (1, 3, 8, 8))
    b.activation("act", "input", "mish")
    with pytest.raises(ValueError, match="act: no ONNX operation is known for the function 'mish'"):
        write_onnx(b.build())


def test_quantized_weights_are_within_half_a_step_of_the_float_ones() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    weight[2] = 0
    scales = weight_scales(weight)
    integers = np.rint(weight / scales.reshape(-1, 1, 1, 1))
    assert np.abs(integers).max(axis=(1, 2, 3)).tolist() == [127, 127, 0, 127]
    assert (np.abs(integers * scales.reshape(-1, 1, 1, 1) - weight).max(axis=(1, 2, 3)) <= scales / 2 * 1.001).all()


def test_an_int8_file_holds_its_weights_as_integers() -> None:
    workload = preset("resnet8").workload()
    model = onnx.load_model_from_string(written(workload, "int8"))
    types = {tensor.name: (tensor.data_type, len(tensor.dims)) for tensor in model.graph.initializer}
    filters = [data_type for data_type, dims in types.values() if dims == 4]
    assert filters == [onnx.TensorProto.INT8] * sum(op.kind == "conv" for op in workload.ops)
