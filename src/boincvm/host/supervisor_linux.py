"""The supervisor of a task's program on the host: a small process between the wrapper and it.

It is a child subreaper (prctl(2)), so no descendant of the program can leave its tree. It kills
all of them when the program has ended, when the wrapper asks for it, and when the wrapper dies,
even by SIGKILL: in the last two cases the other end of `control` closes. A program that is asked
to end (`end`) gets SIGTERM, and its remaining descendants then get it too, instead of SIGKILL.

`control` is a stream socket. From the wrapper come:

    BYTES ARGUMENTS NICE\\n       NICE: the nice value of the program, or `-` for ours
    directory, path of the program, standard input, output and error, ARGUMENTS arguments,
    NAME=VALUE …: BYTES bytes, separated by NULs
    end\\n                         ask the program to end by itself; at most once

A stream is an absolute path, the number of an inherited descriptor, or nothing: /dev/null. The
program's own process opens the paths, so only the program blocks where one is a FIFO whose other
end nobody has opened yet, or a slow device. The supervisor's own streams are /dev/null.

To the wrapper go lines:

    started PID                   the program runs, or waits for a stream
    failed WHERE ERRNO            WHERE: guard, directory, stdin, stdout, stderr or program;
                                  replaces `started` or, if it waited, `ended`
    ended STATUS USER SYSTEM KIB  STATUS as of wait(2); CPU seconds of all processes, memory
                                  of the largest one; always the last line

To start in 12 ms it imports no `signal` (which has enum), no `socket`, no `subprocess`.
"""

from __future__ import annotations

import _signal
import ctypes
import errno
import os
import resource
import select
import stat
import sys

assert sys.platform == "linux"

from boincvm.host.inherited import reset_inherited_state
from boincvm.host.process_tree_linux import send, signal_tree

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_READ_SIZE = 1 << 16
_STREAMS = ("stdin", "stdout", "stderr")
_WAITING = b"waiting "
_LONGEST_REASON = 100


def main(control: int) -> None:
    """Supervise one program as told on the inherited descriptor `control`, and end the process."""
    os.set_inheritable(control, False)
    reset_inherited_state()
    try:
        _guard(control)
    except _CannotStartError as error:
        _send(control, b"failed " + error.reason)
    except OSError as error:
        _send(control, b"failed guard %d" % (error.errno or errno.EIO))
    finally:
        os._exit(0)  # nothing to clean up; an ordinary exit takes longer


def _guard(control: int) -> None:
    wake = _note_ended_children()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    request = _request(control)
    inherited = {int(stream) for stream in request.streams if stream.isdigit()}
    for descriptor in inherited:
        os.set_inheritable(descriptor, False)
    program, failure = _start(request)
    for descriptor in inherited:
        os.close(descriptor)  # or its reader would never see its end
    _send(control, b"started %d" % program)
    watch = _Watch(control, wake, program, failure)
    watch.until_end()
    status = _end_all(program, watch.status)
    if watch.reason:
        raise _CannotStartError(watch.reason)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    times = f"{used.ru_utime:.6f} {used.ru_stime:.6f} {used.ru_maxrss}"
    _send(control, f"ended {status} {times}".encode())


class _CannotStartError(Exception):
    """The program cannot be started; `reason` is `WHERE ERRNO`."""

    def __init__(self, reason: bytes) -> None:
        super().__init__(reason)
        self.reason = reason


class _Request:
    """A request of the wrapper. (A named tuple would import `collections`.)"""

    __slots__ = ("argv", "directory", "environment", "nice", "path", "streams")

    def __init__(self, head: bytes, body: bytes) -> None:
        """Parse a request; `body` is everything between the NULs."""
        _, arguments, nice = head.split()
        self.directory, self.path, *rest = body.split(b"\0")
        self.streams, rest = rest[:3], rest[3:]
        self.argv = rest[: int(arguments)]
        pairs = (pair.partition(b"=") for pair in rest[int(arguments) :])
        self.environment = {name: value for name, _, value in pairs}
        self.nice = None if nice == b"-" else int(nice)


def _note_ended_children() -> int:
    """Return a descriptor that becomes readable when a child ends; ignore termination signals."""
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


def _request(control: int) -> _Request:
    data = b""
    while b"\n" not in data:
        data += _read(control)
    head, _, body = data.partition(b"\n")
    size = int(head.split()[0])
    while len(body) < size:
        body += _read(control)
    return _Request(head, body)


def _read(control: int) -> bytes:
    data = os.read(control, _READ_SIZE)
    if not data:
        os._exit(0)  # the wrapper died before it sent a request
    return data


