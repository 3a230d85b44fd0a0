"""An ssh server of this machine, for tests: on the loopback interface, with keys of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.optional_parts import require

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
NAME = "test-device"


@dataclass(frozen=True)
class SshServer:
    """A server that runs; ``config`` is what a client needs, ``temporary`` the folder for temporary files there."""

    config: Path
    temporary: Path
    port: int


@contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """A server whose files are in ``folder``, which is new; skipped where OpenSSH is not installed."""
    require(Path(SSHD).is_file() and shutil.which("ssh") is not None, "needs openssh-server and openssh-client")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it keeps what has no rights
    temporary = folder / "temporary"
    temporary.mkdir(parents=True)
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    port = _free_port()
    server = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host_key",
        "AuthorizedKeysFile": folder / "user_key.pub", "PidFile": "none", "StrictModes": "no", "UsePAM": "no",
        "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no", "PermitRootLogin": "prohibit-password",
        "SetEnv": f"TMPDIR={temporary}",
    }  # fmt: skip
    client = {
        "HostName": "127.0.0.1", "Port": port, "User": getpass.getuser(), "IdentityFile": folder / "user_key",
        "IdentitiesOnly": "yes", "UserKnownHostsFile": folder / "known_hosts", "GlobalKnownHostsFile": "none",
        "StrictHostKeyChecking": "yes",
    }  # fmt: skip
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in server.items()))
    (folder / "ssh_config").write_text(
        f"Host {NAME}\n" + "".join(f"  {name} {value}\n" for name, value in client.items())
    )
    known = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {known}")
    log = (folder / "log").open("w")
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=log, stdout=log)
    try:
        _wait_for(port, process, folder / "log")
        yield SshServer(config=folder / "ssh_config", temporary=temporary, port=port)
    finally:
        process.terminate()
        process.wait()
        log.close()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        assert process.poll() is None, log.read_text()
        with socket.socket() as found:
            if found.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("sshd does not listen")
