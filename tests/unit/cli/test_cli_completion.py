"""`boincvm completion`: scripts that the shells themselves find sound."""

import subprocess
import sys

import pytest

from boincvm.cli import verbs
from boincvm.cli.main import main
from boincvm.exit_codes import ExitCode


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_script_with_every_verb_and_option(capsys, shell):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in verbs.VERBS)
    assert "--silence-limit" in script
    assert "--if-missing" in script
    subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_completes_a_verb_and_an_option(capsys):
    main(["completion", "bash"])
    script = capsys.readouterr().out
    for words, expected in (
        (["boincvm", "doc"], "doctor"),
        (["boincvm", "run", "--mem"], "--memory"),
    ):
        ask = (
            f"{script}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n"
            "_shtab_boincvm; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=False)
        assert done.stdout.split() == [expected], done.stderr


def test_without_shtab_the_next_step_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == ExitCode.HOST
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "pip install 'boincvm[completion]'" in captured.err
