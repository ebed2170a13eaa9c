"""Start a program's first process."""

from __future__ import annotations

import _posixsubprocess  # `subprocess` itself would bring in threading and much else
import fcntl
import posix as os  # see __init__.py

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boincvm_agent.control_group import ControlGroup
    from boincvm_agent.prepared import Prepared

CHUNK = 1 << 18
"""The capacity of a pipe in bytes."""
_PATH = b"/bin:/usr/bin"
_NO_ENTRY = 2  # ENOENT of errno.h; importing the module `errno` takes long


class CannotStartError(Exception):
    """A program could not be started.

    `number` is from errno.h; `where` is "agent", "directory", "program" or "interpreter".
    """

    def __init__(self, number: int, where: str) -> None:
        super().__init__(number, where)
        self.number = number
        self.where = where


class Pipes:
    """Pipes for a process's three streams, and a fourth for its report that it cannot execute.

    Each has the process's end and ours, and is closed on exec. Our ends of the first three are
    non-blocking. Raises OSError.
    """

    def __init__(self) -> None:
        self._made: list[int] = []
        try:
            self.stdin, self.stdout, self.stderr, self.failure = [self._make() for _ in range(4)]
        except OSError:
            self.close()
            raise
        self.theirs = (self.stdin[0], self.stdout[1], self.stderr[1], self.failure[1])
        for descriptor in (self.stdin[1], self.stdout[0], self.stderr[0]):
            os.set_blocking(descriptor, False)
        fcntl.fcntl(self.stdout[0], fcntl.F_SETPIPE_SZ, CHUNK)

    def _make(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self._made += ends
        return ends

    def leave(self) -> None:
        """Close the process's ends in this process."""
        for descriptor in self.theirs:
            os.close(descriptor)
            self._made.remove(descriptor)

    def close(self) -> None:
        """Close all ends that are open."""
        for descriptor in self._made:
            os.close(descriptor)
        self._made.clear()


class Process:
    """A process that has executed its program; its owner closes `pipes`."""

    def __init__(self, pid: int, group: ControlGroup, pipes: Pipes) -> None:
        self.pid = pid
        self.group = group
        self.pipes = pipes


def start(
    prepared: Prepared, directory: bytes, argv: list[bytes], environment: list[bytes]
) -> Process:
    """Start a program in a control group and a session of its own.

    `environment`: NAME=VALUE each. Raises CannotStartError, OSError.
    """
    group = prepared.take_group()
    try:
        process = _spawn(group, prepared.take_pipes(), directory, argv, environment)
    except OSError:
        group.remove()
        raise
    failure = process.pipes.failure[0]
    report = _read_all(failure)  # its other end is closed by a successful exec
    if report:
        os.waitpid(process.pid, 0)
        process.pipes.close()
        process.group.remove()
        raise _start_error(report, directory, _executables(argv[0], environment))
    os.close(failure)
    return process


def _spawn(
    group: ControlGroup,
    pipes: Pipes,
    directory: bytes,
    argv: list[bytes],
    environment: list[bytes],
) -> Process:
    """Start a child; return once it has executed, or has reported why it could not.

    It uses vfork, as `subprocess` does: under emulation copying an interpreter's page tables takes
    longer than starting a small program. The child may run no code of its own, so the agent enters
    the control group in its place, and leaves it again.
    """
    try:
        group.enter()
        try:
            pid = _posixsubprocess.fork_exec(
                argv,
                _executables(argv[0], environment),
                False,  # descriptors: all of ours close themselves
                (),
                directory,  # type: ignore[arg-type]  # a path, as bytes too
                environment,
                *pipes.stdin,
                *pipes.stdout,
                *pipes.stderr,
                *pipes.failure,
                True,  # signals that Python ignores: as they were
                True,  # a session of its own
                # Process group, group, groups, user, mask: as they are; nothing of Python's runs.
                -1,
                None,
                None,
                None,
                -1,
                None,  # type: ignore[arg-type]  # what `subprocess` gives too
                True,  # vfork
            )
        finally:
            group.leave()
        pipes.leave()
    except OSError:
        pipes.close()
        raise
    return Process(pid, group, pipes)


def _executables(name: bytes, environment: list[bytes]) -> list[bytes]:
    """Return the paths to try for `name`. (`os.get_exec_path` would import `warnings`.)"""
    if b"/" in name:
        return [name]
    path = _PATH
    for pair in environment:
        if pair.startswith(b"PATH="):
            path = pair[5:]
    return [folder + b"/" + name for folder in path.split(b":")]


def _start_error(report: bytes, directory: bytes, tried: list[bytes]) -> CannotStartError:
    """Return the error for a child's report.

    `report` is "KIND:ERRNO:" with errno in hexadecimal, followed by "noexec" if something other
    than exec failed (CPython's Modules/_posixsubprocess.c). `tried`: paths of the program.
    """
    _, number, detail = report.split(b":", 2)
    error = int(number, 16)
    where = "directory" if detail else "program"
    if not detail and error == _NO_ENTRY:
        for path in tried:
            if os.access(path if path.startswith(b"/") else directory + b"/" + path, os.F_OK):
                where = "interpreter"
    return CannotStartError(error, where)


def _read_all(descriptor: int) -> bytes:
    data = b""
    while piece := os.read(descriptor, 4096):
        data += piece
    return data
