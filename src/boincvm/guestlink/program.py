"""A program in the guest: started, fed, signalled, awaited."""

import asyncio
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from boincvm.bus.stomp import Frame, StompError
from boincvm.errors import ProgramStartError
from boincvm.exit_codes import ExitCode
from boincvm.guestlink.link import GuestLink

WINDOW = 1 << 20
"""Bytes of output that the guest may send before the host has taken any."""
STDIN_WINDOW = 1 << 16
"""Bytes of standard input that may be on the way to a program that does not read."""

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
        self._unanswered = WINDOW
        self._end: asyncio.Future[ProgramEnd] = asyncio.get_running_loop().create_future()
        self._call = link.call(self._take)
        pairs = [f"{name}={value}" for name, value in environment.items()]
        body = b"\0".join(map(os.fsencode, [directory, *argv, *pairs]))
        self._call.send("run", {"arguments": str(len(argv)), "credit": str(WINDOW)}, body)

    def _take(self, word: str, frame: Frame) -> None:
        if word in ("stdout", "stderr"):
            self._unanswered -= len(frame.body)
            if self._unanswered < -(1 << 18):  # what a pipe still holds comes without credit
                raise StompError("more output than was asked for")
            self._output(word, frame.body)
        elif word == "taken":
            self._on_stdin_room(int(frame.headers["bytes"]))
        elif word == "exit":
            self._finish(_program_end(frame.headers))
        elif word == "failed":
            self._call.close()
            if not self._end.done():
                self._end.set_exception(self._start_error(frame))
        else:
            raise StompError(f"a program does not say {word!r}")

    def _finish(self, end: ProgramEnd) -> None:
        self._call.close()
        if not self._end.done():
            self._end.set_result(end)

    def _start_error(self, frame: Frame) -> ProgramStartError:
        name = self._argv[0]
        number = int(frame.headers["reason"])
        reason = os.strerror(number)
        if number == errno.ENOENT:
            return ProgramStartError(
                f"no such program in the guest: {name}",
                hint="an image with its package has it: boincvm image build --package NAME IMAGE;"
                " a file of yours is sent with --input",
            )
        return ProgramStartError(
            f"the guest cannot execute {name}: {reason}",
            hint="is it executable, and made for Linux on this processor?",
            exit_code=ExitCode.CANNOT_EXECUTE,
        )

    def grant(self, count: int) -> None:
        """`count` bytes of output have found their place; as many more may come."""
        self._unanswered += count
        self._call.send("credit", {"bytes": str(count)})

    def feed(self, data: bytes) -> None:
        """Standard input; no more than STDIN_WINDOW bytes that the program has not taken."""
        self._call.send("stdin", {}, data)

    def end_input(self) -> None:
        """The program sees the end of its standard input."""
        self._call.send("stdin", {"ends": "1"})

    def signal(self, number: int) -> None:
        """To the program and its children; 9 reaches all that ever came from it."""
        self._call.send("signal", {"signal": str(number)})

    async def wait(self) -> ProgramEnd:
        """Raises ProgramStartError."""
        return await self._end


def _program_end(headers: dict[str, str]) -> ProgramEnd:
    code = int(headers["code"]) if "code" in headers else None
    number = None if code is not None else int(headers["signal"])
    if not 0 <= (code if code is not None else number or 0) <= 255:
        raise StompError("an exit status beyond 255")
    return ProgramEnd(
        code=code,
        signal=number,
        user_time=int(headers["user-us"]) / 1e6,
        system_time=int(headers["system-us"]) / 1e6,
        max_rss=int(headers["max-rss-kib"]) << 10,
        out_of_memory_kills=int(headers["oom-kills"]),
        disk_free=int(headers["disk-free"]),
    )
