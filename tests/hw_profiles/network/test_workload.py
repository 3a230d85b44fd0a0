"""Operations, shapes, and what is counted of them."""

from __future__ import annotations

import random

import pytest
import torch

from hw_profiles.network.tensor_formats import TensorFormat
from hw_profiles.network.workload import Op, WorkloadBuilder
from search_spaces import preset


def test_counts_by_hand() -> None:
    b = WorkloadBuilder("input", (1, 4, 10, 8))
    x = b.conv("dw", "input", 4, kernel_size=3, stride=2, groups=4)
    x = b.conv("pw", x, 6, kernel_size=1)
    x = b.pool("mean", "avg_pool", x, kernel_size=2, stride=2)
    x = b.linear("fc", b.flatten("flat", x), 3)
    workload = b.build()
    assert workload.shapes["dw"] == (1, 4, 5, 4)
    assert workload.macs == 4 * 9 * 20 + 4 * 6 * 20 + 6 * 2 * 2 * 3
    assert workload.weight_count == (36 + 4) + (24 + 6) + (72 + 3)
    assert workload.weight_bytes == 4 * workload.weight_count
    int8 = workload.with_precision("int8")
    assert int8.weight_bytes == 36 + 24 + 72 + 4 * (4 + 6 + 3) + 4 * (4 + 6 + 3)
    assert (workload.tensor_bytes("dw"), int8.tensor_bytes("dw")) == (4 * 80, 80)


def test_products_and_transposed_convolutions_by_hand() -> None:
    b = WorkloadBuilder("input", (1, 2, 5, 7))
    b.append(Op("turned", "transpose", ("input",)), (1, 2, 7, 5))
    b.matmul("product", "input", "turned")
    b.append(Op("up", "conv_transpose", ("product",), (2, 3, 2, 2), stride=(2, 2), kernel_size=(2, 2)), (1, 3, 10, 10))
    workload = b.build()
    assert [workload.op_macs(op) for op in workload.ops] == [0, 2 * 5 * 5 * 7, 2 * 25 * 3 * 4]


def test_a_folded_normalization_is_a_scale_for_each_channel_more_in_the_trainable_module() -> None:
    b = WorkloadBuilder("input", (1, 3, 8, 8))
    b.conv("stem", "input", 4, kernel_size=3, normalized=True)
    assert (b.build().weight_count, b.build().params) == (3 * 4 * 9 + 4, 3 * 4 * 9 + 4 + 4)


@pytest.mark.parametrize("seed", range(30))
def test_shapes_are_those_of_torch(seed: int) -> None:
    draw = random.Random(seed)
    k, s, d = ((draw.randint(1, 4), draw.randint(1, 4)) for _ in range(3))
    pads = (draw.randint(0, 3), draw.randint(0, 3))
    groups = draw.choice((1, 2))
    b = WorkloadBuilder("input", (1, 4, draw.randint(16, 20), draw.randint(16, 20)))
    b.conv("conv", "input", 6, kernel_size=k, stride=s, padding=(*pads, *pads), groups=groups, dilation=d)
    b.pool("pool", "max_pool", "input", kernel_size=k, stride=s)
    image = torch.empty(b.shapes["input"], device="meta")
    conv = torch.nn.Conv2d(4, 6, k, s, pads, d, groups, device="meta")
    assert b.shapes["conv"] == conv(image).shape
    assert b.build().weights()["conv.weight"] == conv.weight.shape
    assert b.shapes["pool"] == torch.nn.functional.max_pool2d(image, k, s).shape


def test_what_cannot_be_is_refused_by_name() -> None:
    b = WorkloadBuilder("input", (1, 3, 8, 8))
    b.conv("stem", "input", 4, kernel_size=3)
    with pytest.raises(ValueError, match="operation names must differ, got 'stem' twice"):
        b.activation("stem", "stem", "relu")
    with pytest.raises(ValueError, match=r"pool: every side of the output must be at least 1, got \(1, 4, 0, 0\)"):
        b.pool("pool", "avg_pool", "stem", kernel_size=9, stride=1)
    with pytest.raises(ValueError, match="precision must be one of fp32, int8, got 'int4'"):
        preset("resnet8").workload().with_precision("int4")


def test_formats_count_bytes() -> None:
    assert TensorFormat(bits=4).bytes(5) == 3
    assert TensorFormat(bits=32, density=0.25).bytes(100) == 100
    with pytest.raises(ValueError, match=r"density must be in \(0, 1\], got 0"):
        TensorFormat(density=0)
    with pytest.raises(ValueError, match=r"bits must be between 1 and 64, got 65"):
        TensorFormat(bits=65)
