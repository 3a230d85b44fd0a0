"""Runs the command line until a given moment, then kills itself: ``python victim.py MOMENT ARGUMENT...``.

``MOMENT`` is ``at:LABEL:SHARE`` (in the phase whose progress has that label, at that share of it), ``rename:NAME`` (a
file or folder is complete, but does not have that name yet), or ``never``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

import compress.progress
import compress.training.loop
import nas.execution.long_trainings
from nas.commands.main import main


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(label: str, share: float) -> None:
    class Fatal(tqdm):
        def update(self, n: float = 1) -> Any:
            done = super().update(n)
            if self.desc.strip() == label and self.n >= share * self.total:
                die()
            return done

    compress.progress.tqdm = Fatal


def kill_before_rename(name: str) -> None:
    def fatal(rename: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def renamed(self: Path, target: Path) -> Path:
            if Path(target).name == name:
                die()
            return rename(self, target)

        return renamed

    Path.replace, Path.rename = fatal(Path.replace), fatal(Path.rename)
    nas.execution.long_trainings.run_shielded = in_this_process


def in_this_process(
    function: Callable[..., Any],
    *args: Any,
    keywords: Mapping[str, Any] | None = None,
    report: Any = None,
    show: Any = None,
    **rest: Any,
) -> Any:
    """What writes the file must be the process that dies."""
    feedback = {name: value for name, value in (("report", report), ("show", show)) if value is not None}
    return function(*args, **(keywords or {}), **feedback)


if __name__ == "__main__":
    compress.training.loop._CHECKPOINT_SECONDS = 0.2
    kind, *details = sys.argv[1].split(":")
    if kind == "at":
        kill_at(details[0], float(details[1]))
    elif kind == "rename":
        kill_before_rename(details[0])
    sys.exit(main(sys.argv[2:]))
