"""The processes of a task in their job object; import it through `task_processes`.

Windows has no SIGTERM for a program without a window or a console: like BOINC's wrapper there, we
end one that is to end at once.
"""

import asyncio
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from boincvm.errors import InputFileError, OutputFileError, ProgramStartError
from boincvm.exit_codes import ExitCode
from boincvm.host.supervised import Stream, SupervisedEnd

assert sys.platform == "win32"

from boincvm.host.process_tree_windows import KILL, own_usage
from boincvm.host.processes_windows import ChildProcess

_BAD_FORMAT = 193
_BATCH_FILES = (".bat", ".cmd")
_FOR_THE_SHELL = re.compile(r'[%^&|<>()!"\r\n]')
"""What cmd.exe, which reads a batch file's arguments, might take for more than a letter."""
_PRIORITIES = {
    19: subprocess.IDLE_PRIORITY_CLASS,
    10: subprocess.BELOW_NORMAL_PRIORITY_CLASS,
    -10: subprocess.ABOVE_NORMAL_PRIORITY_CLASS,
    -15: subprocess.HIGH_PRIORITY_CLASS,
}
"""The priority class for each nice value of BOINC's."""


class TaskProcesses:
    """One program and all that it starts; Windows ends all of them when this process ends."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        streams: tuple[Stream, Stream, Stream],
        nice: int | None,
        use_tstp: bool,
        multi_process: bool,
    ) -> None:
        """Start it; see HostProgram.start. There is no SIGTSTP: suspending stops all.

        Raises ProgramStartError, InputFileError, OutputFileError.
        """
        program = directory / argv[0]
        _check_batch_file(program, argv)
        with ExitStack() as held:
            stdin, stdout, stderr = (_open(*pair, held) for pair in enumerate(streams))
            try:
                self._child = ChildProcess(
                    argv,
                    program=program,
                    directory=directory,
                    environment=environment,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    priority=0 if nice is None else _PRIORITIES.get(nice, 0),
                )
            except ValueError as error:
                message = "an argument or an environment variable contains a NUL byte"
                raise ProgramStartError(message) from error
            except OSError as error:
                raise _start_error(argv[0], program, directory, error) from error
        self.program_id = self._child.pid
        self._is_suspended = False
        self._used = 0.0
        self.ended: asyncio.Future[SupervisedEnd] = asyncio.get_running_loop().create_future()
        """Done when the program and all of its processes have ended."""
        self._waits = asyncio.ensure_future(self._watch())

    async def suspend(self) -> None:
        """Suspend them: none computes when this returns. Calling it again is harmless."""
        if not self._is_suspended and not self.ended.done():
            self._is_suspended = True
            self._child.suspend()

    async def resume(self) -> None:
        """Resume them. Calling it again is harmless."""
        if self._is_suspended and not self.ended.done():
            self._is_suspended = False
            self._child.resume()

    def ask_to_end(self) -> bool:
        """Return False: they cannot be asked."""
        return False

    def kill(self) -> None:
        """Kill them; `ended` tells when they are gone."""
        self._child.kill()

    def count(self) -> int:
        """Return how many there are."""
        return len(self._child.process_ids())

    def usage(self) -> tuple[float, int]:
        """Return the CPU seconds of all that were there, and the resident bytes of those left."""
        resident = sum(own_usage(pid)[1] for pid in self._child.process_ids())
        return self._child.cpu_seconds(), resident

    async def _watch(self) -> None:
        """Wait for the program, and end what it leaves."""
        code = await self._child.wait()
        used = self._child.cpu_seconds()
        self._child.end()
        is_killed = code == -KILL
        self.ended.set_result(
            SupervisedEnd(None if is_killed else code, KILL if is_killed else None, used)
        )


def _check_batch_file(program: Path, argv: Sequence[str]) -> None:
    if program.suffix.lower() in _BATCH_FILES and any(map(_FOR_THE_SHELL.search, argv[1:])):
        raise ProgramStartError(
            f"{argv[0]} is a batch file, and an argument has a character that cmd.exe reads in"
            " another way",
            hint="start a program, or leave out % ^ & | < > ( ) ! and quotation marks",
            exit_code=ExitCode.CANNOT_EXECUTE,
        )


def _open(number: int, stream: Stream, held: ExitStack) -> BinaryIO | int | None:
    """Open a standard stream of a program. Raises InputFileError, OutputFileError."""
    if not isinstance(stream, Path):
        return stream
    try:
        return held.enter_context(stream.open("ab" if number else "rb"))
    except OSError as error:
        if number:
            raise OutputFileError(f"{stream} cannot be written: {error.strerror}") from error
        raise InputFileError(f"{stream} cannot be read: {error.strerror}") from error


def _start_error(name: str, program: Path, directory: Path, error: OSError) -> ProgramStartError:
    if not directory.is_dir():
        reason = "there is no such directory"
        return ProgramStartError(
            f"{name} cannot start in {directory}: {reason}", exit_code=ExitCode.CANNOT_EXECUTE
        )
    if isinstance(error, FileNotFoundError) and not program.exists():
        return ProgramStartError(f"there is no program {name}")
    advice = "it is not a program for Windows" if error.winerror == _BAD_FORMAT else ""
    return ProgramStartError(
        f"{name} cannot be executed: {error.strerror}",
        hint=advice,
        exit_code=ExitCode.CANNOT_EXECUTE,
    )
