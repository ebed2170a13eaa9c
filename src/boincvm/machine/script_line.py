"""The interpreter that the first line of a script names, for an error that it is missing."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boincvm.byte_text import decoded
from boincvm.guestlink.display import shown
from boincvm.guestlink.program import InterpreterMissingError
from boincvm.host.files import open_regular
from boincvm.job.model import GUEST_DIRECTORY, InputFile, MachineTask
from boincvm.job.values import describe

_LINE = re.compile(rb"#![ \t]*([^ \t\n\0]+)")
_LONGEST = 256
"""Bytes of the first line that Linux reads."""


class Interpreter(NamedTuple):
    """The interpreter of a script that a job sends."""

    name: str
    """As it is shown."""
    hint: str
    """Why it may be missing; empty if that cannot be told from its name."""


def interpreter_of(
    task: MachineTask, directory: Path, inputs: Sequence[InputFile]
) -> Interpreter | None:
    """Return the interpreter of the program of `task`, if one of `inputs` brings it as a script.

    Relative paths of inputs start from `directory`.
    """
    where = PurePosixPath(GUEST_DIRECTORY, task.directory or "", task.argv[0])
    path = PurePosixPath(os.path.normpath(where))
    for item in inputs:
        destination = GUEST_DIRECTORY / item.destination
        if path.is_relative_to(destination):
            name = _named_by(directory / item.source / path.relative_to(destination))
            return None if name is None else Interpreter(describe(name), _hint(name, path))
    return None


def with_interpreter(
    error: InterpreterMissingError, task: MachineTask, directory: Path, inputs: Sequence[InputFile]
) -> InterpreterMissingError:
    """Return `error` with the interpreter's name, if `interpreter_of` knows it."""
    found = interpreter_of(task, directory, inputs)
    if found is None:
        return error
    return InterpreterMissingError(
        f"{error.message}, {found.name}",
        hint=found.hint or error.hint,
        exit_code=error.exit_code,
    )


def _hint(interpreter: str, script: PurePosixPath) -> str:
    if not interpreter.endswith("\r"):
        return ""
    return (
        "its lines end with a carriage return, as on Windows, which is taken for a part of the"
        f" name; remove them: sed -i 's/\\r$//' {shown(PurePosixPath(script.name))}"
    )


def _named_by(script: Path) -> str | None:
    try:
        with open_regular(script) as file:
            match = _LINE.match(file.read(_LONGEST))
    except OSError:  # it has gone since it was sent
        return None
    return None if match is None else decoded(match[1])
