"""Completion of the command line in a shell."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import shtab

from nas.commands.main import _parser, main
from tests.optional_parts import require


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_a_shell_has_all_verbs_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", shell])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for word in ("run", "doctor", "profile", "max-accuracy-drop"):
        assert word in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["nas", "prof"], {"profile"}), (["nas", "run", "--max"], {"--max-accuracy-drop"}),
     (["nas", "devices", "me"], {"measure"}), (["nas", "run", "my.t"], {"my.toml"})],
)  # fmt: skip
def test_bash_completes(words: list[str], expected: set[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    bash = shutil.which("bash")
    require(bash is not None, "bash is not installed")
    folder = tmp_path_factory.mktemp("completion")
    (folder / "my.toml").touch()
    script = shtab.complete(_parser(), "bash")
    quoted = " ".join(f'"{word}"' for word in words)
    ask = f'\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _shtab_nas; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run([str(bash), "-c", script + ask], cwd=folder, capture_output=True, text=True, check=True)
    assert expected <= set(done.stdout.split()), done.stderr
