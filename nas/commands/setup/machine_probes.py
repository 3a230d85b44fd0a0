"""Short work of the kinds that a run does, for ``nas doctor``: training steps, latencies, how steady the times are.

The functions import torch or ONNX Runtime when they are called: each is called in a process of its own, which native
code may end.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_BATCH, _SIDE, _STEPS = 64, 32, 4
_NETWORKS = ("resnet8", "mobilenetv2_035")  # dense convolutions, and depthwise ones


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingProbe:
    """What training steps showed: the version of torch, its threads, the CPU's instructions by name, and milliseconds
    of a step of each network in float32 and bfloat16."""

    torch: str
    threads: int
    instructions: tuple[str, ...]
    step_ms: dict[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyProbe:
    """What ONNX Runtime showed: its version, milliseconds of ResNet-8 in float32 and int8, and how steady they are.

    ``spread`` is the width of the middle 80% of the times of one file, divided by their median.
    """

    onnxruntime: str
    fp32_ms: float
    int8_ms: float
    spread: float


def probe_training(channels_last: bool) -> TrainingProbe:
    """Train two small networks for a few steps, with the kernels for one or the other order of images in memory."""
    import torch

    from search_spaces import build_model, preset

    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # a recent function of torch
    step_ms = {}
    for name in _NETWORKS:
        model = build_model(preset(name, input_shape=(3, _SIDE, _SIDE), num_classes=10), seed=0).train()
        float32, bfloat16 = (_step_ms(model, channels_last, enabled) for enabled in (False, True))
        step_ms[name] = (float32, bfloat16)
    return TrainingProbe(
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        instructions=tuple(sorted(name for name, value in capabilities.items() if value is True)),
        step_ms=step_ms,
    )


def _step_ms(model: Any, channels_last: bool, bfloat16: bool) -> float:
    """Milliseconds of the fastest step but the first."""
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=layout)
    images = torch.rand(_BATCH, 3, _SIDE, _SIDE).contiguous(memory_format=layout)
    labels = torch.arange(_BATCH) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    seconds = []
    for _ in range(_STEPS):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits = model(images)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds[1:])


def probe_latency(seconds: float) -> LatencyProbe:
    """Run ResNet-8 in float32 and in int8 in turn, as a run measures files, for so many seconds."""
    import onnxruntime

    from hw_profiles.network.quantization import fixed_quantization
    from hw_profiles.onnx_io.writer import write_onnx
    from search_spaces import preset

    workload = preset("resnet8").workload()
    files = (write_onnx(workload), write_onnx(workload, quantization=fixed_quantization(workload)))
    runs = [_runner(data, workload.shapes[workload.input]) for data in files]
    times: list[list[float]] = [[], []]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[1]) < 10:
        for run, found in zip(runs, times, strict=True):
            found.append(_milliseconds(run))
    tenths = statistics.quantiles(times[0], n=10)
    return LatencyProbe(
        onnxruntime=onnxruntime.__version__,
        fp32_ms=statistics.median(times[0]),
        int8_ms=statistics.median(times[1]),
        spread=(tenths[-1] - tenths[0]) / statistics.median(times[0]),
    )


def _runner(data: bytes, shape: tuple[int, ...]) -> Callable[[], None]:
    from hw_profiles.onnx_io.session import open_session

    session = open_session(data, 1)
    feed = {session.get_inputs()[0].name: np.zeros(shape, np.float32)}
    for _ in range(5):
        session.run(None, feed)
    return lambda: session.run(None, feed)


def _milliseconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    for _ in range(5):
        run()
    return 200 * (time.perf_counter() - start)
