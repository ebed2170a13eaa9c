"""A program in the guest: started, fed, signalled, awaited."""

import asyncio
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from boincvm.bus.stomp import MAXIMUM_BODY, Frame, StompError
from boincvm.errors import BoincvmError, GuestDiedError, ProgramStartError
from boincvm.exit_codes import ExitCode
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.numbers import number
from boincvm.guestlink.reports import shown
from boincvm.sizes import format_size

WINDOW = 1 << 20
"""Bytes of output that the guest may send before the host has taken any."""
STDIN_WINDOW = 1 << 16
"""Bytes of standard input that may be on the way to a program that does not read."""

_LARGEST_ERRNO = 4095
_LARGEST_SIGNAL = 64

Output = Callable[[str, bytes], None]
"""Takes the name of the stream, "stdout" or "stderr", and what came on it."""


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """How a program ended: `code`, or `signal` if one killed it (the other is None).

    Times in seconds, of all its processes; `max_rss` in bytes, of the largest one;
    `out_of_memory_kills`: processes that the guest's kernel killed for want of memory
    meanwhile; `disk_free`: bytes left on the guest's disk.
    """

    code: int | None
    signal: int | None
    user_time: float
    system_time: float
    max_rss: int
    out_of_memory_kills: int
    disk_free: int


class GuestProgram:
    """Starts with the constructor. `on_stdin_room` is told how many bytes the program took."""

    def __init__(
        self,
        link: GuestLink,
        argv: Sequence[str],
        *,
        directory: str,
        environment: Mapping[str, str],
        output: Output,
        on_stdin_room: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._argv = argv
        self._output = output
        self._on_stdin_room = on_stdin_room
        self._name = shown(PurePosixPath(argv[0]))
        self._unanswered = WINDOW
        self._ungranted = 0
        self._untaken = 0
        self._end: asyncio.Future[ProgramEnd] = asyncio.get_running_loop().create_future()
        pairs = [f"{name}={value}" for name, value in environment.items()]
        body = b"\0".join(map(os.fsencode, [directory, *argv, *pairs]))
        if len(body) > MAXIMUM_BODY:
            raise ProgramStartError(
                f"arguments and environment are larger than {format_size(MAXIMUM_BODY)}",
                hint="write them to a file and hand it in with --input",
                exit_code=ExitCode.CANNOT_EXECUTE,
            )
        self._call = link.call(self._take)
        self._call.send("run", {"arguments": str(len(argv)), "credit": str(WINDOW)}, body)

    def _take(self, word: str, frame: Frame) -> None:
        if word in ("stdout", "stderr"):
            self._unanswered -= len(frame.body)
            if self._unanswered < -(1 << 18):  # what a pipe still holds comes without credit
                raise StompError("more output than was asked for")
            self._output(word, frame.body)
        elif word == "taken":
            count = number(frame.headers, "bytes", self._untaken)
            self._untaken -= count
            self._on_stdin_room(count)
        elif word == "exit":
            self._finish(_program_end(frame.headers))
        elif word == "failed":
            self._fail(_start_error(self._name, frame))
        elif word == "lost":
            reason = os.strerror(number(frame.headers, "reason", _LARGEST_ERRNO))
            self._fail(GuestDiedError(f"the guest lost its hold of {self._name}: {reason}"))
        else:
            raise StompError(f"a program does not say {word!r}")

    def _finish(self, end: ProgramEnd) -> None:
        self._call.close()
        if not self._end.done():
            self._end.set_result(end)

    def _fail(self, error: BoincvmError) -> None:
        self._call.close()
        if not self._end.done():
            self._end.set_exception(error)

    def grant(self, count: int) -> None:
        """`count` bytes of output have found their place; as many more may come."""
        self._ungranted += count
        # Under emulation each frame costs the guest some time, so few of them.
        if self._ungranted >= WINDOW // 4:
            self._unanswered += self._ungranted
            self._call.send("credit", {"bytes": str(self._ungranted)})
            self._ungranted = 0

    def feed(self, data: bytes) -> None:
        """Standard input; no more than STDIN_WINDOW bytes that the program has not taken."""
        self._untaken += len(data)
        self._call.send("stdin", {}, data)

    def end_input(self) -> None:
        """The program sees the end of its standard input."""
        self._call.send("stdin", {"ends": "1"})

    def signal(self, number: int) -> None:
        """To the program and its children; 9 reaches all that ever came from it."""
        self._call.send("signal", {"signal": str(number)})

    async def wait(self) -> ProgramEnd:
        """Raises ProgramStartError, GuestDiedError."""
        return await self._end


def _start_error(name: str, frame: Frame) -> ProgramStartError:
    error = number(frame.headers, "reason", _LARGEST_ERRNO)
    reason, where = os.strerror(error), frame.headers.get("at", "program")
    if where == "directory":
        return ProgramStartError(
            f"{name} cannot start in its directory: {reason}",
            hint="the directory must be among the inputs",
            exit_code=ExitCode.CANNOT_EXECUTE,
        )
    if where == "interpreter":
        return ProgramStartError(
            f"the guest cannot execute {name}: it has not the interpreter that the file names",
            hint="the #! line, or the ELF interpreter, must be a program of the image",
            exit_code=ExitCode.CANNOT_EXECUTE,
        )
    if error == errno.ENOENT:
        return ProgramStartError(
            f"no such program in the guest: {name}",
            hint="an image with its package has it: boincvm image build --package NAME IMAGE;"
            " a file of yours is sent with --input",
        )
    advice = "is it executable, and made for Linux on this processor?"
    if error == errno.EACCES:
        advice = f"if it is a file of yours, make it executable: chmod +x {name}"
    return ProgramStartError(
        f"the guest cannot execute {name}: {reason}",
        hint=advice,
        exit_code=ExitCode.CANNOT_EXECUTE,
    )


def _program_end(headers: dict[str, str]) -> ProgramEnd:
    code = number(headers, "code", 255) if "code" in headers else None
    return ProgramEnd(
        code=code,
        signal=number(headers, "signal", _LARGEST_SIGNAL) if code is None else None,
        user_time=number(headers, "user-us") / 1e6,
        system_time=number(headers, "system-us") / 1e6,
        max_rss=number(headers, "max-rss-kib") << 10,
        out_of_memory_kills=number(headers, "oom-kills"),
        disk_free=number(headers, "disk-free"),
    )
