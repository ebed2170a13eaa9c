"""Programs in the guest: starts, feeds, signals and awaits them."""

import asyncio
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, Self

from boincvm import tree_entries
from boincvm.bus.stomp import MAXIMUM_BODY, Frame, StompError
from boincvm.byte_text import encoded
from boincvm.errors import BoincvmError, GuestDiedError, ProgramStartError
from boincvm.exec_errors import advice_for, packages_of
from boincvm.exit_codes import ExitCode
from boincvm.guestlink.display import shown
from boincvm.guestlink.headers import LARGEST, number
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.state import MOST_WATCHES, ProgramState
from boincvm.guestlink.status_channel import StatusMessage, StatusReader
from boincvm.sizes import format_size

WINDOW = 1 << 20
"""Bytes of output that the guest may send before the host has taken any."""
STDIN_WINDOW = 1 << 16
"""Bytes of standard input that may be in transit to a program that does not read."""

_UNCREDITED = 1 << 19
"""Bytes that may come without credit: the remaining contents of the pipes when a program ends."""
_LONGEST_TAIL = 4096
_LARGEST_ERRNO = 4095
_LARGEST_SIGNAL = 64

Output = Callable[[str, bytes], None]
"""Called with the name of the stream, "stdout" or "stderr", and its data."""


class Usage(NamedTuple):
    """The resources that a program and all its processes have used so far."""

    user_time: float
    """Seconds, like `system_time`."""
    system_time: float
    rss: int
    """Bytes of memory at the moment."""


OnStatus = Callable[[Sequence[StatusMessage], int], None]
"""Called with messages from a program's status channel and their size in bytes, to be granted like
output when the messages have been handled. There may be bytes without a message."""
OnUsage = Callable[[Usage], None]
OnChange = Callable[[str, int, bytes], None]
"""Called with a watched path, the file's modification time in nanoseconds since 1970, and the last
4 KiB of it; none of these can be trusted."""


class ProgramEnd(NamedTuple):
    """How a program ended, and what it and all its processes used."""

    code: int | None
    """None if a signal killed it."""
    signal: int | None
    """The signal that killed it, or None."""
    user_time: float
    """Seconds, like `system_time`."""
    system_time: float
    max_rss: int
    """Bytes, of the largest process."""
    out_of_memory_kills: int
    """Processes that the guest's kernel killed meanwhile because memory ran out."""
    disk_free: int
    """Bytes left on the guest's disk."""


