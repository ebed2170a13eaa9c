"""Runs a task in a machine: sends its files, runs its program, and brings back the results.

This is the only place that does so. The callers decide where its streams lead and when it has run
long enough.
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from boincvm.errors import OutputFileError
from boincvm.guestlink import signals
from boincvm.guestlink.guest_paths import WORK
from boincvm.guestlink.program import (
    STDIN_WINDOW,
    GuestProgram,
    OnChange,
    OnStatus,
    OnUsage,
)
from boincvm.job.model import MachineTask
from boincvm.machine.guest_commands import run_in_guest
from boincvm.machine.guest_packages import GuestPackages
from boincvm.machine.job_files import copy_in, copy_out
from boincvm.machine.session import Session
from boincvm.machine.streams import ProgramStreams, StdinFeed, StreamOpener

if TYPE_CHECKING:
    from boincvm.machine.saved_machine import SavedTask  # it imports `hashlib` and more

T = TypeVar("T")


class Listeners(NamedTuple):
    """The receivers of a program's own reports."""

    on_status: OnStatus | None = None
    """None: the program has no status channel. The receiver calls `TaskRun.grant`."""
    on_usage: OnUsage | None = None
    """None: the guest does not report what the program uses."""
    on_change: OnChange = lambda *_: None
    """Called with changes of the file `MachineTask.fraction_done`, if there is one."""


class RunningProgram(NamedTuple):
    """What is needed to resume a program whose machine was saved."""

    program: Mapping[str, object]
    """Its end of the guest link."""
    fed: int
    """Bytes of its standard input that had been read."""


_NOBODY = Listeners()


class TaskRun:
    """One run of `task`: `prepare`, then `run` or `go_on`, then `conclude`."""

    def __init__(
        self,
        session: Session,
        task: MachineTask,
        directory: Path,
        open_streams: StreamOpener,
        listeners: Listeners = _NOBODY,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare a run; relative paths of `task` start from `directory` on the host.

        `log` is called with what is done in the guest besides the program.
        """
        self._session = session
        self._task = task
        self._directory = directory
        self._packages = GuestPackages(session, task.packages, log)
        self._open_streams = open_streams
        self._listeners = listeners
        self._program: GuestProgram | None = None
        self._streams: ProgramStreams | None = None
        self._source: StdinFeed | None = None
        self._fed = 0
        self._has_begun = False
        self._is_killed = False

    async def prepare(self, *, replace: bool = False) -> None:
        """Send the program's inputs to the machine and install its packages.

        `replace`: first remove files that an earlier task may have left where the inputs go. Raises
        InputFileError, LimitError, ProgramStartError, GuestError.
        """
        inputs = self._task.inputs
        if inputs and replace:
            paths = [str(item.destination) for item in inputs]
            await run_in_guest(self._session, ["rm", "-rf", "--", *paths])
        await copy_in(self._session, self._directory, inputs)
        await self._packages.install()

    async def conclude(self) -> OutputFileError | None:
        """Remove the program's packages from the machine and bring back its outputs.

        Returns an error that names all missing outputs, or None. Raises ProgramStartError,
        HostDiskFullError, GuestError.
        """
        await self._packages.remove()
        return await copy_out(self._session, self._directory, self._task.outputs)

    async def run(self, wait: Callable[[GuestProgram], Awaitable[T]]) -> T:
        """Start the program and return the result of `wait`, which waits until it has ended.

        All its output is written by then. Raises InputFileError, OutputFileError,
        ProgramStartError, GuestError.
        """
        task, listeners = self._task, self._listeners
        async with self._open_streams(task, self.grant, self._session.fail) as streams:
            program = GuestProgram(
                self._session.link,
                task.argv,
                directory=str(WORK / (task.directory or "")),
                environment={**self._session.link.environment, **task.environment},
                output=streams.write,
                on_stdin_room=self._add_room,
                on_status=listeners.on_status,
                on_usage=listeners.on_usage,
            )
            if task.fraction_done is not None:
                program.watch(str(task.fraction_done), listeners.on_change)
            return await self._to_the_end(program, streams, wait)

    async def go_on(
        self,
        saved: RunningProgram,
        wake: Callable[[], Awaitable[None]],
        wait: Callable[[GuestProgram], Awaitable[T]],
    ) -> T:
        """Resume a program that was saved with its machine, which `wake` lets run.

        Otherwise like `run`.
        """
        listeners = self._listeners
        self._fed = saved.fed
        async with self._open_streams(self._task, self.grant, self._session.fail) as streams:
            program = GuestProgram.attached(
                self._session.link,
                saved.program,
                output=streams.write,
                on_stdin_room=self._add_room,
                on_status=listeners.on_status,
                on_usage=listeners.on_usage,
                on_change=listeners.on_change,
            )
            return await self._to_the_end(program, streams, wait, wake)

    async def _to_the_end(
        self,
        program: GuestProgram,
        streams: ProgramStreams,
        wait: Callable[[GuestProgram], Awaitable[T]],
        wake: Callable[[], Awaitable[None]] | None = None,
    ) -> T:
        self._program, self._streams = program, streams
        try:
            if wake is not None:
                await wake()
            self._feed(program, streams.stdin)
            self._has_begun = True
            if self._is_killed:
                program.signal(signals.KILL)
            end = await wait(program)
            await streams.flush()
            return end
        finally:
            self._has_begun = False
            self._program = self._streams = None
            if self._source is not None:
                self._source.close()

    def _feed(self, program: GuestProgram, stdin: int | None) -> None:
        if stdin is None:
            program.end_input()
            return

        def feed(data: bytes) -> None:
            self._fed += len(data)
            program.feed(data)

        room = STDIN_WINDOW - program.untaken
        self._source = StdinFeed(stdin, feed, program.end_input, room, self._session.fail)

    def _add_room(self, count: int) -> None:
        if self._source is not None:
            self._source.add_room(count)

    def grant(self, count: int) -> None:
        """Let the program send `count` more bytes, as many as have been handled."""
        if self._program is not None:
            self._program.grant(count)

    @property
    def program(self) -> GuestProgram | None:
        """Return the program while it runs; None while its machine has yet to wake."""
        return self._program if self._has_begun else None

    def kill(self) -> None:
        """End the program by SIGKILL, as soon as it has started."""
        self._is_killed = True
        if self.program is not None:
            self.program.signal(signals.KILL)

    def state(
        self, number: int, *, wall: float, guest: float = 0.0, fraction_done: float = 0.0
    ) -> "SavedTask | None":
        """Return what the task goes on from if its machine is saved now, while the guest is quiet.

        `number`: the task's in its job; the others are what its owner has measured. None: the
        program is not running in the guest, or not yet.
        """
        from boincvm.machine.saved_machine import SavedTask  # few tasks are saved

        if self._program is None or self._streams is None or not self._has_begun:
            return None
        if self._program.is_held_back:
            return None
        return SavedTask(
            number=number,
            program=self._program.state(),
            stdin=self._fed,
            files=self._streams.sizes(),
            guest=guest,
            wall=wall,
            fraction_done=fraction_done,
        )
