"""The kit on another machine: over a real ssh server, and against servers that misbehave."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hw_profiles.device_kit import remote_machine
from hw_profiles.device_kit.kit_files import script
from hw_profiles.device_kit.remote_machine import RemoteMachine
from hw_profiles.devices.machine import conditions
from hw_profiles.errors import InputError
from hw_profiles.measurement.latency_measurement import reference_model
from tests.hw_profiles.device_kit.ssh_server import NAME, SshServer, ssh_server
from tests.parameters import slow

RUNS = b"import sys; sys.stderr.write('1 of 1\\n'); open(sys.argv[-1], 'w').write('times')"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("ssh")) as found:
        yield found


def machine(server: SshServer, python: str = sys.executable) -> RemoteMachine:
    return RemoteMachine(destination=NAME, config=server.config, python=python)


def run(found: RemoteMachine, program: bytes, seconds: float = 60) -> bytes:
    return found.run_kit({"measure.py": program}, threads=1, seconds=seconds)


def test_the_kit_runs_there_and_nothing_is_left(server: SshServer, caplog: pytest.LogCaptureFixture) -> None:
    """The real script with the reference network alone."""
    kit = {"kit": "x", "reference": "a.onnx", "networks": [{"network": "n", "precision": "int8", "file": "a.onnx"}]}
    contents = {"measure.py": script().encode(), "kit.json": json.dumps(kit).encode(), "a.onnx": reference_model()}
    with caplog.at_level("INFO", "fitnas"):
        result = json.loads(machine(server).run_kit(contents, threads=1, seconds=60))
    assert result["conditions"] == conditions(1)
    [row] = result["networks"]
    assert row["latency_ms"] == pytest.approx(result["reference_ms"], rel=0.3)  # it is the reference itself
    assert "1 of 1: n int8" in caplog.text
    assert list(server.temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"raise SystemExit('no onnxruntime here')", f"{NAME}: no onnxruntime here"),
        (b"import time; time.sleep(10)", "no answer within 2 seconds"),
        slow((b"print('x' * 3_000_000); import time; time.sleep(10)", "output exceeds 1000000 bytes")),
        slow((b"", "No such file or directory")),  # no result
    ],
)
def test_a_script_that_fails_there_is_told_in_one_line_and_nothing_is_left(
    program: bytes, said: str, server: SshServer
) -> None:
    with pytest.raises(InputError) as found:
        run(machine(server), program, seconds=2)
    assert said in str(found.value)
    assert str(found.value).isprintable()
    assert list(server.temporary.iterdir()) == []


def test_a_program_that_is_not_there_is_named(server: SshServer) -> None:
    with pytest.raises(InputError, match=r"no-such-python.*(not found|No such file)"):
        run(machine(server, "no-such-python"), RUNS)
    marked = server.temporary.parent / "marked"
    with pytest.raises(InputError, match=r"not found|No such file|env: "):
        run(machine(server, f"python3; touch {marked} #"), RUNS)
    assert not marked.exists()


def test_a_machine_that_is_not_known_is_not_talked_to(server: SshServer, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace("known_hosts", "no_hosts"))
    with pytest.raises(InputError, match=f"^ssh {NAME}: Host key verification failed"):
        run(RemoteMachine(destination=NAME, config=config), RUNS)
    config.write_text(server.config.read_text().replace("user_key", "host_key"))
    with pytest.raises(InputError, match=f"^ssh {NAME}: .*Permission denied"):
        run(RemoteMachine(destination=NAME, config=config), RUNS)
    config.write_text(server.config.read_text().replace(f"Port {server.port}", "Port 1"))
    with pytest.raises(InputError, match=f"^ssh {NAME}: .*refused"):
        run(RemoteMachine(destination=NAME, config=config), RUNS)


@pytest.mark.parametrize(
    "destination",
    [
        "-oProxyCommand=touch x",
        "a b",
        "a;b",
        "$(b)",
        "user@",
        "@host",
        "",
        "a\nb",
        "ssh://a/b",
        "-v",
        "user@-host",
        "a'b",
    ],
)
def test_what_is_no_destination_is_refused(destination: str) -> None:
    with pytest.raises(InputError, match="--ssh must be user@host"):
        RemoteMachine(destination=destination)


@pytest.mark.parametrize(
    "destination", ["pi", "pi@raspberrypi.local", "ssh://pi@10.0.0.2:2222", "root@fe80::1", "a.b-c_d", "ssh://[::1]:22"]
)
def test_what_is_a_destination_is_taken(destination: str) -> None:
    assert RemoteMachine(destination=destination).destination == destination


def pretend(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A program in the place of ssh."""
    program = folder / "ssh"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    "folder", ["/", "/home", "", "/tmp/x/../fitnas-kit.abc", "/tmp/fitnas-kit.a b", "/tmp/$(x)/fitnas-kit.a"]
)
def test_a_folder_that_is_none_of_ours_is_not_removed(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    pretend(tmp_path, monkeypatch, f"echo \"$*\" >> {calls}; echo '{folder}'")
    with pytest.raises(InputError, match="must make a temporary folder by mktemp"):
        run(RemoteMachine(destination="pi"), RUNS)
    [call] = calls.read_text().splitlines()
    assert "mktemp" in call
    assert "BatchMode=yes" in call


def test_a_shell_may_say_something_before_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    pretend(tmp_path, monkeypatch, 'for last; do :; done; echo "Welcome to your board"; exec sh -c "$last"')
    assert run(RemoteMachine(destination="pi", python=sys.executable), RUNS) == b"Welcome to your board\ntimes"
    assert [path.name for path in tmp_path.iterdir()] == ["ssh"]


def test_a_machine_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(remote_machine, "_SHORT_SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"pi: no answer within 0\.2 seconds"):
        run(RemoteMachine(destination="pi"), RUNS)
    assert time.monotonic() - start < 10


def test_without_ssh_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="needs the program ssh"):
        run(RemoteMachine(destination="pi"), RUNS)
