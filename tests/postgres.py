"""A PostgreSQL server of the tests: in a temporary folder, on loopback, stopped and started as a test asks."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, text

from tests.optional_parts import require

PASSWORD = "not so secret"


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server that runs, with one database for each test that asks."""

    binaries: Path
    folder: Path
    port: int
    account: str

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self) -> None:
        """End it as an administrator would, whose clients lose their connections."""
        self._run("pg_ctl", "-D", self.folder / "data", "-m", "fast", "-w", "stop")

    def url(self, database: str = "postgres", password: str = PASSWORD) -> str:
        return f"postgresql://{self.account}:{password.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    def new_database(self, name: str) -> str:
        """The URL of a database that is empty."""
        address = self.url().replace("postgresql:", "postgresql+psycopg2:")
        engine = create_engine(address, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        engine.dispose()
        return self.url(name)

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self.binaries / program), *map(str, arguments)]
        user = self.account if os.getuid() == 0 else None  # initdb and postgres refuse root
        # What the server inherits would keep a pipe open for as long as it runs.
        with (self.folder / f"{program}.out").open("w") as out:
            done = subprocess.run(
                command,
                user=user,
                cwd=self.folder,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_environment(),
                check=False,
            )
        assert done.returncode == 0, (command, (self.folder / f"{program}.out").read_text())


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server in a temporary folder, which ends with the block; the test is skipped where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    require(bool(found or on_path), "PostgreSQL is not installed (Debian: postgresql)")
    _require_driver()
    binaries = found[-1].parent if found else Path(str(on_path)).parent
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    account = getpass.getuser()
    try:
        if os.getuid() == 0:
            account = "postgres"
            os.chown(folder, pwd.getpwnam(account).pw_uid, pwd.getpwnam(account).pw_gid)
        server = Postgres(binaries, folder, _free_port(), account)
        password_file = folder / "password"
        password_file.write_text(PASSWORD)
        server._run(
            "initdb", "-D", folder / "data", "-U", account, "-A", "scram-sha-256", f"--pwfile={password_file}",
            "--no-sync", "--no-instructions", "--locale=C", "--encoding=UTF8",
        )  # fmt: skip
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _require_driver() -> None:
    try:
        import psycopg2  # noqa: F401
    except ImportError:
        require(False, "psycopg2 is not installed (pip install 'fitnas[postgres]')")


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
