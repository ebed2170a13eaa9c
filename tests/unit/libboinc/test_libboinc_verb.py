"""`boincvm libboinc`: its output compiles with the command that it prints."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.exit_codes import ExitCode

HERE = Path(__file__).parent
LIBRARY = HERE.parents[2] / "guest/libboinc"


def reported(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["libboinc", "--json", *arguments]) == 0
    result: dict[str, object] = json.loads(capsys.readouterr().out)
    return result


@pytest.mark.parametrize(("language", "source"), [("C", "app.c"), ("C++", "app.cpp")])
def test_the_printed_command_compiles_an_application(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], language: str, source: str
) -> None:
    location = tmp_path / "two words"
    commands = reported(capsys, str(location))["compile"]
    assert isinstance(commands, dict)
    shutil.copy(HERE / source.replace("app", "upper_case"), tmp_path / source)
    done = subprocess.run(
        ["sh", "-c", commands[language]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "in").write_text("abc")
    assert subprocess.run(["./app"], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "out").read_text() == "ABC"


def test_it_writes_all_and_then_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(path.name for path in LIBRARY.iterdir() if path.is_file())
    first = reported(capsys, str(tmp_path / "a/b"))
    assert first["written"] == first["files"] == names
    assert reported(capsys, str(tmp_path / "a/b"))["written"] == []
    for name in names:
        assert (tmp_path / "a/b" / name).read_bytes() == (LIBRARY / name).read_bytes()


def test_it_replaces_nothing_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "util.h"
    mine.write_text("mine")
    assert main(["libboinc", str(tmp_path)]) == ExitCode.OUTPUT_FILE
    assert "util.h already exists" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [mine]
    assert mine.read_text() == "mine"
    assert main(["libboinc", "--force", str(tmp_path)]) == 0
    assert mine.read_bytes() == (LIBRARY / "util.h").read_bytes()