class GuestProgram:
    """A program that the constructor starts in the guest.

    `on_stdin_room` is called with the number of bytes that the program took. With `on_status` the
    program finds a FIFO in BOINCVM_STATUS_CHANNEL (guestlink/status_channel.py lists the messages);
    with `on_usage` the guest's heart-beats tell what it has used.
    """

    def __init__(
        self,
        link: GuestLink,
        argv: Sequence[str],
        *,
        directory: str,
        environment: Mapping[str, str],
        output: Output,
        on_stdin_room: Callable[[int], None] = lambda _: None,
        on_status: OnStatus | None = None,
        on_usage: OnUsage | None = None,
    ) -> None:
        self._prepare(link, output, on_stdin_room, on_status, on_usage)
        self._name = shown(PurePosixPath(argv[0]))
        pairs = [f"{name}={value}" for name, value in environment.items()]
        arguments = [encoded(argument) for argument in (*argv, *pairs)]
        self._arguments: list[bytes] = arguments
        body = b"\0".join([encoded(directory), *arguments])
        if len(body) > MAXIMUM_BODY:
            raise ProgramStartError(
                f"arguments and environment are larger than {format_size(MAXIMUM_BODY)}",
                hint="write them to a file and hand it in with --input",
                exit_code=ExitCode.CANNOT_EXECUTE,
            )
        self._status_channel = None if on_status is None else StatusReader()
        headers = {"arguments": str(len(argv)), "credit": str(WINDOW)}
        if on_status is not None:
            headers["status-channel"] = "1"
        if on_usage is not None:
            headers["usage"] = "1"
        self._call = link.call(self._handle, lasts=True)
        self._call.send("run", headers, body)

    @classmethod
    def attached(
        cls,
        link: GuestLink,
        state: Mapping[str, object],
        *,
        output: Output,
        on_stdin_room: Callable[[int], None] = lambda _: None,
        on_status: OnStatus | None = None,
        on_usage: OnUsage | None = None,
        on_change: OnChange = lambda *_: None,
    ) -> Self:
        """Return a program that is already running, as saved by `state`; call before `link.attach`.

        Output that was taken and not yet granted then counts as granted. Raises HostError if
        `state` is damaged, ValueError if the program has a status channel and `on_status` is None.
        """
        saved = ProgramState.read(state, WINDOW)
        program = cls.__new__(cls)
        program._prepare(link, output, on_stdin_room, on_status, on_usage)
        program._name = saved.name
        program._unanswered = saved.unanswered
        program._ungranted = WINDOW - saved.unanswered
        program._untaken = saved.untaken
        program._watched = list(saved.watched)
        program._on_change = on_change
        program._status_channel = (
            None if saved.unfinished is None else StatusReader(saved.unfinished)
        )
        if program._status_channel is not None and on_status is None:
            raise ValueError("a program with a status channel needs `on_status`")
        program._call = link.call_again(saved.call, program._handle)
        program.grant(0)
        if saved.input:
            program.feed(saved.input)
        if saved.input_ends:
            program.end_input()
        return program

    def _prepare(
        self,
        link: GuestLink,
        output: Output,
        on_stdin_room: Callable[[int], None],
        on_status: OnStatus | None,
        on_usage: OnUsage | None,
    ) -> None:
        self._output = output
        self._on_stdin_room = on_stdin_room
        self._on_status = on_status
        self._on_usage = on_usage
        self._on_change: OnChange = lambda *_: None
        self._link = link
        self._watched: list[str] = []
        self._arguments = []
        self._unanswered = WINDOW
        self._ungranted = 0
        self._untaken = 0
        self._has_ended = False
        self._end: asyncio.Future[ProgramEnd] = asyncio.get_running_loop().create_future()

    @property
    def is_held_back(self) -> bool:
        """Tell whether the guest has yet to start it, since it was quiet when we were made.

        A machine that is saved now does not have the program.
        """
        return any(held.kind == "run" for held in self._link.held_messages(self._call.number))

    def state(self) -> dict[str, object]:
        """Return the state for `attached`, in this process or another.

        It includes input fed while the link is quiet. Call this while the link is quiet and after
        all output has been written.
        """
        held = self._link.held_messages(self._call.number)
        unsent = b"".join(message.body for message in held if message.kind == "stdin")
        credit = sum(int(message.headers["bytes"]) for message in held if message.kind == "credit")
        return ProgramState(
            call=self._call.number,
            name=self._name,
            unanswered=self._unanswered - credit,
            untaken=self._untaken - len(unsent),
            input=unsent,
            input_ends=any("ends" in message.headers for message in held),
            watched=tuple(self._watched),
            unfinished=None if self._status_channel is None else self._status_channel.unfinished,
        ).table()

    @property
    def untaken(self) -> int:
        """Return the bytes of standard input in transit, which may be at most STDIN_WINDOW."""
        return self._untaken

    def _handle(self, argument: str, frame: Frame) -> None:
        if argument in ("stdout", "stderr", "status-channel"):
            self._unanswered -= len(frame.body)
            if self._unanswered < -_UNCREDITED:
                raise StompError("more output than was granted")
            self._handle_output(argument, frame.body)
        elif argument == "usage":
            self._handle_usage(frame.headers)
        elif argument == "changed":
            self._handle_change(frame)
        elif argument == "taken":
            count = number(frame.headers, "bytes", self._untaken)
            self._untaken -= count
            self._on_stdin_room(count)
        elif argument == "exit":
            self._finish(_program_end(frame.headers))
        elif argument == "failed":
            self._fail(_start_error(self._name, self._arguments, frame))
        elif argument == "lost":
            reason = os.strerror(number(frame.headers, "reason", _LARGEST_ERRNO))
            self._fail(GuestDiedError(f"the guest lost track of {self._name}: {reason}"))
        else:
            raise StompError(f"a program does not say {argument!r}")

    def _handle_output(self, stream: str, data: bytes) -> None:
        if stream != "status-channel":
            self._output(stream, data)
        elif self._status_channel is not None and self._on_status is not None:
            self._on_status(self._status_channel.feed(data), len(data))
        else:
            raise StompError("a message from a program without a status channel")

    def _handle_usage(self, headers: Mapping[str, str]) -> None:
        usage = Usage(
            user_time=number(headers, "user-us") / 1e6,
            system_time=number(headers, "system-us") / 1e6,
            rss=number(headers, "rss-kib", LARGEST >> 10) << 10,
        )
        if self._on_usage is not None:
            self._on_usage(usage)

    def _handle_change(self, frame: Frame) -> None:
        index = number(frame.headers, "watch", len(self._watched) - 1)
        if len(frame.body) > _LONGEST_TAIL:
            raise StompError("more of a watched file than was requested")
        self._on_change(self._watched[index], number(frame.headers, "mtime-ns"), frame.body)

    def _finish(self, end: ProgramEnd) -> None:
        self._call.close()
        self._has_ended = True
        if not self._end.done():
            self._end.set_result(end)

    def _fail(self, error: BoincvmError) -> None:
        self._call.close()
        self._has_ended = True
        if not self._end.done():
            self._end.set_exception(error)

    def grant(self, count: int) -> None:
        """Let the guest send `count` more bytes of output, as many as have been handled."""
        self._ungranted += count
        # Each frame costs an emulated guest some time, so send few of them.
        if self._ungranted >= WINDOW // 4:
            self._unanswered += self._ungranted
            self._call.send("credit", {"bytes": str(self._ungranted)})
            self._ungranted = 0

    def feed(self, data: bytes) -> None:
        """Send standard input; no more than STDIN_WINDOW bytes may be in transit."""
        self._untaken += len(data)
        self._call.send("stdin", {}, data)

    def end_input(self) -> None:
        """End the program's standard input."""
        self._call.send("stdin", {"ends": "1"})

    def signal(self, number: int) -> None:
        """Send a signal to the program and its children; 9 reaches all its descendants."""
        self._call.send("signal", {"signal": str(number)})

    def watch(self, path: str, on_change: OnChange) -> None:
        """Report changes of `path`, beneath the program's directory, to `on_change`.

        A change is reported at most once a second and at the program's end; an existing file is
        reported immediately. Symbolic links are not followed. `on_change` replaces the callback for
        all watched paths. Raises ValueError if the path is not beneath the directory, or there are
        too many.
        """
        name = encoded(path)
        if not tree_entries.components(name) or len(self._watched) >= MOST_WATCHES:
            raise ValueError(f"{tree_entries.shown(name)} cannot be watched")
        self._on_change = on_change
        self._watched.append(path)
        self._call.send("watch", {"watch": str(len(self._watched) - 1)}, name)

    @property
    def has_ended(self) -> bool:
        """Tell whether it has ended, as far as the guest has told."""
        return self._has_ended

    async def wait(self) -> ProgramEnd:
        """Wait until the program has ended. Raises ProgramStartError, GuestDiedError."""
        return await self._end


