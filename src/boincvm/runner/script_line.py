"""The interpreter that the first line of a script names, for an error that it is missing."""

import os
import re
from pathlib import Path, PurePosixPath

from boincvm.guestlink.program import InterpreterMissingError
from boincvm.host.files import open_regular
from boincvm.job.model import Job, MachineTask
from boincvm.job.values import describe

_LINE = re.compile(rb"#![ \t]*([^ \t\n\0]+)")
_LONGEST = 256
"""Bytes of the first line that Linux reads."""


def with_interpreter(
    error: InterpreterMissingError, job: Job[MachineTask], task: MachineTask
) -> InterpreterMissingError:
    """Return `error` with the interpreter's name, if the program is a script that the job sends."""
    script = _sent_file(job, task)
    interpreter = None if script is None else _interpreter_of(script)
    if interpreter is None:
        return error
    hint = error.hint
    if interpreter.endswith("\r"):
        hint = (
            "its lines end with a carriage return, as on Windows, which is taken for a part of the"
            f" name; remove them: sed -i 's/\\r$//' {script}"
        )
    return InterpreterMissingError(
        f"{error.message}, {describe(interpreter)}", hint=hint, exit_code=error.exit_code
    )


def _sent_file(job: Job[MachineTask], task: MachineTask) -> Path | None:
    """Return the host's file that is the program of `task` in the guest, if an input brings it."""
    path = PurePosixPath(os.path.normpath(PurePosixPath(task.directory or ".", task.argv[0])))
    for item in (*job.inputs, *task.inputs):
        if path.is_relative_to(item.destination):
            return job.directory / item.source / path.relative_to(item.destination)
    return None


def _interpreter_of(script: Path) -> str | None:
    try:
        with open_regular(script) as file:
            match = _LINE.match(file.read(_LONGEST))
    except OSError:  # it has gone since it was sent
        return None
    return None if match is None else os.fsdecode(match[1])
