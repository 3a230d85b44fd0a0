"""Runs the command line until a given moment, then kills itself: ``python victim.py MOMENT ARGUMENT...``.

``MOMENT`` is ``at:LABEL:SHARE`` (in the phase whose progress has that label, at that share of it), ``rename:NAME`` (a
file or folder is complete, but does not have that name yet), or ``never``.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

import compress.progress
import compress.training.loop
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


if __name__ == "__main__":
    compress.training.loop._CHECKPOINT_SECONDS = 0.2
    kind, *details = sys.argv[1].split(":")
    if kind == "at":
        kill_at(details[0], float(details[1]))
    elif kind == "rename":
        kill_before_rename(details[0])
    sys.exit(main(sys.argv[2:]))
