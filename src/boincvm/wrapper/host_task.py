"""One task that runs on the host: a program and all that comes of it, with a guard over it."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import boincvm
from boincvm.errors import (
    BoincvmError,
    HostError,
    InputFileError,
    OutputFileError,
    ProgramStartError,
)
from boincvm.exit_codes import ExitCode
from boincvm.process_tree import children, descendants, send, signal_tree, stop_round, usage
from boincvm.processes import quiet_environment
from boincvm.wrapper.worker import Worker, WorkerEnd

GRACE = 2.0
"""Seconds that a program has to end by itself after SIGTERM, before SIGKILL."""
_KILL_LIMIT = 2.5
_START_LIMIT = 30.0
_MOST_WORDS = 4096
_STOP_PAUSES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
_GUARD = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    " from boincvm.wrapper.task_guard import main; main(int(sys.argv[2]))"
)


class HostTask(Worker):
    """Made by `start`. The task ends when its program does; what that leaves behind is killed.

    Should this process die, be it by SIGKILL, the guard (task_guard.py) ends all of it.
    """

    def __init__(
        self,
        guard: subprocess.Popen[bytes],
        control: socket.socket,
        program: int,
        words: bytes,
        *,
        stop_signal: int,
        stops_all: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._guard = guard
        self._control = control
        self._program = program
        self._words = words
        self._stop_signal = stop_signal
        self._stops_all = stops_all
        self._cpu_time = 0.0
        self._end: asyncio.Future[WorkerEnd] = loop.create_future()
        control.setblocking(False)
        loop.add_reader(control, self._listen)

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        stdin: Path | None,
        stdout: Path | None,
        stderr: Path | None,
        multi_process: bool,
        use_tstp: bool = False,
        nice: int | None = None,
    ) -> Self:
        """Returns when the program runs. `argv[0]` is its path; PATH is not searched.

        The environment is all that the program gets. Output files are appended to; without
        them the program shares our streams; its input is empty without a file. `nice`: see
        priority.py. Suspending stops all processes of the task; but with `use_tstp` the
        program is told by SIGTSTP, and only with `multi_process` the others too: it may
        handle the signal and see to them itself. Raises ProgramStartError, InputFileError,
        OutputFileError, HostError.
        """
        request = _request(argv, directory, environment, nice)
        with ExitStack() as stack:
            streams = _open_streams(stack, stdin, stdout, stderr)
            ours, its = socket.socketpair()
            with its:
                guard = _start_guard(its, *streams)
        try:
            program, words = _ask(ours, request, argv[0], directory)
        except BaseException:
            ours.close()
            guard.kill()
            guard.wait()
            raise
        return cls(
            guard,
            ours,
            program,
            words,
            stop_signal=signal.SIGTSTP if use_tstp else signal.SIGSTOP,
            stops_all=multi_process or not use_tstp,
        )

    @property
    def process_id(self) -> int:
        return self._program

    async def wait(self) -> WorkerEnd:
        return await asyncio.shield(self._end)

    async def suspend(self) -> None:
        if not self._stops_all:
            if self._program in children(self._guard.pid):
                send(self._program, self._stop_signal)
            return
        told: set[int] = set()
        # The kernel has no event for "all stand still"; usually the second look finds it so.
        # One that cannot stop now, on a dead network file system say, will when it goes on.
        for pause in _STOP_PAUSES:
            if self._end.done() or stop_round(self._guard.pid, self._stop_signal, told):
                return
            await asyncio.sleep(pause)

    async def resume(self) -> None:
        if not self._end.done():
            signal_tree(self._guard.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """The program is asked by SIGTERM first, as BOINC's wrapper does it: it may want to
        write a checkpoint. All that is left after GRACE seconds is killed."""
        if not self._end.done() and self._program in children(self._guard.pid):
            send(self._program, signal.SIGTERM)
            signal_tree(self._guard.pid, signal.SIGCONT)  # what is stopped cannot act on it
            await self._ends_within(GRACE)
        if not self._end.done():
            self._control.shutdown(socket.SHUT_WR)
            send(self._guard.pid, signal.SIGCONT)
            if not await self._ends_within(_KILL_LIMIT):
                raise HostError(
                    f"{sum(1 for _ in descendants(self._guard.pid))} processes of the task do"
                    " not end, although they were killed",
                    hint="they wait for a disk or a network file system that does not answer",
                )

    async def _ends_within(self, seconds: float) -> bool:
        done, _ = await asyncio.wait([self._end], timeout=seconds)
        return bool(done)

    def cpu_time(self) -> float:
        if not self._end.done():
            self._cpu_time = max(self._cpu_time, usage(self._guard.pid)[0])
        return self._cpu_time

    def resident(self) -> int:
        return 0 if self._end.done() else usage(self._guard.pid)[1]

    def _listen(self) -> None:
        try:
            data = self._control.recv(_MOST_WORDS)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self._words += data
        if not data:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._guard.wait()
            self._end.set_result(self._conclude())

    def _conclude(self) -> WorkerEnd:
        words = self._words.split()
        if len(words) != 3:
            # Somebody killed the guard: the kernel kills the program, and here goes its session.
            with suppress(ProcessLookupError):
                os.killpg(self._program, signal.SIGKILL)
            return WorkerEnd(None, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(int(words[1]))
        self._cpu_time = max(self._cpu_time, float(words[2]))
        return WorkerEnd(code, None) if code >= 0 else WorkerEnd(None, -code)


def _request(
    argv: Sequence[str], directory: Path, environment: Mapping[str, str], nice: int | None
) -> bytes:
    pairs = [f"{name}={value}" for name, value in environment.items()]
    places = [str(directory.absolute()), str(Path(argv[0]).absolute())]
    fields = [os.fsencode(field) for field in (*places, *argv, *pairs)]
    if any(b"\0" in field for field in fields):
        raise ProgramStartError("an argument or an environment variable holds a zero byte")
    body = b"\0".join(fields)
    return f"{len(body)} {len(argv)} {'-' if nice is None else nice}\n".encode() + body


def _open_streams(
    stack: ExitStack, stdin: Path | None, stdout: Path | None, stderr: Path | None
) -> tuple[int, int | None, int | None]:
    def opened(path: Path, flags: int) -> int:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
        stack.callback(os.close, descriptor)
        return descriptor

    def output(path: Path | None) -> int | None:
        if path is None:
            return None
        try:
            return opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        except OSError as error:
            raise OutputFileError(f"{path} cannot be written: {error.strerror}") from error

    try:
        source = subprocess.DEVNULL if stdin is None else opened(stdin, os.O_RDONLY)
    except OSError as error:
        raise InputFileError(f"{stdin} cannot be read: {error.strerror}") from error
    return source, output(stdout), output(stderr)


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
