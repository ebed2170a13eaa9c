"""A host program run under a supervisor (supervisor_linux.py): how it starts and ends."""

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
"""Seconds between SIGTERM and SIGKILL, as in BOINC's wrapper. The client waits 60 s for us in
all."""
ABORT_GRACE = 2.0
"""The same when the client aborts the task: nothing that the program saves is of use then."""
_HAS_SUPERVISOR = sys.platform == "linux"
_START_LIMIT = 30.0
_MOST_BYTES = 4096
_GUARD = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    " from boincvm.host.supervisor_linux import main; main(int(sys.argv[2]))"
)


Stream = int | Path | None
"""A standard stream of a program: a descriptor, subprocess.DEVNULL, None for our own, or a path.
The program's own process opens a path, so only the program blocks if that is a FIFO."""


class Attempt(NamedTuple):
    """What was to be started, for messages."""

    program: Path
    directory: Path
    streams: tuple[Stream, Stream, Stream]
    arguments: tuple[bytes, ...] = ()
    """The arguments and the environment."""

    def error(self, message: Sequence[bytes]) -> BoincvmError:
        """Return the error for the supervisor's message `failed WHERE ERRNO`."""
        where, number = message[1].decode(), int(message[2])
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
        advice = advice_for(number, str(self.program), self.arguments)
        return ProgramStartError(
            f"{self.program} cannot be executed: {reason}",
            hint=advice,
            exit_code=ExitCode.CANNOT_EXECUTE,
        )


class Supervised(NamedTuple):
    """A program that runs under a supervisor."""

    guard: subprocess.Popen[bytes]
    control: socket.socket
    """The non-blocking socket that the supervisor's messages come on; closing its writing side
    kills all processes of the program."""
    program: int
    """The program's process id, and that of its group and session."""
    received: bytes
    """What the supervisor has said already."""
    attempt: Attempt


class SupervisedEnd(NamedTuple):
    """How a program under a supervisor ended."""

    code: int | None
    signal: int | None
    """The signal that killed it."""
    user_time: float = 0.0
    """Seconds of all its processes."""
    system_time: float = 0.0
    """Seconds of all its processes."""
    largest: int = 0
    """Bytes of memory of its largest process, at least the supervisor's own few MiB."""


def start_supervised(
    program: Path,
    argv: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    streams: tuple[Stream, Stream, Stream],
    nice: int | None = None,
) -> Supervised:
    """Start a program under a supervisor; return when it runs or waits for a stream, in some 15 ms.

    `program` is relative to `directory`; `streams` are standard input, output and error.

    Raises ProgramStartError, InputFileError, OutputFileError, HostError.
    """
    if not _HAS_SUPERVISOR:
        raise not_yet("programs on the host under supervision")
    arguments = (*argv, *(f"{name}={value}" for name, value in environment.items()))
    attempt = Attempt(program, directory, streams, tuple(map(os.fsencode, arguments)))
    ours, its = socket.socketpair()
    with ExitStack() as stack:
        stack.enter_context(its)
        try:
            descriptors = [
                _descriptor(number, stream, stack) for number, stream in enumerate(streams)
            ]
            request = _request(program, argv, directory, environment, descriptors, nice)
            guard = _start_guard(
                its, [descriptor for descriptor in descriptors if isinstance(descriptor, int)]
            )
        except BaseException:
            ours.close()
            raise
    try:
        started, received = _ask(ours, request, attempt)
    except BaseException:
        ours.close()
        guard.kill()
        guard.wait()
        raise
    ours.setblocking(False)
    return Supervised(guard, ours, started, received, attempt)


def supervised_end(supervised: Supervised, messages: bytes) -> SupervisedEnd:
    """Return how the program ended, from all that the supervisor has said (`messages`).

    Raises what `start_supervised` raises, if the program waited for a stream and then could not
    start.
    """
    program = supervised.program
    fields = messages.split()
    if fields[:1] == [b"failed"]:
        raise supervised.attempt.error(fields)
    if len(fields) != 5:
        # The supervisor was killed: the kernel kills the program, we kill the rest of its group.
        with suppress(ProcessLookupError):
            kill_group(program)
        return SupervisedEnd(None, KILL)
    status, user, system, largest = fields[1:]
    code = os.waitstatus_to_exitcode(int(status))
    used = float(user), float(system), int(largest) << 10
    return SupervisedEnd(code, None, *used) if code >= 0 else SupervisedEnd(None, -code, *used)


def _descriptor(number: int, stream: Stream, stack: ExitStack) -> int | Path | None:
    """Return what the supervisor is told of a stream.

    It is a descriptor above 2, as its own 0 to 2 are not the program's; a path; or None for
    /dev/null.
    """
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
    paths = [str(directory.absolute()), str(program)]
    given = ["" if stream is None else str(stream) for stream in streams]
    fields = [os.fsencode(field) for field in (*paths, *given, *argv, *pairs)]
    if any(b"\0" in field for field in fields):
        raise ProgramStartError("an argument or an environment variable contains a NUL byte")
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
    """Send the request; return the running program's process id, and what was said after it."""
    control.settimeout(_START_LIMIT)
    answer = b""
    try:
        control.sendall(request)
        while b"\n" not in answer and (data := control.recv(_MOST_BYTES)):
            answer += data
    except OSError as error:
        raise HostError(f"the guard of {attempt.program} does not answer: {error}") from error
    line, _, rest = answer.partition(b"\n")
    match line.split():
        case [b"started", pid]:
            return int(pid), rest
        case [b"failed", *_] as message:
            raise attempt.error(message)
    raise HostError(f"the guard of {attempt.program} ended before it started the program")
