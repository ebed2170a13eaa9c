"""An error for a script without its interpreter names that, as far as the script is ours."""

from pathlib import Path, PurePosixPath

import pytest

from boincvm.exit_codes import ExitCode
from boincvm.guestlink.program import InterpreterMissingError
from boincvm.job.files import input_file
from boincvm.job.model import MachineTask
from boincvm.machine.script_line import with_interpreter


def texts(directory: Path, program: str, *inputs: str, where: str | None = None) -> tuple[str, str]:
    task = MachineTask((program,), directory=None if where is None else PurePosixPath(where))
    sent = [input_file(text, directory) for text in inputs]
    error = InterpreterMissingError("it names", hint="a hint", exit_code=ExitCode.CANNOT_EXECUTE)
    found = with_interpreter(error, task, directory, sent)
    assert found.exit_code == ExitCode.CANNOT_EXECUTE
    return found.message, found.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#!/usr/bin/perl6\nx\n", "it names, '/usr/bin/perl6'"),
        (b"#! /opt/x -u\r\n", "it names, '/opt/x'"),
        (b"#!/a", "it names, '/a'"),
        (b"#!" + b"a" * 1000, "it names, '" + "a" * 20),
        (b"#!\n", "it names"),
        (b"\x7fELF", "it names"),
        (b"", "it names"),
    ],
)
def test_the_interpreter(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "prog").write_bytes(content)
    found, hint = texts(tmp_path, "./prog", "prog")
    assert found.startswith(message)
    assert (", " in found) is (", " in message)
    assert len(found) < 300
    assert hint == "a hint"


def test_lines_that_end_as_on_windows(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/prog").write_bytes(b"#!/usr/bin/python3\r\nprint(1)\r\n")
    for program, where in (
        ("bin/prog", None),
        ("/work/bin/prog", None),
        ("./prog", "bin"),
        ("../bin/./prog", "bin"),
    ):
        message, hint = texts(tmp_path, program, "bin", where=where)
        assert message == r"it names, '/usr/bin/python3\r'"
        assert "carriage return" in hint
        assert hint.endswith(" prog")  # under BOINC its path would name the volunteer


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    for program in ("dir", "absent", "/usr/bin/prog", "prog"):
        assert texts(tmp_path, program, "dir", "absent") == ("it names", "a hint")