NO_INTERPRETER = "it does not have the interpreter that the file names"
"""In the message of an InterpreterMissingError, by which clients of a controller know it."""


class InterpreterMissingError(ProgramStartError):
    """The guest lacks the program that a `#!` line names, or the loader of an ELF file."""


def _start_error(name: str, arguments: Sequence[bytes], frame: Frame) -> ProgramStartError:
    """Return the error for a failed start; `arguments`: arguments and environment."""
    error = number(frame.headers, "reason", _LARGEST_ERRNO)
    reason, where = os.strerror(error), frame.headers.get("at", "program")
    advice = advice_for(error, name, arguments)
    if where == "directory":
        return ProgramStartError(
            f"{name} cannot start in its directory: {reason}",
            hint="the directory must be among the inputs",
            exit_code=ExitCode.CANNOT_EXECUTE,
        )
    if where == "agent":
        return ProgramStartError(
            f"the guest lacks the resources to start {name}: {reason}",
            hint=advice,
            exit_code=ExitCode.CANNOT_EXECUTE,
        )
    if where == "interpreter":
        return InterpreterMissingError(
            f"the guest cannot execute {name}: {NO_INTERPRETER}",
            hint=advice,
            exit_code=ExitCode.CANNOT_EXECUTE,
        )
    if error == errno.ENOENT:
        return ProgramStartError(
            f"no such program in the guest: {name}",
            hint=_where_to_find(name),
        )
    return ProgramStartError(
        f"the guest cannot execute {name}: {reason}",
        hint=advice,
        exit_code=ExitCode.CANNOT_EXECUTE,
    )


def _where_to_find(name: str) -> str:
    if any(character in name for character in " |&;<>$*"):
        return (
            "no shell reads the command: give the program and its arguments as words of their own,"
            " or run sh -c 'COMMAND'"
        )
    packages = packages_of(name)
    options = " ".join(f"--package {package}" for package in packages or ("NAME",))
    found = "its package" if len(packages) < 2 else "its packages"
    return (
        f"build an image with {found}: boincvm image build {options} IMAGE;"
        " or bring a file of your own: with --input, or to a controller's machine by boincvm cp"
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
