"""``nas doctor``: whether a run can work on this machine, and what is missing."""

from __future__ import annotations

import logging
import os
import sys
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from compress.atomic_files import json_text
from hw_profiles import load_device
from hw_profiles.devices.machine import conditions, matches_this_machine
from nas.commands.output.text_table import aligned, printable
from nas.commands.setup.installation_checks import Check, State, installation_checks
from nas.commands.setup.machine_probes import LatencyProbe, TrainingProbe, probe_latency, probe_training
from nas.errors import CrashError
from nas.execution.shielded import run_shielded
from nas.execution.worker_processes import available_cores

_WIDTH = 78
_NOISE_SECONDS = 3.0
_QUIET, _LOUD = 0.10, 0.30  # the width of the middle 80% of the times, relative to their median
_INT8 = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX VNNI",
    "i8mm": "I8MM",
    "dot": "dot product",
}
_BFLOAT16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16", "bf16": "BF16"}


def run_doctor(parsed: Namespace) -> int:
    """Print all checks; 1 where a run cannot work here."""
    checks = [*installation_checks(Path.cwd()), *_machine_checks()]
    print(json_text([asdict(check) for check in checks]) if parsed.json else "\n".join(check_lines(checks)))
    failed = [check.name for check in checks if check.state is State.FAILED]
    if failed:
        print(f"nas: error: fitnas cannot run on this machine; failed checks: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def check_lines(checks: Sequence[Check]) -> list[str]:
    """A table of the checks, then what each one that is not ok means.

    >>> missing = Check(name="C compiler", state=State.MISSING, found="cc not found", advice="install gcc")
    >>> print("\\n".join(check_lines([missing])))
    missing  C compiler  cc not found
    <BLANKLINE>
    C compiler: install gcc
    """
    rows = [[str(check.state), check.name, printable(check.found)] for check in checks]
    _, *lines = aligned(["", "", ""], rows, left=3)
    notes = [textwrap.fill(f"{check.name}: {check.advice}", _WIDTH) for check in checks if check.advice]
    return [*lines, "", *notes] if notes else lines


def _machine_checks() -> list[Check]:
    log = logging.getLogger("fitnas")
    level = log.level
    log.setLevel(logging.ERROR)  # a crash of a probe is a line of the table
    try:
        return [_cores(), *_training_checks(), *_latency_checks(), _device_file()]
    finally:
        log.setLevel(level)


def _cores() -> Check:
    cores, threads = available_cores(), os.environ.get("OMP_NUM_THREADS")
    found = f"{cores} of {os.cpu_count()} available" + (f", OMP_NUM_THREADS={threads}" if threads else "")
    advice = (
        "" if not threads else "OMP_NUM_THREADS limits the number of training threads; unset it unless this is intended"
    )
    return Check(name="cores", state=State.NOTE if threads else State.OK, found=found, advice=advice)


def _training_checks() -> list[Check]:
    try:
        probe: TrainingProbe = run_shielded(probe_training, True, what="a training step")
        step = Check(name="training step", state=State.OK, found=_step_words(probe))
    except CrashError as crash:
        try:
            probe = run_shielded(probe_training, False, what="a training step")
        except CrashError as second:
            return [_failed("training step", second, "PyTorch crashes on this machine; try another version of torch")]
        step = Check(
            name="training step", state=State.NOTE, found=printable(crash),
            advice="PyTorch crashes on channels-last tensors. Runs fall back to slower kernels; another "
            "torch version may help",
        )  # fmt: skip
    except Exception as error:  # whatever an incomplete installation raises when it is imported
        return [_failed("training step", error, "PyTorch does not work; reinstall fitnas")]
    return [step, _torch(probe), _int8(probe), _bfloat16(probe)]


def _failed(name: str, error: Exception, advice: str) -> Check:
    return Check(
        name=name, state=State.FAILED, found=printable(f"{type(error).__name__}: {error}")[:200], advice=advice
    )


def _step_words(probe: TrainingProbe) -> str:
    return ", ".join(f"{name} {float32:.0f} ms" for name, (float32, _) in probe.step_ms.items()) + " (64 images, 32 px)"


def _torch(probe: TrainingProbe) -> Check:
    return Check(name="PyTorch", state=State.OK, found=f"{probe.torch}, {probe.threads} threads")


def _int8(probe: TrainingProbe) -> Check:
    if not probe.instructions:
        return Check(name="int8 instructions", state=State.OK, found="not reported by this torch version")
    found = [name for flag, name in _INT8.items() if flag in probe.instructions]
    if found:
        return Check(name="int8 instructions", state=State.OK, found=", ".join(found))
    return Check(
        name="int8 instructions", state=State.NOTE, found="none",
        advice="int8 models may not be faster than float32 on this machine; a run keeps int8 only if "
        "measurements show a benefit",
    )  # fmt: skip


def _bfloat16(probe: TrainingProbe) -> Check:
    found = [name for flag, name in _BFLOAT16.items() if flag in probe.instructions]
    gains = ", ".join(f"{name} {float32 / bf16:.1f}x" for name, (float32, bf16) in probe.step_ms.items())
    return Check(
        name="bfloat16", state=State.OK, found=f"{', '.join(found) or 'no instructions'}; training speedup {gains}"
    )


def _latency_checks() -> list[Check]:
    try:
        probe: LatencyProbe = run_shielded(probe_latency, _NOISE_SECONDS, what="ONNX Runtime")
    except Exception as error:
        return [_failed("ONNX Runtime", error, "ONNX Runtime does not work; reinstall fitnas")]
    times = f"{probe.fp32_ms:.3f} ms, int8 {probe.int8_ms:.3f} ms ({probe.fp32_ms / probe.int8_ms:.1f}x speedup)"
    return [
        Check(name="ONNX Runtime", state=State.OK, found=f"{probe.onnxruntime}; resnet8 {times}"),
        _noise(probe.spread),
    ]


def _noise(spread: float) -> Check:
    """How much times of the same work differ.

    >>> _noise(0.03).found, _noise(0.5).state
    ('timings vary by 3% (10th to 90th percentile)', <State.NOTE: 'note'>)
    """
    found = f"timings vary by {100 * spread:.0f}% (10th to 90th percentile)"
    if spread < _QUIET:
        return Check(name="noise", state=State.OK, found=found)
    degree = "somewhat noisy" if spread < _LOUD else "very noisy"
    return Check(
        name="noise", state=State.NOTE, found=found,
        advice=f"this machine is {degree}: latency measurements take longer and have wide intervals. Close "
        "other programs",
    )  # fmt: skip


def _device_file() -> Check:
    device = load_device("host")
    if matches_this_machine(device.conditions, device.threads):
        return Check(
            name="device file", state=State.OK, found="`host` matches this machine (CPU, ONNX Runtime, threads)"
        )
    here = conditions(device.threads)
    differing = [name for name, value in here.items() if device.conditions.get(name) != value]
    return Check(
        name="device file", state=State.NOTE, found=f"`host` was measured with a different {', '.join(differing)}",
        advice="estimates for `host` are only accurate to a factor of two, so candidates are measured "
        "instead. To create a device file for this machine (10 minutes, machine otherwise idle), run: "
        "nas devices measure --out my.toml; then use --device my.toml",
    )  # fmt: skip
