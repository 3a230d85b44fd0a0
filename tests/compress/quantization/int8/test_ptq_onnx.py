"""Post-training int8 of networks from elsewhere: ONNX files and modules."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress import Artifact, Context, Dataset, Quantize
from compress.data.dataset import Split
from compress.networks.network_source import OnnxFile
from compress.networks.onnx_export import onnx_bytes
from compress.quantization.int8.calibration import CALIBRATIONS
from hw_profiles import load_device
from hw_profiles.errors import InputError
from hw_profiles.onnx_io.reader import read_metadata
from tests.contracts import with_random_statistics
from tests.goldens.networks import FILES, Gated, Shuffled, exported, of_arch, of_module, record

SIZE = 16
PLAIN: dict[str, Any] = {"calibration": "minmax", "equalize": "none", "bias_correction": False, "adaround": False}


@pytest.fixture(scope="module")
def images() -> Dataset:
    """Coarse patterns, of classes without a meaning."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (160, 4, 4, 3)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    parts = [Split(pixels[i : i + n], np.arange(n, dtype=np.int64) % 10) for i, n in ((0, 64), (64, 32), (96, 64))]
    return Dataset(name="patterns", train=parts[0], val=parts[1], test=parts[2], preprocessing=record(SIZE))


def quantized(file: bytes, data: Dataset, **options: Any) -> bytes:
    return onnx_bytes(
        done(Artifact(source=OnnxFile(data=file), weights={}, preprocessing=record(SIZE)), data, **options)
    )


def done(artifact: Artifact, data: Dataset, **options: Any) -> Artifact:
    context = Context(data=data, device=load_device("host"), measured=False)
    return Quantize(**{"images": 32, "activations": "unsigned", **options})(artifact, context)


@pytest.fixture(scope="module")
def net() -> bytes:
    torch.manual_seed(0)
    model = with_random_statistics(Gated())
    with torch.no_grad():
        model.classifier.weight.mul_(30)  # so that classes differ
    return exported(model, size=SIZE)


def run(data: bytes, x: np.ndarray, optimized: Path | None = None) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def inputs(data: Dataset) -> np.ndarray:
    return data.preprocessing.tensor(data.test.images)


def error(file: bytes, reference: bytes, data: Dataset) -> float:
    expected = run(reference, inputs(data))
    return float(np.abs(run(file, inputs(data)) - expected).mean() / expected.std())


def kinds_run(file: bytes, data: Dataset, folder: Path) -> Counter[str]:
    """The operations that ONNX Runtime makes of a file."""
    run(file, inputs(data)[:2], folder / "optimized.onnx")
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize(
    ("calibration", "activations"),
    [
        ("minmax", "unsigned"),
        (None, "signed"),
        *(pytest.param(name, "unsigned", marks=pytest.mark.slow) for name in CALIBRATIONS if name != "minmax"),
    ],
)
def test_a_foreign_file_becomes_integers_and_computes_nearly_the_same(
    calibration: str | None, activations: str, net: bytes, images: Dataset, tmp_path: Path
) -> None:
    options = {**PLAIN, "calibration": calibration, "activations": activations}
    file = quantized(net, images, **options)
    assert error(file, net, images) < 0.1
    kinds = kinds_run(file, images, tmp_path)
    if activations == "unsigned":
        assert (kinds["QLinearConv"], kinds["Conv"]) == (5, 0)
    else:  # on x86 ONNX Runtime makes them unsigned again, and leaves tensors of several readers in float
        assert kinds["QLinearConv"] >= 3
    assert kinds["QGemm"] == 1


def test_ranges_end_where_a_function_no_longer_tells_apart(images: Dataset) -> None:
    """Hard-swish tells nothing apart below -3, so 8 bits go from there."""
    torch.manual_seed(0)
    model = Gated().eval()
    with torch.no_grad():
        model.stem[0].weight.mul_(10)
    graph = onnx.load_model_from_string(quantized(exported(model, size=SIZE), images, **PLAIN)).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    swish = next(node for node in graph.node if node.op_type == "HardSwish")
    scale, zero_point = (constants[name] for name in producers[swish.input[0]].input[1:])
    assert float(-zero_point.astype(int) * scale) == pytest.approx(-3, abs=float(scale) / 2)
    assert float(scale) * 255 > 9


