"""One program that the host asked for: its processes, its three streams, its end."""

from __future__ import annotations

import _posixsubprocess  # `subprocess` itself would bring in threading and much else
import fcntl
import posix as os  # see __init__.py

from boincvm_agent.machine import disk_free

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boincvm_agent.link import Link
    from boincvm_agent.stock import Stock
    from boincvm_agent.voice import Voice

CHUNK = 1 << 18
_PATH = b"/bin:/usr/bin"
_NO_ENTRY = 2  # ENOENT of errno.h; the module that has them all is long in coming
STDIN_CREDIT = 1 << 16
"""How many bytes of standard input the host may send before the program has read any."""


class CannotStartError(Exception):
    """`number`: why, of errno.h; `where`: "agent", "directory", "program" or "interpreter"."""

    def __init__(self, number: int, where: str) -> None:
        super().__init__(number, where)
        self.number = number
        self.where = where


class Program:
    """Started by the constructor. Raises CannotStartError.

    The program may send `credit` bytes of output before the host grants more. What it says by
    `voice` is a third stream of it. `reports_usage` is for whoever sends the heart-beats.
    """

    def __init__(
        self,
        link: Link,
        stock: Stock,
        call: str,
        directory: bytes,
        argv: list[bytes],
        environment: dict[bytes, bytes],
        credit: int,
        voice: Voice | None = None,
        *,
        reports_usage: bool = False,
    ) -> None:
        self.call = call
        self.directory = directory
        self.reports_usage = reports_usage
        self._link = link
        self._stock = stock
        self._credit = credit
        self._stdin = -1
        self._input: list[bytes] = []
        self._input_ends = False
        self.outputs: dict[int, str] = {}
        self._ended: tuple[int, int] | None = None
        self._voice = voice
        try:
            self._kills_before = stock.out_of_memory_kills()
            self._group = stock.take_group()
        except OSError as error:
            raise CannotStartError(error.errno or 0, "agent") from None
        try:
            self.pid = self._start(directory, argv, environment)
        except OSError as error:
            self._group.remove()
            raise CannotStartError(error.errno or 0, "agent") from None
        except CannotStartError:
            self._group.remove()
            raise
        if voice is not None:
            self.outputs[voice.descriptor] = "voice"

    def _start(self, directory: bytes, argv: list[bytes], environment: dict[bytes, bytes]) -> int:
        # For each stream the child's end and ours; the last tells why the child failed.
        pipes: list[tuple[int, int]] = []
        try:
            pipes.extend(os.pipe2(os.O_CLOEXEC) for _ in range(4))
            stdin, stdout, stderr, failure = pipes
            pid = self._spawn(directory, argv, environment, pipes)
        except OSError:
            for descriptors in pipes:
                _close(*descriptors)
            raise
        _close(stdin[0], stdout[1], stderr[1], failure[1])
        report = _read_all(failure[0])  # its other end is closed by a successful exec
        os.close(failure[0])
        if report:
            os.waitpid(pid, 0)
            _close(stdin[1], stdout[0], stderr[0])
            raise _start_error(report, directory, argv[0])
        for descriptor in (stdin[1], stdout[0], stderr[0]):
            os.set_blocking(descriptor, False)
        fcntl.fcntl(stdout[0], fcntl.F_SETPIPE_SZ, CHUNK)
        self._stdin = stdin[1]
        self.outputs = {stdout[0]: "stdout", stderr[0]: "stderr"}
        return pid

    def _spawn(
        self,
        directory: bytes,
        argv: list[bytes],
        environment: dict[bytes, bytes],
        pipes: list[tuple[int, int]],
    ) -> int:
        """A child that has executed, or has written to the last of `pipes` why it could not.

        By vfork, as `subprocess` does it: under emulation copying an interpreter's page tables
        takes longer than starting a small program. So the agent goes into the control group
        in the child's place, for it may run nothing of its own, and comes out again.
        """
        stdin, stdout, stderr, failure = pipes
        self._group.enter()
        try:
            return _posixsubprocess.fork_exec(
                argv,
                _executables(argv[0], environment),
                False,  # descriptors: all of ours close themselves
                (),
                directory.decode(errors="surrogateescape"),
                [name + b"=" + value for name, value in environment.items()],
                *stdin,
                *stdout,
                *stderr,
                *failure,
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
            self._group.leave()

    @property
    def stdin_waiting(self) -> int:
        """The descriptor to be watched for room, or -1."""
        return self._stdin if self._input or self._input_ends else -1

    @property
    def may_read(self) -> bool:
        """Whether the program's output may be read now; else the program waits."""
        return self._link.has_room and (self._credit > 0 or self._ended is not None)

    def grant(self, credit: int) -> None:
        """The host has room for that many more bytes of output."""
        self._credit += credit

    def feed(self, data: bytes, *, ends: bool) -> None:
        """Standard input, to be handed on as the program takes it."""
        if self._stdin < 0:
            return  # the program has closed it; what it does not want is dropped, as in a pipe
        if data:
            self._input.append(data)
        self._input_ends = self._input_ends or ends

    def write_input(self) -> None:
        """Hands on what the program takes now, and tells the host how much that was."""
        taken = 0
        try:
            while self._input:
                written = os.write(self._stdin, self._input[0])
                taken += written
                if written < len(self._input[0]):
                    self._input[0] = self._input[0][written:]
                else:
                    del self._input[0]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads it any more
            self._input_ends = True
            self._input.clear()
        if taken:
            self._link.send("taken", self.call, {"bytes": str(taken)})
        if self._input_ends and not self._input:
            self.close_input()

    def close_input(self) -> None:
        """The program sees the end of its standard input."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1
        self._input.clear()
        self._input_ends = False

    def read_output(self, descriptor: int) -> bool:
        """Sends on what the program has written; False at the stream's end."""
        try:
            data = os.read(descriptor, min(CHUNK, self._credit) if self._credit > 0 else CHUNK)
        except BlockingIOError:
            return True
        except OSError:  # a broken stream has ended
            data = b""
        if not data:
            os.close(descriptor)
            del self.outputs[descriptor]
            return False
        self._credit -= len(data)
        self._link.send(self.outputs[descriptor], self.call, {}, data)
        return True

    def signal(self, number: int) -> None:
        """To the program's whole session, as a terminal would; 9 reaches every descendant."""
        if self._ended is None:
            if number == 9:
                self._group.kill()
            else:
                try:
                    os.killpg(self.pid, number)
                except ProcessLookupError:
                    pass  # it has just ended

    def end(self, status: int, largest: int) -> None:
        """The first process has ended: `status` as of waitpid, `largest` its RSS in KiB.

        What it left behind is killed, or it could hold the streams open for ever.
        """
        self._ended = (status, largest)
        self._group.kill()
        self.close_input()
        if self._voice is not None:
            self._voice.end()

    @property
    def is_over(self) -> bool:
        """Ended, and all its output sent on."""
        return self._ended is not None and not self.outputs

    def report_usage(self) -> None:
        """Tells the host what the program has used so far."""
        user, system = self._group.cpu_time()
        resident = str(self._group.resident())
        headers = {"user-us": str(user), "system-us": str(system), "rss-kib": resident}
        self._link.send("usage", self.call, headers)

    def report(self) -> None:
        """Tells the host how the program ended."""
        status, largest = self._ended or (0, 0)
        user, system = self._group.cpu_time()
        headers = {
            "user-us": str(user),
            "system-us": str(system),
            "max-rss-kib": str(largest),
            "oom-kills": str(self._stock.out_of_memory_kills() - self._kills_before),
            "disk-free": str(disk_free()),
        }
        code = os.waitstatus_to_exitcode(status)
        headers["code" if code >= 0 else "signal"] = str(abs(code))
        self._link.send("exit", self.call, headers)

    def close(self) -> None:
        """Given up: lets go of the descriptors and kills what runs, as far as that works."""
        self.close_input()
        if self._voice is not None:
            self._voice.end()
        _close(*self.outputs)
        self.outputs.clear()
        try:
            self._group.kill()
        except OSError:
            pass  # the host ends the machine

    def clean_up(self) -> bool:
        """Takes the empty control group away; False while that is still to come."""
        return self._group.remove()


def _executables(name: bytes, environment: dict[bytes, bytes]) -> list[bytes]:
    """Where `name` may be, in order. (`os.get_exec_path` would bring in warnings.)"""
    if b"/" in name:
        return [name]
    path = environment.get(b"PATH", _PATH)
    return [folder + b"/" + name for folder in path.split(b":")]


def _start_error(report: bytes, directory: bytes, name: bytes) -> CannotStartError:
    """`report`: "KIND:ERRNO:", errno in hexadecimal, and "noexec" if it was not exec that failed
    (CPython's Modules/_posixsubprocess.c)."""
    _, number, detail = report.split(b":", 2)
    error = int(number, 16)
    where = "directory" if detail else "program"
    path = name if name.startswith(b"/") else directory + b"/" + name
    is_there = b"/" in name and os.access(path, os.F_OK)
    if not detail and error == _NO_ENTRY and is_there:
        where = "interpreter"
    return CannotStartError(error, where)


def _read_all(descriptor: int) -> bytes:
    data = b""
    while piece := os.read(descriptor, 4096):
        data += piece
    return data


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
