"""Post-training int8 of ONNX files from elsewhere."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from compress.quantization.int8.calibration import CALIBRATIONS
from compress.quantization.int8.ptq_onnx import quantize_onnx


class Net(nn.Module):
    """What MobileNetV3 and EfficientNet are made of, and an attention-like product that stays as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.deep = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.SiLU())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Hardsigmoid()
        )
        self.last = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.deep(x)
        y = self.last(y * self.gate(y)) + x
        return self.classifier(y.mean((2, 3)))


def exported(
    model: nn.Module, shape: tuple[int, ...] = (3, 16, 16), *, batch: int | None = None, opset: int = 17
) -> bytes:
    buffer = io.BytesIO()
    axes = None if batch else {"images": {0: "N"}, "logits": {0: "N"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (torch.zeros(batch or 1, *shape),), buffer, dynamo=False, opset_version=opset,
                          input_names=["images"], output_names=["logits"], dynamic_axes=axes)  # fmt: skip
    return buffer.getvalue()


@pytest.fixture(scope="module")
def net() -> bytes:
    torch.manual_seed(0)
    model = Net()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.3, 2)
            module.running_mean.normal_(0, 0.3)
    with torch.no_grad():
        model.classifier.weight.mul_(30)  # so that classes differ
    return exported(model)


def images_for(count: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 16, 16)).astype(np.float32)


def run(data: bytes, images: np.ndarray, optimised: Path | None = None) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimised:
        options.optimized_model_filepath = str(optimised)
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def error(data: bytes, reference: bytes) -> float:
    x = images_for(64, seed=1)
    expected = run(reference, x)
    return float(np.abs(run(data, x) - expected).mean() / expected.std())


@pytest.mark.parametrize("calibration", [None, *CALIBRATIONS])
@pytest.mark.parametrize("activations", ["unsigned", "signed"])
def test_a_foreign_file_becomes_integers_and_computes_nearly_the_same(
    calibration: str | None, activations: str, net: bytes, tmp_path: Path
) -> None:
    data = quantize_onnx(net, images_for(), calibration=calibration, activations=activations)
    assert error(data, net) < 0.1
    run(data, images_for(2), tmp_path / "optimised.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    if activations == "unsigned":
        assert (kinds["QLinearConv"], kinds["Conv"]) == (5, 0)
    else:  # on x86 ONNX Runtime makes them unsigned again, and leaves tensors of several readers in float
        assert kinds["QLinearConv"] >= 3
    assert kinds["QGemm"] == 1


def test_ranges_are_ours_and_end_where_a_function_no_longer_tells_apart(net: bytes) -> None:
    """Hard-swish tells nothing apart below -3, so 8 bits go from there."""
    data = quantize_onnx(net, 10 * images_for(), calibration="minmax")
    model = onnx.load_model_from_string(data)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    gate = next(node for node in model.graph.node if node.op_type == "HardSigmoid")  # of the stem's hard-swish
    dequantize = producers[gate.input[0]]
    scale, zero_point = (constants[name] for name in dequantize.input[1:])
    assert float(-zero_point.astype(int) * scale) == pytest.approx(-3, abs=float(scale) / 2)
    assert float(scale) * 255 > 20


def test_left_to_itself_it_takes_what_diverges_least_on_images_it_did_not_calibrate_on(net: bytes) -> None:
    images = images_for(64)
    expected = torch.from_numpy(run(net, images[32:])).log_softmax(1)

    def divergence(data: bytes) -> float:
        got = torch.from_numpy(run(data, images[32:])).log_softmax(1)
        return float(nn.functional.kl_div(got, expected, log_target=True, reduction="batchmean"))

    singles = {name: quantize_onnx(net, images[:32], calibration=name) for name in CALIBRATIONS}
    found = {name: divergence(data) for name, data in singles.items()}
    assert max(found.values()) > 1.2 * min(found.values())
    assert quantize_onnx(net, images) == singles[min(found, key=lambda name: found[name])]


def test_a_file_made_for_batches_of_one_is_calibrated_image_by_image(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net()
    one, any_number = exported(model, batch=1), exported(model)
    x = images_for(1, seed=2)
    made = [run(quantize_onnx(each, images_for(16), calibration="minmax"), x) for each in (one, any_number)]
    np.testing.assert_allclose(made[0], made[1], atol=1e-5)


def test_a_file_of_an_older_opset_is_quantized_as_well() -> None:
    """A weight of several scales is known from opset 13 on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    x = images_for(8)
    made = [
        onnxruntime.InferenceSession(quantize_onnx(exported(model, opset=opset), x, calibration="minmax"))
        for opset in (11, 17)
    ]
    logits = [session.run(None, {"images": x})[0] for session in made]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-6)


def test_images_that_cannot_calibrate_are_refused(net: bytes) -> None:
    images = images_for(8)
    images[2, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="must be finite, got NaN or infinity in 1 of 8"):
        quantize_onnx(net, images)
    with pytest.raises(ValueError, match=r"must have the shape \(N, 3, 16, 16\), got \(8, 3, 8, 8\)"):
        quantize_onnx(net, images_for(8)[:, :, :8, :8])
    with pytest.raises(ValueError, match=r"must have the shape \(N, 3, 16, 16\), got \(0, 3, 16, 16\)"):
        quantize_onnx(net, images_for(8)[:0])


def test_files_that_cannot_be_quantized_are_refused(net: bytes) -> None:
    quantized = quantize_onnx(net, images_for(8), calibration="minmax")
    with pytest.raises(ValueError, match="a float32 network is needed, got one that is quantized already"):
        quantize_onnx(quantized, images_for(8))
    with pytest.raises(ValueError, match="not an ONNX file"):
        quantize_onnx(net[:-40], images_for(8))
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, 16, 16]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "g", value[:1], value[1:])
    alone = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    with pytest.raises(ValueError, match="nothing in this network can be held as integers"):
        quantize_onnx(alone, images_for(8), calibration="minmax")
    with pytest.raises(ValueError, match="calibration must be one of minmax, percentile, entropy, mse, got 'max'"):
        quantize_onnx(net, images_for(8), calibration="max")