def test_left_to_itself_it_takes_what_diverges_least(net: bytes, images: Dataset) -> None:
    artifact = Artifact(source=OnnxFile(data=net), weights={}, preprocessing=record(SIZE))
    free = done(artifact, images, equalize="none", bias_correction=False, adaround=False).metrics["quantization"]
    singles = [done(artifact, images, **{**PLAIN, "calibration": name}).metrics["quantization"]["divergence"]
               for name in CALIBRATIONS]  # fmt: skip
    assert max(singles) > 1.2 * min(singles)
    assert free["divergence"] == pytest.approx(min(singles))


def test_a_file_made_for_batches_of_one_stays_so_and_says_the_same(images: Dataset) -> None:
    torch.manual_seed(0)
    open_batch = exported(Gated(), size=SIZE)
    model = onnx.load_model_from_string(open_batch)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    made = [quantized(each, images, **PLAIN) for each in (model.SerializeToString(), open_batch)]
    sides = [onnx.load_model_from_string(each).graph.input[0].type.tensor_type.shape.dim[0] for each in made]
    assert (sides[0].dim_value, sides[1].dim_param) == (1, "N")
    np.testing.assert_allclose(*(run(each, inputs(images)[:1]) for each in made), atol=1e-5)


def test_a_file_of_an_older_opset_is_quantized_as_well(images: Dataset) -> None:
    """A weight of several scales is known from opset 13 on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    made = [run(quantized(exported(model, opset, SIZE), images, **PLAIN), inputs(images)) for opset in (11, 17)]
    np.testing.assert_allclose(made[0], made[1], atol=1e-6)


def test_files_that_cannot_be_quantized_are_refused(net: bytes, images: Dataset) -> None:
    with pytest.raises(InputError, match="a float32 network is needed, got one that is quantized already"):
        quantized(quantized(net, images, **PLAIN), images)
    with pytest.raises(InputError, match="not an ONNX file"):
        quantized(net[:-40], images)
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3, SIZE, SIZE]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "g", value[:1], value[1:])
    alone = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    with pytest.raises(InputError, match="nothing to quantize: the network has no convolution"):
        quantized(alone, images, calibration="minmax")


def integers_of(file: bytes) -> tuple[dict[tuple[int, ...], list[np.ndarray]], np.ndarray]:
    """The integer weights by their shapes, and the sorted scales of the activations."""
    graph = onnx.load_model_from_string(file).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    weights: dict[tuple[int, ...], list[np.ndarray]] = {}
    for tensor in constants.values():
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1:
            weights.setdefault(tuple(tensor.dims), []).append(numpy_helper.to_array(tensor))
    scales = [numpy_helper.to_array(constants[n.input[1]]) for n in graph.node if n.op_type == "QuantizeLinear"]
    return weights, np.sort(np.float64(scales))


ONE = {"images": 16, "calibration": "minmax", "equalize": "weights", "bias_correction": True, "adaround": False}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet8", ONE),
        *(
            pytest.param(name, options, marks=pytest.mark.slow)
            for name, options in (
                ("resnet8", {**ONE, "equalize": "activations", "adaround": True}),
                ("resnet8", {}),
                ("mobilenetv2_035", {}),
                ("mobilenetv3_small_050", {}),
            )
        ),
    ],
)
def test_an_arch_its_module_and_its_file_become_the_same_integers(
    name: str, options: dict[str, Any], images: Dataset
) -> None:
    """Equalized, with corrected biases and, where nothing is said, what diverges least: all three by one algorithm."""
    data = images.resized(32, 32)
    arch = of_arch(name)
    given = (arch, of_module(arch.model()), Artifact(source=OnnxFile(data=onnx_bytes(arch)), weights={},
                                                     preprocessing=record(32)))  # fmt: skip
    made = [done(each, data, **options) for each in given]
    files = [onnx_bytes(each) for each in made]
    chosen = [
        {k: each.metrics["quantization"][k] for k in ("calibration", "equalize", "bias_correction")} for each in made
    ]
    assert chosen[1:] == chosen[:1] * 2
    weights, scales = zip(*map(integers_of, files), strict=True)
    for other in (1, 2):
        assert weights[other].keys() == weights[0].keys()
        for shape, arrays in weights[0].items():
            same = sorted(array.tobytes() for array in arrays) == sorted(a.tobytes() for a in weights[other][shape])
            assert same, f"{shape} of {('', 'the module', 'the file')[other]}"
        np.testing.assert_allclose(scales[other], scales[0], rtol=1e-6)
    step = output_step(files[0])
    x = data.preprocessing.tensor(data.test.images)
    outputs = [run(file, x) for file in files]
    assert all(np.abs(each - outputs[0]).max() <= step for each in outputs[1:])


def output_step(file: bytes) -> float:
    graph = onnx.load_model_from_string(file).graph
    last = next(node for node in graph.node if node.output[0] == graph.output[0].name)
    return float(next(numpy_helper.to_array(t) for t in graph.initializer if t.name == last.input[1]))


SHORT = ("gated", "shuffled", "dense", "attending", "sums so far")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.slow) for name in sorted(FILES)]
)
def test_networks_of_every_form_become_integers(name: str, images: Dataset, tmp_path: Path) -> None:
    """What has no words here stays float with its surroundings; convolutions and products are integers."""
    data = images.resized(32, 32)
    torch.manual_seed(0)
    file = exported(with_random_statistics(FILES[name][0]()), FILES[name][1])
    made = quantized(file, data, **PLAIN)
    assert error(made, file, data) < 0.1
    kinds = kinds_run(made, data, tmp_path)
    convolutions = sum(
        node.op_type in ("Conv", "ConvTranspose") for node in onnx.load_model_from_string(file).graph.node
    )
    assert (kinds["QLinearConv"], kinds["Conv"]) == (convolutions, 0)


def test_nodes_that_nobody_knows_are_written_back_as_they_are(images: Dataset) -> None:
    file = exported(FILES["sums so far"][0](), size=SIZE)
    before, after = (
        [node for node in onnx.load_model_from_string(each).graph.node if node.op_type == "CumSum"]
        for each in (file, quantized(file, images, **PLAIN))
    )
    assert len(before) == len(after) == 1
    assert [a.SerializeToString() for a in before[0].attribute] == [a.SerializeToString() for a in after[0].attribute]


def test_names_outputs_and_metadata_of_a_file_stay(images: Dataset) -> None:
    model = onnx.load_model_from_string(exported(Shuffled(), size=SIZE))
    half = [node.output[0] for node in model.graph.node if node.op_type == "Concat"][-1]
    model.graph.output.append(helper.make_tensor_value_info(half, TensorProto.FLOAT, None))
    helper.set_model_props(model, {"author": "somebody"})
    made = quantized(model.SerializeToString(), images, **PLAIN)
    graph = onnx.load_model_from_string(made).graph
    assert ([v.name for v in graph.input], [v.name for v in graph.output]) == (["images"], ["logits", half])
    assert read_metadata(made)["author"] == "somebody"


def test_channels_are_equalized_in_any_network(images: Dataset) -> None:
    """A weight of one scale loses most where its channels differ; equalized they do not."""
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip
    with torch.no_grad():
        chain[0].weight[::2].mul_(50)
        chain[0].bias[::2].mul_(50)
        chain[2].weight[:, ::2].div_(50)
    file = exported(chain, size=SIZE)
    coarse = {**PLAIN, "per_channel": False}
    plain, equal = (error(quantized(file, images, **{**coarse, "equalize": each}), file, images)
                    for each in ("none", "weights"))  # fmt: skip
    assert equal < 0.5 * plain


@pytest.mark.slow
def test_roundings_are_learnt_in_any_network(net: bytes, images: Dataset) -> None:
    coarse = {**PLAIN, "per_channel": False}
    plain, learnt = (error(quantized(net, images, **{**coarse, "adaround": each}), net, images)
                     for each in (False, True))  # fmt: skip
    assert learnt < plain
