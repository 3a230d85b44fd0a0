"""Runs the kit on another machine through ssh, and leaves nothing there."""

from __future__ import annotations

import io
import logging
import os
import re
import shlex
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from hw_profiles.device_kit.kit_files import SCRIPT
from hw_profiles.errors import InputError

_log = logging.getLogger("fitnas")

# A name of ~/.ssh/config, user@host, or ssh://user@host:port. It may not begin with what ssh would take for an option.
_DESTINATION = re.compile(
    r"(ssh://)?([A-Za-z0-9_][A-Za-z0-9_.+-]*@)?([A-Za-z0-9][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)"
    r"(?(1)(:\d{1,5})?)"
)
# No question is ever asked, a machine that is gone is noticed, and nothing but the command's output passes.
_OPTIONS = (
    "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=10", "-o",
    "ServerAliveCountMax=3", "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no",
)  # fmt: skip
_MAKE_FOLDER = 'umask 077; mktemp -d "${TMPDIR:-/tmp}/fitnas-kit.XXXXXXXXXX"'
_FOLDER = re.compile(r"(/[A-Za-z0-9_.+-]+)+/fitnas-kit\.[A-Za-z0-9]+")
_SHORT_SECONDS, _COPY_SECONDS = 30.0, 600.0
_MOST_BYTES = 1_000_000  # that are taken from the other machine
_POLL_SECONDS = 0.05
_NO_CONNECTION = 255  # ssh's own exit status


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteMachine:
    """A machine that ssh reaches without a question: with a key, and known to this one.

    ``destination`` is ``user@host``, a name of ``~/.ssh/config`` or ``ssh://user@host:port``; ``config`` a file that
    ssh reads in place of its own; ``python`` what runs the script there.
    """

    destination: str
    config: Path | None = None
    python: str = "python3"

    def __post_init__(self) -> None:
        if not _DESTINATION.fullmatch(self.destination):
            raise InputError(
                "--ssh must be user@host, a host alias from ~/.ssh/config or ssh://user@host:port, "
                f"got {self.destination!r:.80}"
            )
        if self.config is not None and not self.config.is_file():
            raise InputError(f"--ssh-config must be a file of ssh's configuration, got {str(self.config)!r:.80}")
        if not self.python or self.python.startswith("-") or not self.python.isprintable():
            raise InputError(f"--remote-python must be an executable on the remote machine, got {self.python!r:.80}")

    def run_kit(self, contents: Mapping[str, bytes], *, threads: int, seconds: float) -> bytes:
        """Copy the kit there, run it for at most so many seconds, and return its ``result.json``.

        What was copied is removed in the end, also where something fails.

        Raises:
            InputError: no connection, no Python or ONNX Runtime there, or a script that failed or took too long.
        """
        folder = self._made_folder()
        try:
            self._copy(contents, folder)
            result = f"{folder}/result.json"
            # ONNX Runtime leaves a file in the folder for temporary ones: let it be removed with the others.
            run = ["env", f"TMPDIR={folder}", self.python, f"{folder}/{SCRIPT}", "--threads", str(threads)]
            self._call(shlex.join([*run, "--out", result]), seconds=seconds, on_line=_progress)
            return self._call(shlex.join(["cat", result]), seconds=_SHORT_SECONDS)
        finally:
            self._remove(folder)

    def _made_folder(self) -> str:
        printed = self._call(_MAKE_FOLDER, seconds=_SHORT_SECONDS).decode(errors="replace")
        folder = printed.strip().rpartition("\n")[2]  # a shell may say something before
        if not _FOLDER.fullmatch(folder) or "/../" in folder:
            raise InputError(f"{self.destination}: must make a temporary folder by mktemp, got {folder!r:.80}")
        return folder

    def _copy(self, contents: Mapping[str, bytes], folder: str) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, data in contents.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o600
                archive.addfile(entry, io.BytesIO(data))
        _log.info("copying %.1f MB to %s", len(packed.getvalue()) / 1e6, self.destination)
        self._call(shlex.join(["tar", "-xf", "-", "-C", folder]), seconds=_COPY_SECONDS, sent=packed.getvalue())

    def _remove(self, folder: str) -> None:
        try:
            self._call(shlex.join(["rm", "-rf", "--", folder]), seconds=_SHORT_SECONDS)
        except InputError as error:
            _log.warning("%s; remove the folder %s there", error, folder)

    def _call(
        self, command: str, *, seconds: float, sent: bytes = b"", on_line: Callable[[str], None] | None = None
    ) -> bytes:
        """What a command prints there; ``on_line`` gets the lines that it prints as errors, as they come."""
        config = () if self.config is None else ("-F", str(self.config))
        arguments = ["ssh", *_OPTIONS, *config, "--", self.destination, command]
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            given.write(sent)
            given.seek(0)
            status = _finished(arguments, _Streams(given, out, errors), seconds, on_line or (lambda line: None))
            out.seek(0)
            errors.seek(0)
            printed, complaint = out.read(_MOST_BYTES + 1), errors.read(_MOST_BYTES).decode(errors="replace")
        if status == 0:
            return printed
        lines = [line for line in complaint.splitlines() if line.strip()]
        reason = "".join(c for c in (lines or [f"exit status {status}"])[-1] if c.isprintable())
        by = f"ssh {self.destination}" if status == _NO_CONNECTION else self.destination
        raise InputError(f"{by}: {reason:.300}")


class _Streams(NamedTuple):
    """Files, so that no process ever waits for the other side of a pipe."""

    given: IO[bytes]
    out: IO[bytes]
    errors: IO[bytes]


def _finished(arguments: Sequence[str], streams: _Streams, seconds: float, on_line: Callable[[str], None]) -> int:
    """The exit status of a process that is stopped where it takes too long or prints too much."""
    try:
        process = subprocess.Popen(arguments, stdin=streams.given, stdout=streams.out, stderr=streams.errors)
    except FileNotFoundError:
        raise InputError("--ssh needs the program ssh (Debian: openssh-client), which is not installed") from None
    end, read = time.monotonic() + seconds, 0
    try:
        while True:
            status = process.poll()
            read = _new_lines(streams.errors.fileno(), read, on_line)
            if status is not None:
                return status
            if time.monotonic() > end:
                raise InputError(f"{arguments[-2]}: no answer within {seconds:g} seconds")
            if max(_size(streams.out), _size(streams.errors)) > _MOST_BYTES:
                raise InputError(f"{arguments[-2]}: output exceeds {_MOST_BYTES} bytes")
            time.sleep(_POLL_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _new_lines(descriptor: int, read: int, on_line: Callable[[str], None]) -> int:
    """Pass on whole lines from a position on; the position after them."""
    text = os.pread(descriptor, _MOST_BYTES, read)
    whole = text.rfind(b"\n") + 1
    for line in text[:whole].decode(errors="replace").splitlines():
        on_line("".join(c for c in line if c.isprintable()))
    return read + whole


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _progress(line: str) -> None:
    _log.info("%s", line[:200])
