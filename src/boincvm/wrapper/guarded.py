"""A program on the host with a guard over it (task_guard.py): how it starts, and how it ended."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import boincvm
from boincvm.errors import BoincvmError, HostError, ProgramStartError
from boincvm.exit_codes import ExitCode
from boincvm.processes import quiet_environment

_START_LIMIT = 30.0
_MOST_WORDS = 4096
_GUARD = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    " from boincvm.wrapper.task_guard import main; main(int(sys.argv[2]))"
)


class Guarded(NamedTuple):
    """control: where the guard's words come, non-blocking; to end its writing side is to kill all
    that came of the program. program: its process id, and that of its group and session. words:
    what the guard has said already."""

    guard: subprocess.Popen[bytes]
    control: socket.socket
    program: int
    words: bytes


class GuardedEnd(NamedTuple):
    """`code`, or `signal` if one killed it. Seconds of all its processes, and the bytes of memory
    of the largest one (the guard's own few MiB at least)."""

    code: int | None
    signal: int | None
    user_time: float = 0.0
    system_time: float = 0.0
    largest: int = 0


def start_guarded(
    program: Path,
    argv: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    streams: tuple[int, int | None, int | None],
    nice: int | None = None,
) -> Guarded:
    """Returns when it runs, some 15 ms later. `streams`: standard input, output and error; None
    is our own. Raises ProgramStartError, HostError."""
    request = _request(program, argv, directory, environment, nice)
    ours, its = socket.socketpair()
    with its:
        try:
            guard = _start_guard(its, *streams)
        except BaseException:
            ours.close()
            raise
    try:
        started, words = _ask(ours, request, str(program), directory)
    except BaseException:
        ours.close()
        guard.kill()
        guard.wait()
        raise
    ours.setblocking(False)
    return Guarded(guard, ours, started, words)


def guarded_end(program: int, words: bytes) -> GuardedEnd:
    """`words`: all that the guard has said."""
    said = words.split()
    if len(said) != 5:
        # Somebody killed the guard: the kernel kills the program, and here goes its session.
        with suppress(ProcessLookupError):
            os.killpg(program, signal.SIGKILL)
        return GuardedEnd(None, signal.SIGKILL)
    status, user, system, largest = said[1:]
    code = os.waitstatus_to_exitcode(int(status))
    used = float(user), float(system), int(largest) << 10
    return GuardedEnd(code, None, *used) if code >= 0 else GuardedEnd(None, -code, *used)


def _request(
    program: Path,
    argv: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    nice: int | None,
) -> bytes:
    pairs = [f"{name}={value}" for name, value in environment.items()]
    places = [str(directory.absolute()), str(program.absolute())]
    fields = [os.fsencode(field) for field in (*places, *argv, *pairs)]
    if any(b"\0" in field for field in fields):
        raise ProgramStartError("an argument or an environment variable holds a zero byte")
    body = b"\0".join(fields)
    return f"{len(body)} {len(argv)} {'-' if nice is None else nice}\n".encode() + body


def _start_guard(
    control: socket.socket, stdin: int, stdout: int | None, stderr: int | None
) -> subprocess.Popen[bytes]:
    package = str(Path(boincvm.__file__).parents[1])
    number = control.fileno()
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD, package, str(number)],
            cwd="/",
            env=quiet_environment(),
            pass_fds=[number],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    except OSError as error:
        raise HostError(f"no process can be started: {error.strerror}") from error


def _ask(
    control: socket.socket, request: bytes, program: str, directory: Path
) -> tuple[int, bytes]:
    """The program's process id, once it runs, and what the guard has said after that."""
    control.settimeout(_START_LIMIT)
    answer = b""
    try:
        control.sendall(request)
        while b"\n" not in answer and (data := control.recv(_MOST_WORDS)):
            answer += data
    except OSError as error:
        raise HostError(f"the guard of {program} does not answer: {error}") from error
    line, _, words = answer.partition(b"\n")
    match line.split():
        case [b"started", pid]:
            return int(pid), words
        case [b"failed", where, number]:
            raise _start_error(program, directory, where.decode(), int(number))
    raise HostError(f"the guard of {program} ended before it had started it")


def _start_error(program: str, directory: Path, where: str, number: int) -> BoincvmError:
    reason = os.strerror(number)
    if where == "guard":
        return HostError(f"{program} cannot be started: {reason}")
    if where == "directory":
        return ProgramStartError(
            f"{program} cannot start in {directory}: {reason}",
            exit_code=ExitCode.CANNOT_EXECUTE,
        )
    if number == errno.ENOENT and not Path(program).exists():
        return ProgramStartError(f"there is no program {program}")
    advice = {
        errno.ENOENT: "the interpreter that its #! line, or the ELF file, names is missing",
        errno.EACCES: f"make it executable: chmod +x {program}",
        errno.ENOEXEC: "a script needs a #! line; a program must be for this system",
        errno.E2BIG: "its arguments and environment are too large",
    }.get(number, "")
    return ProgramStartError(
        f"{program} cannot be executed: {reason}", hint=advice, exit_code=ExitCode.CANNOT_EXECUTE
    )
