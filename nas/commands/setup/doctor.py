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
_QUIET, _LOUD = 0.10, 0.30  # the width of the middle 80 % of the times, relative to their median
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
        print(f"nas: error: a run does not work on this machine; failed: {', '.join(failed)}", file=sys.stderr)
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
    found = f"{cores} of {os.cpu_count()} may be used" + (f", OMP_NUM_THREADS={threads}" if threads else "")
    advice = "" if not threads else "OMP_NUM_THREADS limits the threads of trainings; unset it unless that is intended"
    return Check(name="cores", state=State.NOTE if threads else State.OK, found=found, advice=advice)


def _training_checks() -> list[Check]:
    try:
        probe: TrainingProbe = run_shielded(probe_training, True, what="a training step")
        step = Check(name="training step", state=State.OK, found=_step_words(probe))
    except CrashError as crash:
        try:
            probe = run_shielded(probe_training, False, what="a training step")
        except CrashError as second:
            return [_failed("training step", second, "PyTorch crashes on this machine: try another version of torch")]
        step = Check(
            name="training step", state=State.NOTE, found=printable(crash),
            advice="PyTorch crashes with images in channels-last order; a run notices that and uses other, slower "
            "kernels. Another version of torch may help",
        )  # fmt: skip
    except Exception as error:  # whatever an incomplete installation raises when it is imported
        return [_failed("training step", error, "PyTorch does not work: install fitnas again")]
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
        return Check(name="int8 instructions", state=State.OK, found="this version of torch does not tell")
    found = [name for flag, name in _INT8.items() if flag in probe.instructions]
    if found:
        return Check(name="int8 instructions", state=State.OK, found=", ".join(found))
    return Check(
        name="int8 instructions", state=State.NOTE, found="none",
        advice="int8 files may be no faster than float32 here; a run keeps int8 only if it is measured to be better",
    )  # fmt: skip


def _bfloat16(probe: TrainingProbe) -> Check:
    found = [name for flag, name in _BFLOAT16.items() if flag in probe.instructions]
    gains = ", ".join(f"{name} {float32 / bf16:.1f} times as fast" for name, (float32, bf16) in probe.step_ms.items())
    return Check(name="bfloat16", state=State.OK, found=f"{', '.join(found) or 'no instructions'}; training {gains}")


def _latency_checks() -> list[Check]:
    try:
        probe: LatencyProbe = run_shielded(probe_latency, _NOISE_SECONDS, what="ONNX Runtime")
    except Exception as error:
        return [_failed("ONNX Runtime", error, "no file can be run or measured: install fitnas again")]
    times = (
        f"{probe.fp32_ms:.3f} ms, in int8 {probe.int8_ms:.3f} ms ({probe.fp32_ms / probe.int8_ms:.1f} times as fast)"
    )
    return [
        Check(name="ONNX Runtime", state=State.OK, found=f"{probe.onnxruntime}; resnet8 {times}"),
        _noise(probe.spread),
    ]


def _noise(spread: float) -> Check:
    """How much times of the same work differ.

    >>> _noise(0.03).found, _noise(0.5).state
    ('the middle 80 % of the times differ by 3 %', <State.NOTE: 'note'>)
    """
    found = f"the middle 80 % of the times differ by {100 * spread:.0f} %"
    if spread < _QUIET:
        return Check(name="noise", state=State.OK, found=found)
    degree = "somewhat noisy" if spread < _LOUD else "very noisy"
    return Check(
        name="noise", state=State.NOTE, found=found,
        advice=f"this machine is {degree}: measured latencies get wide intervals and take longer. Close other programs",
    )  # fmt: skip


def _device_file() -> Check:
    device = load_device("host")
    if matches_this_machine(device.conditions, device.threads):
        return Check(name="device file", state=State.OK, found="`host` was measured under these conditions")
    here = conditions(device.threads)
    differing = [name for name, value in here.items() if device.conditions.get(name) != value]
    return Check(
        name="device file", state=State.NOTE, found=f"`host` was measured with another {', '.join(differing)}",
        advice="estimates for `host` are a factor of two wide, so candidates are measured. Ten quiet minutes make a "
        "file for this machine: nas devices measure --out my.toml; then use --device my.toml",
    )  # fmt: skip
