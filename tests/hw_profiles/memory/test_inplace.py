"""Which kernels write over their input: measured in ONNX Runtime, computed pixel by pixel for C99."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hw_profiles.memory.inplace import line_buffer_rows, overwritable
from hw_profiles.memory.planner import plan
from hw_profiles.network.workload import Op, WorkloadBuilder
from hw_profiles.runtimes.fusion import fuse


def test_onnx_runtime_writes_neither_over_its_input_nor_elsewhere_than_into_its_output() -> None:
    b = WorkloadBuilder("input", (1, 8, 4, 4))
    x = b.activation("first", "input", "tanh")
    x = b.activation("middle", x, "tanh")
    b.activation("last", x, "tanh")
    workload = b.build()
    assert plan(workload, fuse(workload)).overwrites == (None, "first", None)


# The memory that a chain of six nodes takes beside its input, in tensors.
CHAIN = """
import re, sys
from pathlib import Path
import numpy as np, onnxruntime
from onnx import TensorProto, helper, numpy_helper

def most():
    return 1024 * int(re.search("VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

operation, shape = sys.argv[1], (1, 4, 1024, 1024)
weights = [numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("six", 6))]
more = {"Clip": ["zero", "six"], "Add": ["six"], "Mul": ["six"]}.get(operation, [])
domain = "com.microsoft" if operation == "QuickGelu" else ""
nodes = [helper.make_node("Sqrt", ["x"], ["t0"])]
nodes += [helper.make_node(operation, [f"t{i}", *more], [f"t{i + 1}"], domain=domain) for i in range(6)]
nodes += [helper.make_node("ReduceMax", ["t6"], ["y"], keepdims=0)]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in (("x", shape), ("y", ()))]
graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
options.intra_op_num_threads, options.enable_cpu_mem_arena, options.enable_mem_pattern = 1, False, False
model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
image = np.ones(shape, np.float32)
before = most()
session.run(None, {"x": image})
print((most() - before) / image.nbytes)
"""


@pytest.mark.parametrize(
    ("operation", "function"),
    [("Clip", "relu6"), ("Tanh", "tanh"), ("Softmax", "softmax"), ("QuickGelu", "silu"), ("HardSwish", "hard_swish"),
     ("Add", "add")],
)  # fmt: skip
def test_what_onnx_runtime_writes_over_takes_no_second_tensor(operation: str, function: str) -> None:
    done = subprocess.run([sys.executable, "-c", CHAIN, operation], capture_output=True, text=True, check=True)
    b = WorkloadBuilder("input", (1, 8, 4, 4))
    x = b.pool("pool", "max_pool", "input", kernel_size=1, stride=1)
    x = b.binary("tested", "add", x, x) if function == "add" else b.activation("tested", x, function)
    b.global_avg_pool("mean", x)
    workload = b.build()
    kernel = next(k for k in fuse(workload) if k.output == "tested")
    tensors = float(done.stdout)
    assert tensors > 0.9
    assert bool(overwritable(workload, kernel)) == (tensors < 1.5)


def test_a_convolution_that_took_up_a_sum_writes_over_the_summand() -> None:
    b = WorkloadBuilder("input", (1, 16, 8, 8))
    x = b.conv("a", "input", 16, kernel_size=3)
    y = b.conv("b", x, 16, kernel_size=3)
    y = b.conv("c", y, 16, kernel_size=3)
    b.global_avg_pool("mean", b.binary("sum", "add", x, y))
    workload = b.build()
    schedule = plan(workload, fuse(workload))
    over = {kernel.output: name for kernel, name in zip(schedule.kernels, schedule.overwrites, strict=True)}
    assert over["sum"] == "a"
    assert over["b"] is None


WINDOWS = [
    (size, stride, padding, dilation, shape)
    for size, stride, padding, dilation in [
        (3, 1, 1, 1), (5, 1, 2, 1), (7, 1, 3, 1), (3, 2, 1, 1), (5, 2, 2, 1), (7, 2, 3, 1), (3, 1, 2, 2), (3, 3, 1, 1),
        (2, 2, 0, 1), (3, 1, 0, 1), (7, 3, 3, 1), (5, 1, 0, 1), (4, 2, 1, 1),
    ]
    for shape in [(9, 11), (8, 8), (5, 3), (12, 5)]
    if shape[0] + 2 * padding > dilation * (size - 1) and shape[1] + 2 * padding > dilation * (size - 1)
]  # fmt: skip


def in_place(image: NDArray[np.float64], op: Op, weight: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """A depthwise convolution that writes over its input, channels last, with a ring of ``rows`` rows beside it."""
    channels, height, width = image.shape
    (top, left), (down, across) = op.padding[:2], op.stride
    size, dilation = weight.shape[-1], op.dilation[0]
    out_height = (height + 2 * top - dilation * (size - 1) - 1) // down + 1
    out_width = (width + 2 * left - dilation * (size - 1) - 1) // across + 1
    memory = image.transpose(1, 2, 0).reshape(-1, channels).copy()
    ring = np.full((max(rows, 1), width, channels), np.nan)
    kept = 0  # rows up to here are in the ring, if a later window reads them
    for r in range(out_height):
        overwritten = -(-(r + 1) * out_width // width) if rows else 0
        for row in range(kept, min(overwritten, height)):
            if row >= r * down - top:
                ring[row % rows] = memory[row * width : (row + 1) * width]
        kept = max(kept, overwritten)
        for x in range(out_width):
            total = np.zeros(channels)
            for i in range(size):
                for j in range(size):
                    row, column = r * down - top + i * dilation, x * across - left + j * dilation
                    if 0 <= row < height and 0 <= column < width:
                        total += weight[:, i, j] * (
                            ring[row % rows, column] if row < kept else memory[row * width + column]
                        )
            memory[r * out_width + x] = total
    return memory[: out_height * out_width].reshape(out_height, out_width, channels).transpose(2, 0, 1)


@pytest.mark.parametrize(("size", "stride", "padding", "dilation", "shape"), WINDOWS)
def test_a_depthwise_convolution_over_its_input_is_right_with_that_line_buffer(
    size: int, stride: int, padding: int, dilation: int, shape: tuple[int, int]
) -> None:
    """Against PyTorch; and with one row less the result is wrong, so the buffer is not larger than it must be."""
    generator = np.random.default_rng(0)
    image, weight = generator.integers(-9, 9, (3, *shape)), generator.integers(1, 9, (3, size, size))
    expected = torch.nn.functional.conv2d(
        torch.tensor(image)[None].double(), torch.tensor(weight)[:, None].double(), None, stride, padding, dilation, 3
    )[0].numpy()
    op = Op("dw", "conv", ("x",), (3, 1, size, size), stride=(stride,) * 2, padding=(padding,) * 4,
            groups=3, kernel_size=(size,) * 2, dilation=(dilation,) * 2)  # fmt: skip
    rows = line_buffer_rows(op, (1, 3, *shape), (1, *expected.shape))
    np.testing.assert_array_equal(in_place(image.astype(float), op, weight.astype(float), rows), expected)
    if rows:
        fewer = in_place(image.astype(float), op, weight.astype(float), rows - 1)
        assert not np.array_equal(fewer, expected)
