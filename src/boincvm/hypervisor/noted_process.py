"""The process that runs a machine, recorded so that others find it after its maker has ended."""

import os
import select
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from boincvm.host.files import read_regular
from boincvm.host.process_tree import KILL, command_line, send
from boincvm.host.processes import kill_opened, open_process

_FILE = "process"
"""In the machine's directory: the process id, in decimal."""


def note_process(directory: Path, process: int) -> None:
    """Note which process runs the machine. Raises OSError."""
    (directory / _FILE).write_text(str(process))


def kill_noted_process(directory: Path, name: str, limit: float) -> None:
    """Kill the noted process and wait for its end, at most `limit` seconds.

    Its id may be another process's by now: it is the machine's only if the machine's `name` is on
    its command line. Raises OSError.
    """
    try:
        noted = read_regular(directory / _FILE, 16)
    except FileNotFoundError:
        return
    word = os.fsencode(name)

    def is_machine(arguments: list[bytes]) -> bool:
        return any(word in argument for argument in arguments)

    if noted.isdigit():
        kill_process(int(noted), is_machine, limit)


def kill_process(process: int, is_meant: Callable[[list[bytes]], bool], limit: float) -> None:
    """Kill a process with such a command line, and wait for its end, at most `limit` seconds.

    Its id may be another process's by now, or any moment later: so it is opened before its command
    line is read, and what was opened is killed. Raises PermissionError.
    """
    try:
        handle = open_process(process)
    except ProcessLookupError:
        return
    if handle is None:
        if is_meant(command_line(process)):
            send(process, KILL)
        return
    try:
        if is_meant(command_line(process)):
            with suppress(ProcessLookupError):
                kill_opened(handle)
            select.select([handle], [], [], limit)
    finally:
        os.close(handle)
