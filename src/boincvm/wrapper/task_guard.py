"""The parent of a task's program on the host: a small process of its own between us and it.

It is a child subreaper (prctl(2)), so no process that comes of the program can leave its tree,
and it kills all of them when the program has ended, when the wrapper asks for it, and when the
wrapper dies, be it by SIGKILL: each time the other end of `control` closes.

On `control`, a stream socket. From the wrapper:

    BYTES ARGUMENTS NICE\\n       NICE: the nice value of the program, or `-` for ours
    directory, path of the program, ARGUMENTS arguments, NAME=VALUE …: BYTES bytes, NUL between

To the wrapper, lines:

    started PID
    failed WHERE ERRNO            WHERE: guard, directory or program; it is the last line
    ended STATUS USER SYSTEM KIB  STATUS as wait(2) gives it; seconds of CPU time of all, and
                                  the memory of the largest one; the last line

Python that starts in 12 ms: no `signal` (which has enum), no `socket`, no `subprocess`.
"""

from __future__ import annotations

import _signal
import ctypes
import errno
import os
import resource
import select

from boincvm.process_tree import signal_tree

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_READ_SIZE = 1 << 16


def main(control: int) -> None:
    """Does all of it and ends the process; `control` is an inherited descriptor."""
    os.set_inheritable(control, False)
    wake = _note_ended_children()
    try:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        program = _start(*_request(control))
    except _CannotStartError as error:
        _say(control, f"failed {error.where} {error.number}")
        os._exit(0)
    except OSError as error:
        _say(control, f"failed guard {error.errno}")
        os._exit(0)
    _let_go_of_streams()
    _say(control, f"started {program}")
    status = _end_all(program, _watch(control, wake, program))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    _say(control, f"ended {status} {used.ru_utime:.6f} {used.ru_stime:.6f} {used.ru_maxrss}")
    os._exit(0)  # nothing to tidy: an ordinary exit would take longer


class _CannotStartError(Exception):
    def __init__(self, where: str, number: int) -> None:
        super().__init__(where, number)
        self.where = where
        self.number = number


def _note_ended_children() -> int:
    """A descriptor that becomes readable when a child ends; other signals pass us by."""
    wake, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    _signal.set_wakeup_fd(woken)
    for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, _signal.SIG_IGN)
    return wake


def _prctl(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    rest = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    if library.prctl(option, *rest) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _request(control: int) -> tuple[bytes, bytes, list[bytes], dict[bytes, bytes], int | None]:
    data = b""
    while b"\n" not in data:
        data += _read(control)
    head, _, body = data.partition(b"\n")
    size, arguments, nice = head.split()
    while len(body) < int(size):
        body += _read(control)
    directory, path, *rest = body.split(b"\0")
    count = int(arguments)
    pairs = (pair.partition(b"=") for pair in rest[count:])
    environment = {name: value for name, _, value in pairs}
    return directory, path, rest[:count], environment, None if nice == b"-" else int(nice)


def _read(control: int) -> bytes:
    data = os.read(control, _READ_SIZE)
    if not data:
        os._exit(0)  # the wrapper has gone before it had said what to do
    return data


def _start(
    directory: bytes,
    path: bytes,
    argv: list[bytes],
    environment: dict[bytes, bytes],
    nice: int | None,
) -> int:
    """The program's process id, once it is the program."""
    failure, failed = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(directory, path, argv, environment, nice, failed)
    os.close(failed)
    reason = os.read(failure, 100)
    os.close(failure)
    if reason:
        os.waitpid(pid, 0)
        where, number = reason.decode().split()
        raise _CannotStartError(where, int(number))
    return pid


def _become(
    directory: bytes,
    path: bytes,
    argv: list[bytes],
    environment: dict[bytes, bytes],
    nice: int | None,
    failed: int,
) -> None:
    where = "guard"
    try:
        os.setsid()  # by which the wrapper finds it should somebody kill the guard
        _prctl(_PR_SET_PDEATHSIG, _signal.SIGKILL)
        if nice is not None:
            _set_nice(nice)
        where = "directory"
        os.chdir(directory)
        where = "program"
        for number in (
            _signal.SIGHUP,
            _signal.SIGINT,
            _signal.SIGTERM,
            _signal.SIGPIPE,
            _signal.SIGXFSZ,
        ):
            _signal.signal(number, _signal.SIG_DFL)
        os.execve(path, argv, environment)  # noqa: S606 - no shell: that is the point
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None) or errno.EINVAL
        os.write(failed, f"{where} {number}".encode())
    finally:
        os._exit(127)


def _set_nice(nice: int) -> None:
    try:  # noqa: SIM105 - contextlib takes its time
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except PermissionError:
        pass  # only root may raise a priority; BOINC's wrapper goes on with the one it has


def _let_go_of_streams() -> None:
    """The program's streams are its own: whoever reads one must see its end."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)


def _say(control: int, line: str) -> None:
    try:  # noqa: SIM105
        os.write(control, line.encode() + b"\n")
    except BrokenPipeError:
        pass  # the wrapper has died; its program is dealt with all the same


def _watch(control: int, wake: int, program: int) -> int | None:
    """Until the program has ended: its status; or until the wrapper wants an end, or has had
    its own: None."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == control:
                return None
            os.read(wake, _READ_SIZE)
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == program:
                return ended[1]


def _end_all(program: int, status: int | None) -> int:
    """Kills all that is below us and waits for it. The program's status: `status` if known."""
    while True:
        # Orphans of those that end become our children, so each round finds what is left.
        signal_tree(os.getpid(), _signal.SIGKILL)
        try:
            ended = os.waitpid(-1, 0)
        except ChildProcessError:
            return _signal.SIGKILL if status is None else status
        if ended[0] == program:
            status = ended[1]
