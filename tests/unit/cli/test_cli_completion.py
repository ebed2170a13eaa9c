"""`boincvm completion`: scripts that the shells themselves accept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.cli import verbs
from boincvm.cli.main import main
from boincvm.exit_codes import ExitCode
from support.on_terminal import on_terminal


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_script_with_every_verb_and_option(capsys, shell):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in verbs.VERBS)
    assert "--silence-limit" in script
    assert "--if-missing" in script
    subprocess.run([shell, "-n"], input=script, text=True, check=True)


def completed_by_bash(script: str, words: list[str], directory: Path) -> list[str]:
    ask = (
        f"{script}\nCOMP_WORDS=({' '.join(words)} ''); COMP_CWORD={len(words) - 1}\n"
        "_boincvm; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", ask],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def with_machines(tmp_path):
    """Make a boincvm that knows some machines, one with a hostile name, and a directory."""
    fake = tmp_path / "boincvm"
    fake.write_text(
        "#!/bin/sh\n"
        '[ "$*" = "ls --quiet" ] || exit 1\n'
        "printf '%s\\n' web.1 web.2 'web.$(touch broken)' db\n"
    )
    fake.chmod(0o755)
    (tmp_path / "web-files").mkdir()
    (tmp_path / "web.txt").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("doc", ["doctor"]),
        ("she", ["shell"]),
        ("run --mem", ["--memory"]),
        ("start we", ["web.1", "web.2"]),
        ("rm web.1 d", ["db"]),
        ("shell web.2", ["web.2"]),
        ("exec d", ["db"]),
        ("snapshot re", ["restore"]),
        ("snapshot take web", ["web.1", "web.2", "web-files"]),
        ("snapshot restore web", ["web.1", "web.2"]),
        ("cp web", ["web.1:", "web.2:", "web-files", "web.txt"]),
        ("cp web.txt d", ["db:"]),
        ("suspend nobody", []),
    ],
)
def test_bash_completes(capsys, with_machines, line, expected):
    main(["completion", "bash"])
    script = capsys.readouterr().out
    words = ["boincvm", *line.split()]
    assert sorted(completed_by_bash(script, words, with_machines)) == sorted(expected)
    assert not (with_machines / "broken").exists()


def test_bash_completes_where_no_controller_runs(capsys, tmp_path):
    main(["completion", "bash"])
    script = capsys.readouterr().out
    fake = tmp_path / "boincvm"
    fake.write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    fake.chmod(0o755)
    assert completed_by_bash(script, ["boincvm", "start", "web"], tmp_path) == []


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("boincvm doc", "boincvm doctor"),
        ("boincvm start d", "boincvm start db"),
        ("boincvm shell web.", "web.1  web.2"),
        ("boincvm snapshot take web-f", "boincvm snapshot take web-files"),
        ("boincvm cp web.txt d", "boincvm cp web.txt db:"),
    ],
)
async def test_zsh_completes_as_one_types(capsys, with_machines, line, shown):
    main(["completion", "zsh"])
    (with_machines / "_boincvm").write_text(capsys.readouterr().out)
    (with_machines / ".zshrc").write_text(
        "PS1='ready> '; fpath=($PWD $fpath); autoload -U compinit\n"
        "compinit -u -D; unsetopt zle_bracketed_paste\n"
    )
    environment = {
        "PATH": f"{with_machines}:{os.environ['PATH']}",
        "ZDOTDIR": str(with_machines),
        "TERM": "dumb",
    }
    zsh = ("zsh", "-i", "-o", "no_global_rcs")
    async with on_terminal(*zsh, environment=environment, directory=with_machines) as terminal:
        await terminal.until("ready> ")
        terminal.type(f"{line}\t")
        await terminal.until(shown)
    assert not (with_machines / "broken").exists()


def test_without_shtab_the_next_step_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == ExitCode.HOST
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "pip install 'boincvm[completion]'" in captured.err
