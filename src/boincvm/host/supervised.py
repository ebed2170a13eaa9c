"""A program on the host with a supervisor over it (supervisor_linux.py): how it starts and ends."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import boincvm
from boincvm.errors import (
    BoincvmError,
    HostError,
    InputFileError,
    OutputFileError,
    ProgramStartError,
)
from boincvm.exec_errors import advice_for
from boincvm.exit_codes import ExitCode
from boincvm.host.channels import duplicate_above_streams
from boincvm.host.not_yet import not_yet
from boincvm.host.process_tree import KILL
from boincvm.host.processes import kill_group
from boincvm.host.programs import quiet_environment

GRACE = 10.0
"""Seconds that a program has to end by itself after SIGTERM, before SIGKILL: as with BOINC's
wrapper. The client waits 60 s for all of us."""
ABORT_GRACE = 2.0
"""The same where the client aborts the task: nothing that it saves is of use."""
_HAS_SUPERVISOR = sys.platform == "linux"
_START_LIMIT = 30.0
_MOST_WORDS = 4096
_GUARD = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    " from boincvm.host.supervisor_linux import main; main(int(sys.argv[2]))"
)


Stream = int | Path | None
"""A standard stream of a program. A descriptor, /dev/null (subprocess.DEVNULL) or, None, our own;
a path is opened by the program's own process, which alone waits should it be a FIFO."""


class Attempt(NamedTuple):
    """What was to be started, for messages. `words`: arguments and environment."""

    program: Path
    directory: Path
    streams: tuple[Stream, Stream, Stream]
    words: tuple[bytes, ...] = ()

    def error(self, said: Sequence[bytes]) -> BoincvmError:
        """What the guard's words `failed WHERE ERRNO` mean."""
        where, number = said[1].decode(), int(said[2])
        reason = os.strerror(number)
        stdin, *outputs = self.streams
        match where:
            case "guard":
                return HostError(f"{self.program} cannot be started: {reason}")
            case "directory":
                return ProgramStartError(
                    f"{self.program} cannot start in {self.directory}: {reason}",
                    exit_code=ExitCode.CANNOT_EXECUTE,
                )
            case "stdin":
                return InputFileError(f"{stdin} cannot be read: {reason}")
            case "stdout" | "stderr":
                output = outputs[where == "stderr"]
                return OutputFileError(f"{output} cannot be written: {reason}")
        program = self.directory / self.program
        if number == errno.ENOENT and not program.exists():
            return ProgramStartError(f"there is no program {self.program}")
        advice = advice_for(number, str(self.program), self.words)
        return ProgramStartError(
            f"{self.program} cannot be executed: {reason}",
            hint=advice,
            exit_code=ExitCode.CANNOT_EXECUTE,
        )


class Supervised(NamedTuple):
    """control: where the guard's words come, non-blocking; to end its writing side is to kill all
    that came of the program. program: its process id, and that of its group and session. words:
    what the guard has said already."""

    guard: subprocess.Popen[bytes]
    control: socket.socket
    program: int
    words: bytes
    attempt: Attempt


class SupervisedEnd(NamedTuple):
    """`code`, or `signal` if one killed it. Seconds of all its processes, and the bytes of memory
    of the largest one (the guard's own few MiB at least)."""

    code: int | None
    signal: int | None
    user_time: float = 0.0
    system_time: float = 0.0
    largest: int = 0


def start_supervised(
    program: Path,
    argv: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    streams: tuple[Stream, Stream, Stream],
    nice: int | None = None,
) -> Supervised:
    """Returns when it runs or waits for a stream, some 15 ms later. `program` is relative to
    `directory`; `streams` are standard input, output and error.

    Raises ProgramStartError, InputFileError, OutputFileError, HostError.
    """
    if not _HAS_SUPERVISOR:
        raise not_yet("programs on the host under supervision")
    words = (*argv, *(f"{name}={value}" for name, value in environment.items()))
    attempt = Attempt(program, directory, streams, tuple(map(os.fsencode, words)))
    ours, its = socket.socketpair()
    with ExitStack() as stack:
        stack.enter_context(its)
        try:
            descriptors = [_descriptor(number, one, stack) for number, one in enumerate(streams)]
            request = _request(program, argv, directory, environment, descriptors, nice)
            guard = _start_guard(its, [one for one in descriptors if isinstance(one, int)])
        except BaseException:
            ours.close()
            raise
    try:
        started, said = _ask(ours, request, attempt)
    except BaseException:
        ours.close()
        guard.kill()
        guard.wait()
        raise
    ours.setblocking(False)
    return Supervised(guard, ours, started, said, attempt)


def supervised_end(supervised: Supervised, words: bytes) -> SupervisedEnd:
    """Tell how it ended. `words`: all that the supervisor has said. Raises what `start_supervised`
    raises: the program waited for a stream and could not start then."""
    program = supervised.program
    said = words.split()
    if said[:1] == [b"failed"]:
        raise supervised.attempt.error(said)
    if len(said) != 5:
        # Somebody killed the guard: the kernel kills the program, and here goes its session.
        with suppress(ProcessLookupError):
            kill_group(program)
        return SupervisedEnd(None, KILL)
    status, user, system, largest = said[1:]
    code = os.waitstatus_to_exitcode(int(status))
    used = float(user), float(system), int(largest) << 10
    return SupervisedEnd(code, None, *used) if code >= 0 else SupervisedEnd(None, -code, *used)


def _descriptor(number: int, stream: Stream, stack: ExitStack) -> int | Path | None:
    """What the guard is told of a stream: a descriptor above 2, for its own 0 to 2 are not the
    program's; a path; None for /dev/null."""
    if stream == subprocess.DEVNULL:
        return None
    if isinstance(stream, Path):
        return stream.absolute()
    descriptor = duplicate_above_streams(number if stream is None else stream)
    stack.callback(os.close, descriptor)
    return descriptor


def _request(
    program: Path,
    argv: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    streams: Sequence[int | Path | None],
    nice: int | None,
) -> bytes:
    pairs = [f"{name}={value}" for name, value in environment.items()]
    places = [str(directory.absolute()), str(program)]
    given = ["" if stream is None else str(stream) for stream in streams]
    fields = [os.fsencode(field) for field in (*places, *given, *argv, *pairs)]
    if any(b"\0" in field for field in fields):
        raise ProgramStartError("an argument or an environment variable holds a zero byte")
    body = b"\0".join(fields)
    return f"{len(body)} {len(argv)} {'-' if nice is None else nice}\n".encode() + body


def _start_guard(control: socket.socket, descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    package = str(Path(boincvm.__file__).parents[1])
    number = control.fileno()
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD, package, str(number)],
            cwd="/",
            env=quiet_environment(),
            pass_fds=[number, *descriptors],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise HostError(f"no process can be started: {error.strerror}") from error


def _ask(control: socket.socket, request: bytes, attempt: Attempt) -> tuple[int, bytes]:
    """The program's process id, once it runs, and what the guard has said after that."""
    control.settimeout(_START_LIMIT)
    answer = b""
    try:
        control.sendall(request)
        while b"\n" not in answer and (data := control.recv(_MOST_WORDS)):
            answer += data
    except OSError as error:
        raise HostError(f"the guard of {attempt.program} does not answer: {error}") from error
    line, _, words = answer.partition(b"\n")
    match line.split():
        case [b"started", pid]:
            return int(pid), words
        case [b"failed", *_] as said:
            raise attempt.error(said)
    raise HostError(f"the guard of {attempt.program} ended before it had started it")
