"""Run commands from the bus as programs of this host and this user, each under a supervisor."""

import asyncio
import itertools
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath

from boincvm.controller.protocol.program import Request
from boincvm.controller.protocol.transfer_rules import guest_path
from boincvm.errors import BoincvmError, HostError, ProgramStartError, UsageError, host_error
from boincvm.guestlink import signals
from boincvm.guestlink.display import shown
from boincvm.guestlink.program import WINDOW, ProgramEnd
from boincvm.guestlink.status_channel import FractionDone, StatusReader
from boincvm.host.channels import capacity, make_named_pipe, set_blocking
from boincvm.host.process_tree import CONTINUE, children, send
from boincvm.host.processes import signal_group
from boincvm.host.supervised import GRACE, Supervised, start_supervised, supervised_end
from boincvm.node.command import Listener

KILL_LIMIT = 5.0
"""Seconds after which killed programs are reported as still running."""
_CHUNK = 1 << 16
_STATUS_CHANNEL = "status channel"
_OURS = "BOINCVM_"


class HostPrograms:
    """The programs of one guest.

    They inherit the guest's environment, without boincvm's own variables.
    """

    def __init__(self, work: Path, status_channels: Path) -> None:
        """Create one; programs run beneath `work`.

        `status_channels` is an empty directory for their FIFOs.
        """
        self._work = work
        self._status_channels = status_channels
        self._names = itertools.count(1)
        self._running: set[HostProgram] = set()
        self._is_ending = False

    def start(self, request: Request, listener: Listener) -> "HostProgram":
        """Start a program, for `NodeCommands`; this takes about 15 ms. Raises BoincvmError."""
        if self._is_ending:
            raise UsageError("the guest is about to end and starts no more programs")
        directory = self._work / guest_path(request.directory)
        status_channel = self._status_channels / str(next(self._names))
        ours = {name: text for name, text in os.environ.items() if not name.startswith(_OURS)}
        own = {"PWD": str(directory), "BOINCVM_STATUS_CHANNEL": str(status_channel)}
        environment = {**ours, **own, **request.environment}

        def begin(streams: tuple[int, int, int]) -> Supervised:
            path = _find(request.argv[0], directory, environment.get("PATH", os.defpath))
            return start_supervised(
                path, request.argv, directory=directory, environment=environment, streams=streams
            )

        try:
            program = HostProgram(begin, listener, status_channel)
        except ValueError as error:  # a character that this host's encoding lacks
            raise ProgramStartError(f"the guest cannot execute that: {error}"[:500]) from error
        except OSError as error:
            raise host_error("the host of the guest refused", error) from error
        self._running.add(program)
        program.ended.add_done_callback(lambda _: self._running.discard(program))
        if request.stdin:
            program.feed(request.stdin)
        if not request.keep_input:
            program.end_input()
        return program

    async def end(self) -> int:
        """Start no more programs, and end those that run; return how many still run.

        They are asked to end, and killed after GRACE.
        """
        self._is_ending = True
        running = list(self._running)
        for program in running:
            program.signal(signals.TERMINATE)
            program.signal(signals.CONTINUE)  # a stopped program cannot handle it
        for limit in (GRACE, KILL_LIMIT) if running else ():
            await asyncio.wait([program.ended for program in running], timeout=limit)
            for program in running:
                program.signal(signals.KILL)
        left = [program for program in running if not program.ended.done()]
        for program in left:
            program.give_up(HostError("the program does not end, although it was killed"))
        return len(left)


