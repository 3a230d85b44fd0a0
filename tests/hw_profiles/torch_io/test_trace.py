"""Modules and models of timm as operations, held against fvcore's count and against torch's own exporter."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from hw_profiles import load_device
from hw_profiles.network.workload import Workload
from hw_profiles.onnx_io.reader import read_onnx
from hw_profiles.onnx_io.writer import write_onnx
from hw_profiles.profiling import profile, workload_of
from hw_profiles.torch_io.timm_models import trace_timm
from hw_profiles.torch_io.trace import trace
from search_spaces import build_model, list_presets, preset
from tests.contracts import with_random_statistics
from tests.parameters import quick

FAMILIES = {
    "resnet18": 32, "mobilenetv3_small_100": 32, "efficientnet_b0": 32, "tf_efficientnet_lite0": 32, "convnext_atto": 32,
    "ghostnet_100": 32, "densenet121": 32, "regnety_002": 32, "mixnet_s": 32, "inception_v3": 96, "repvgg_a0": 32,
    "vit_tiny_patch16_224": 224, "levit_128s": 224, "mobilevit_xxs": 64,
}  # fmt: skip
QUICK_FAMILIES = ("resnet18", "mobilenetv3_small_100", "convnext_atto", "vit_tiny_patch16_224")
QUICK_PRESETS = ("resnet8", "mobilenetv3_small_050", "efficientnet_lite0")
MOVES = ("reshape", "flatten", "gather", "slice", "concat")  # exporters and ATen cut and join tensors in different ways
COUNTED = ("conv", "linear", "matmul", "addmm", "einsum")


def exported(module: nn.Module, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (torch.zeros(1, *shape),), buffer, dynamo=False, opset_version=20)
    return buffer.getvalue()


def kinds(workload: Workload) -> Counter[tuple[str, str]]:
    return Counter((op.kind, op.function) for op in workload.ops if op.kind not in MOVES)


def same_weights(one: Workload, other: Workload) -> bool:
    return Counter(one.weights().values()) == Counter(other.weights().values())


@pytest.mark.parametrize("name", quick(FAMILIES, QUICK_FAMILIES))
def test_models_of_timm_have_the_macs_of_fvcore_and_the_operations_of_torchs_exporter(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timm.layers.config._USE_FUSED_ATTN", 0)  # fvcore does not count the fused one
    shape = (3, FAMILIES[name], FAMILIES[name])
    model = with_random_statistics(timm.create_model(name)).eval()  # zeros would be one tensor of the file
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    counted = FlopCountAnalysis(model, torch.zeros(1, *shape)).unsupported_ops_warnings(False).by_operator()
    traced, read = trace_timm(name, shape), read_onnx(exported(model, shape))
    assert traced.macs == read.macs == sum(counted[kind] for kind in COUNTED)
    assert traced.params == sum(p.numel() for p in model.parameters())
    assert kinds(traced) == kinds(read)
    assert same_weights(traced, read)
    assert traced.shapes[traced.output] == (1, 1000)


@pytest.mark.parametrize("name", quick(list_presets(), QUICK_PRESETS))
def test_a_preset_its_module_and_its_file_are_the_same_operations(name: str) -> None:
    arch = preset(name, input_shape=(3, 64, 64))
    stated = arch.workload()
    traced = trace(build_model(arch), arch.input_shape)
    for found in (traced, read_onnx(write_onnx(stated))):
        assert found.macs == stated.macs
        assert kinds(found) == kinds(stated)
        assert same_weights(found, stated)
    assert traced.params == stated.params


def test_operations_are_called_after_their_modules() -> None:
    workload = trace_timm("resnet18", (3, 32, 32))
    modules = {name for name, _ in timm.create_model("resnet18").named_modules()}
    assert all(op.name in modules for op in workload.ops if op.kind in ("conv", "linear", "max_pool"))
    assert "layer1.0.add" in {op.name for op in workload.ops}


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    module[2].eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    trace(module, (3, 8, 8))
    assert [m.training for m in module.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    module(torch.ones(2, 3, 8, 8)).sum().backward()
    assert module[0].weight.grad is not None


def test_what_is_used_twice_has_its_macs_twice_and_its_parameters_once() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    tied = nn.Conv2d(4, 4, 3, padding=1)
    tied.weight = conv.weight
    weight = conv.weight
    workload = trace(nn.Sequential(conv, nn.ReLU(), conv, tied), (4, 8, 8))
    assert conv.weight is weight
    assert tied.weight is weight
    assert workload.params == 4 * 4 * 9 + 4 + 4
    assert workload.macs == 3 * 64 * 4 * 4 * 9
    assert len({op.name for op in workload.ops}) == len(workload.ops) == 4
    assert workload.with_precision("int8").params == workload.params


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(4, 6, 5, stride=2, padding=2, bias=False)
        self.norm = nn.BatchNorm1d(6)
        self.up = nn.ConvTranspose1d(6, 3, 4, stride=2, groups=3)
        self.scale = torch.ones(3, 1)  # neither parameter nor buffer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(self.norm(self.line(x)).relu_()) * self.scale
        x = x * torch.sigmoid(x)
        return torch.einsum("bct,bdt->bcd", x, x - 1)


def test_calls_that_are_no_modules_are_seen() -> None:
    workload = trace(Odd(), (4, 16))
    assert [op.kind for op in workload.ops if op.kind not in (*MOVES, "transpose")] == [
        "conv", "activation", "conv_transpose", "mul", "activation", "add", "matmul"
    ]  # fmt: skip
    assert workload.macs == 8 * 6 * 4 * 5 + 8 * 6 * 1 * 4 + 3 * 18 * 3
    assert workload.ops[0].normalized
    assert [op.function for op in workload.ops if op.kind == "activation"] == ["relu", "silu"]


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("module", "shape", "said"),
    [
        (Branch(), (3, 4, 4), "Branch: control flow that depends on the values of the input"),
        (nn.Bilinear(3, 4, 5), (3,), "Bilinear: for models with several inputs, pass input_shape"),
        (nn.Conv2d(3, 4, 3), (1, 8, 8), r"Conv2d: cannot be run with an input of \(1, 8, 8\)"),
        (nn.Conv2d(3, 4, 3), (3, 0, 8), r"input_shape must have dimensions of at least 1.*got \(3, 0, 8\)"),
        (nn.Conv2d(3, 4, 3), None, "input_shape is required for modules, e.g."),
        ("resnet81", None, "timm has no model 'resnet81'; did you mean 'resnet18'"),
        ("timm:vit_tiny_patch16_224", (3, 50, 50, 2), "vit_tiny_patch16_224: cannot be"),
        (
            3,
            None,
            "model must be an Arch, a module, a timm model name or the path of an ONNX file, got int",
        ),
        (preset("resnet8"), (3, 8, 8), r"input_shape must be that of the network, \(3, 32, 32\), or left out"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(module: object, shape: tuple[int, ...] | None, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        workload_of(module, shape)
    assert str(caught.value).isprintable()


def test_modules_arguments_and_names_are_profiled_alike(tmp_path: Path) -> None:
    device, arch = load_device("host"), preset("resnet8")
    (tmp_path / "m.onnx").write_bytes(write_onnx(arch.workload()))
    module = build_model(arch)
    models = [profile(arch, device), profile(arch.workload(), device), profile(module, device, input_shape=(3, 32, 32))]
    assert len({(p.macs, p.params, p.weight_count, p.flash_bytes) for p in models}) == 1
    of_file = profile(str(tmp_path / "m.onnx"), device)
    assert (of_file.macs, of_file.params) == (models[0].macs, None)
    with pytest.raises(ValueError, match="can be measured in fp32 only, got 'int8': quantize it into a file"):
        profile(module, device, "int8", input_shape=(3, 32, 32), measured=True)


def test_a_module_is_traced_in_less_than_a_second() -> None:
    start = time.process_time()
    trace_timm("mobilenetv3_small_100")
    assert time.process_time() - start < 1


def test_reading_a_file_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(write_onnx(preset("resnet8").workload()))
    code = (
        "import sys; from hw_profiles.profiling import workload_of; workload_of(sys.argv[1]);"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "m.onnx"], check=True)


@pytest.mark.parametrize("padding", ["same", "valid", (2, 1)])
def test_padding_is_what_the_exporter_writes(padding: str | tuple[int, int]) -> None:
    module = nn.Conv2d(3, 4, (4, 3), padding=padding, dilation=(1, 2))
    [op] = trace(module, (3, 9, 9)).ops
    [written] = read_onnx(exported(module, (3, 9, 9))).ops
    assert (op.padding, op.dilation, op.kernel_size) == (written.padding, written.dilation, written.kernel_size)


def test_products_with_parameters_are_linear_operations() -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.bias = nn.Parameter(torch.ones(6, 4)), nn.Parameter(torch.ones(4))
            self.second = nn.Parameter(torch.ones(4, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.addmm(self.bias, x, self.first) @ self.second

    workload = trace(Products(), (6,))
    assert [(op.kind, op.weight_shape, op.bias) for op in workload.ops] == [
        ("linear", (4, 6), True), ("linear", (5, 4), False)
    ]  # fmt: skip


class TwoTowers(nn.Module):
    """Words and an image, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.numbers, self.head = nn.Conv2d(3, 8, 3), nn.Linear(5, 8), nn.Linear(8, 2)

    def forward(self, image: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mixed = self.image(image).mean((2, 3)) + self.numbers(numbers)
        return self.head(mixed), mixed


def test_a_module_of_several_inputs_is_profiled_by_their_names() -> None:
    module, device = TwoTowers(), load_device("host")
    found = profile(module, device, input_shape={"image": (3, 8, 8), "numbers": (5,)})
    assert found.macs == 6 * 6 * 8 * 27 + 5 * 8 + 8 * 2
    assert found.params == sum(p.numel() for p in module.parameters())
    said = r"for models with several inputs, pass input_shape as \{name: shape\} for image, numbers"
    for given in ((3, 8, 8), {"image": (3, 8, 8)}):
        with pytest.raises(ValueError, match=said):
            profile(module, device, input_shape=given)


def test_a_module_that_reads_whole_numbers_is_traced() -> None:
    module = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(8 * 6, 3))
    assert workload_of(module, (6,)).macs == 8 * 6 * 3