def _start(request: _Request) -> tuple[int, int]:
    """Fork the program; return its process id once it runs or waits for a stream, and a descriptor.

    The descriptor tells why the program cannot start, or reaches its end when it has started.
    """
    failure, failed = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(request, failed)
    os.close(failed)
    reason = os.read(failure, _LONGEST_REASON).replace(_WAITING, b"")
    if reason:
        os.waitpid(pid, 0)
        raise _CannotStartError(reason)
    return pid, failure


def _become(request: _Request, failed: int) -> None:
    where = "guard"
    try:
        os.setsid()  # lets the wrapper find it if the supervisor is killed
        _prctl(_PR_SET_PDEATHSIG, _signal.SIGKILL)
        for number in (
            _signal.SIGHUP,
            _signal.SIGINT,
            _signal.SIGTERM,
            _signal.SIGPIPE,
            _signal.SIGXFSZ,
        ):
            _signal.signal(number, _signal.SIG_DFL)
        if request.nice is not None:
            _set_nice(request.nice)
        where = "directory"
        os.chdir(request.directory)
        for number, stream in enumerate(request.streams):
            where = _STREAMS[number]
            if stream:
                _connect(number, stream, failed)
        where = "program"
        os.execve(request.path, request.argv, request.environment)  # noqa: S606
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None) or errno.EINVAL
        os.write(failed, f"{where} {number}".encode())
    finally:
        os._exit(127)


def _connect(number: int, stream: bytes, failed: int) -> None:
    """Make `stream` the standard stream `number` (0 to 2)."""
    if stream.isdigit():
        os.dup2(int(stream), number)
        return
    flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND | os.O_CREAT
    try:
        mode = os.lstat(stream).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "")
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        os.write(failed, _WAITING)
    # Follow no link: the wrapper has checked where the path leads.
    flags |= os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(stream, flags, 0o666)
    os.dup2(descriptor, number)
    os.close(descriptor)


def _set_nice(nice: int) -> None:
    try:  # noqa: SIM105 - contextlib takes its time
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except PermissionError:
        pass  # only root may raise a priority; BOINC's wrapper keeps the one it has


def _send(control: int, line: bytes) -> None:
    try:  # noqa: SIM105
        os.write(control, line + b"\n")
    except BrokenPipeError:
        pass  # the wrapper has died; its program is still handled


class _Watch:
    """Watches the wrapper and the program while the program runs."""

    def __init__(self, control: int, wake: int, program: int, failure: int) -> None:
        self._control = control
        self._wake = wake
        self._program = program
        self._failure = failure
        self._is_terminating = False
        self._poll = select.poll()
        for descriptor in (control, wake, failure):
            self._poll.register(descriptor, select.POLLIN)
        self.status: int | None = None
        """The program's wait status, once it has ended."""
        self.reason = b""
        """Why the program could not start."""

    def until_end(self) -> None:
        """Wait until the program has ended, or the wrapper wants all killed or has died.

        If the program was asked to end, wait for all its descendants too.
        """
        while True:
            ends = [self._receive(descriptor) for descriptor, _ in self._poll.poll()]
            if any(ends) or self._reap():
                return

    def _receive(self, descriptor: int) -> bool:
        """Read what is there; return True if it means the end."""
        if descriptor == self._wake:
            os.read(descriptor, _READ_SIZE)
            return False
        if descriptor == self._failure:
            reason = os.read(descriptor, _LONGEST_REASON)
            if not reason:
                self._poll.unregister(descriptor)
            self.reason = reason.replace(_WAITING, b"")
            return bool(self.reason)
        if _wants_kill(self._control):
            return True
        self._is_terminating = True
        send(self._program, _signal.SIGTERM)
        signal_tree(os.getpid(), _signal.SIGCONT)  # a stopped process cannot react
        return False

    def _reap(self) -> bool:
        """Reap ended children; return True if none is left to wait for."""
        while True:
            try:
                pid, ended = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._program:
                self.status = ended
                if not self._is_terminating:
                    return True
                # A script dies of SIGTERM before the program that it waits for has got it.
                signal_tree(os.getpid(), _signal.SIGTERM)
                signal_tree(os.getpid(), _signal.SIGCONT)


def _wants_kill(control: int) -> bool:
    try:
        return not os.read(control, _READ_SIZE)
    except ConnectionError:
        return True


def _end_all(program: int, status: int | None) -> int:
    """Kill all descendants and wait for them; return the program's status (`status` if known)."""
    while True:
        # Orphans become our children, so each round finds what is left.
        signal_tree(os.getpid(), _signal.SIGKILL)
        try:
            ended = os.waitpid(-1, 0)
        except ChildProcessError:
            return _signal.SIGKILL if status is None else status
        if ended[0] == program:
            status = ended[1]