class HostProgram:
    """A `RunningProgram` of this host.

    Processes that it leaves behind are killed when it ends, or when this process does, even by
    SIGKILL: nothing escapes its supervisor.
    """

    def __init__(
        self,
        begin: Callable[[tuple[int, int, int]], Supervised],
        listener: Listener,
        status_channel: Path,
    ) -> None:
        """Start it by `begin`, with its standard streams. Raises what `begin` raises, OSError."""
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[ProgramEnd] = self._loop.create_future()
        """How it ended; done once all its output was delivered."""
        self._listener = listener
        self._credit = WINDOW
        self._ungranted = 0
        self._is_reading = False
        self._status_reader = StatusReader()
        self._input = bytearray()
        self._input_ends = False
        with ExitStack() as its, ExitStack() as ours:
            self._input_held = ours.enter_context(ExitStack())
            stdin, self._stdin = _pipe(its, self._input_held)
            from_stdout, stdout = _pipe(ours, its)
            from_stderr, stderr = _pipe(ours, its)
            from_status_channel = _fifo(status_channel, ours)
            self._outputs = {
                from_stdout: "stdout",
                from_stderr: "stderr",
                from_status_channel: _STATUS_CHANNEL,
            }
            for descriptor in (self._stdin, *self._outputs):
                set_blocking(descriptor, False)
            self._guarded = begin((stdin, stdout, stderr))
            self._held = ours.pop_all()
        self._messages = self._guarded.received
        self._loop.add_reader(self._guarded.control, self._handle_guard)
        self._read_if_there_is_credit()

    async def wait(self) -> ProgramEnd:
        return await asyncio.shield(self.ended)

    def state(self) -> dict[str, object]:
        """Return an empty state: nothing can attach to it."""
        return {}

    def signal(self, number: int) -> None:
        """Signal its process group; 9 reaches all its descendants."""
        if self.ended.done():
            return
        guard, control, program, *_ = self._guarded
        if number == signals.KILL:
            with suppress(OSError):  # it is already ending
                control.shutdown(socket.SHUT_WR)
            send(guard.pid, CONTINUE)
        elif program in children(guard.pid):  # otherwise its pid may have been reused
            with suppress(ProcessLookupError, PermissionError):
                signal_group(program, number)

    # Output.

    def grant(self, count: int) -> None:
        self._ungranted += count
        if self._ungranted >= WINDOW // 4:  # avoid small pieces, as each is a message
            self._credit += self._ungranted
            self._ungranted = 0
            self._read_if_there_is_credit()

    def _read_if_there_is_credit(self) -> None:
        wanted = self._credit > 0 and not self.ended.done()
        if wanted == self._is_reading:
            return
        self._is_reading = wanted
        for descriptor in self._outputs:
            if wanted:
                self._loop.add_reader(descriptor, self._read, descriptor)
            else:
                self._loop.remove_reader(descriptor)

    def _read(self, descriptor: int) -> None:
        if self._credit > 0 and self._read_chunk(descriptor, min(self._credit, _CHUNK)) == 0:
            self._loop.remove_reader(descriptor)
            del self._outputs[descriptor]

    def _read_chunk(self, descriptor: int, most: int) -> int | None:
        """Read up to `most` bytes and return how many; 0 at the end, None if there are none now."""
        try:
            data = os.read(descriptor, most)
        except BlockingIOError:
            return None
        self._credit -= len(data)
        self._read_if_there_is_credit()
        stream = self._outputs[descriptor]
        if stream == _STATUS_CHANNEL:
            messages = self._status_reader.feed(data)
            done = [message.fraction for message in messages if isinstance(message, FractionDone)]
            self._listener.status_channel(done[-1] if done else None, len(data))
        elif data:
            self._listener.output(stream, data)
        return len(data)

    # Input.

    def feed(self, data: bytes) -> None:
        """Write to its standard input; what it no longer reads is dropped, as in a machine."""
        if self._stdin >= 0 and data:
            self._input += data
            self._loop.add_writer(self._stdin, self._write)

    def end_input(self) -> None:
        self._input_ends = True
        if not self._input:
            self._close_input()

    def _write(self) -> None:
        try:
            written = os.write(self._stdin, self._input[:_CHUNK])
        except BlockingIOError:
            return
        except OSError:  # nobody reads it any more
            self._close_input()
            return
        del self._input[:written]
        if not self._input:
            self._loop.remove_writer(self._stdin)
            if self._input_ends:
                self._close_input()
        self._listener.input_taken(written)

    def _close_input(self) -> None:
        if self._stdin >= 0:
            self._loop.remove_writer(self._stdin)
            self._input_held.close()
            self._stdin = -1
            self._input.clear()

    # End.

    def _handle_guard(self) -> None:
        guard, control, _, *_ = self._guarded
        try:
            data = control.recv(_CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self._messages += data
        if data:
            return
        guard.wait()
        # All its processes are dead; only one that it passed a pipe to could still write.
        for descriptor in list(self._outputs):
            left = capacity(descriptor)
            while left > 0 and (count := self._read_chunk(descriptor, min(left, _CHUNK))):
                left -= count
        end = supervised_end(self._guarded, self._messages)
        times = end.user_time, end.system_time
        # Kills for want of memory and the disk's free space are not counted here.
        self.ended.set_result(ProgramEnd(end.code, end.signal, *times, end.largest, 0, 0))
        self._release()

    def give_up(self, error: BoincvmError) -> None:
        """Stop waiting for a program that does not end."""
        self.ended.set_exception(error)
        self._release()

    def _release(self) -> None:
        self._loop.remove_reader(self._guarded.control)
        self._guarded.control.close()
        self._close_input()
        self._read_if_there_is_credit()  # it has ended: this stops reading
        self._held.close()


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    reader.callback(os.close, ends[0])
    writer.callback(os.close, ends[1])
    return ends


def _fifo(path: Path, held: ExitStack) -> int:
    """Make a FIFO and open it for reading and writing, so that it does not end with each `echo`."""
    descriptor = make_named_pipe(path)
    held.callback(path.unlink, missing_ok=True)
    held.callback(os.close, descriptor)
    return descriptor


def _find(name: str, directory: Path, search: str) -> Path:
    """Find the program's file. Raises ProgramStartError, OSError."""
    if "/" in name:
        candidates = [directory / name]
    else:
        candidates = [directory / folder / name for folder in search.split(":")]
    found = [path for path in candidates if _is_there(path)]
    for path in found:
        if os.access(path, os.X_OK) and not path.is_dir():
            return path
    if found:
        return found[0]  # let the system report what is wrong with it
    raise ProgramStartError(
        f"no such program in the guest: {shown(PurePosixPath(name))}",
        hint="check the guest's PATH and its directory",
    )


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass  # it cannot be read: executing it fails for the same reason
    return True
