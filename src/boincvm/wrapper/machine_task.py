"""One task in a machine: what it needs goes in, it runs, what it made comes out."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path, PurePosixPath

from boincvm.errors import GuestError, HypervisorError, LimitError, OutputFileError
from boincvm.guestlink import signals
from boincvm.guestlink.get import all_of, get_tree
from boincvm.guestlink.guest_paths import ENVIRONMENT
from boincvm.guestlink.program import STDIN_WINDOW, GuestProgram, ProgramEnd, Usage
from boincvm.guestlink.put import put_tree
from boincvm.guestlink.voice import Word
from boincvm.host.supervised import GRACE
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.guest_commands import run_in_guest
from boincvm.machine.limits_reached import check_limits
from boincvm.machine.saved_machine import SavedTask
from boincvm.machine.session import Session
from boincvm.stopwatch import Stopwatch
from boincvm.wrapper.client_log import log
from boincvm.wrapper.cpu_seconds import CpuSeconds
from boincvm.wrapper.guest_packages import GuestPackages
from boincvm.wrapper.guest_requests import GuestRequests
from boincvm.wrapper.run_job import MAXIMUM_OUTPUT
from boincvm.wrapper.slot_files import last_number
from boincvm.wrapper.slot_streams import SlotStreams, open_streams
from boincvm.wrapper.step import Step
from boincvm.wrapper.streams import Source
from boincvm.wrapper.task_machine import TaskMachine
from boincvm.wrapper.task_plan import MachineCommand
from boincvm.wrapper.worker import WorkerEnd


class MachineTask(Step):
    """`open_machine` gives the machine, which may serve other tasks too, and `give_up` removes
    one that is of no use. `sizes_at_begin`: what the output files had when the task first began,
    by stream. `saved`: where the program was when the machine was put on disk.
    `is_first`: no earlier task has run in the machine."""

    def __init__(
        self,
        index: int,
        command: MachineCommand,
        open_machine: Callable[[], Awaitable[TaskMachine]],
        give_up: Callable[[], Awaitable[None]],
        requests: GuestRequests,
        sizes_at_begin: Callable[[], dict[str, int]],
        saved: SavedTask | None,
        *,
        is_first: bool,
    ) -> None:
        self._index = index
        self._command = command
        self._open_machine = open_machine
        self._give_up = give_up
        self.requests = requests
        self._sizes_at_begin = sizes_at_begin
        self._saved = saved
        self._machine: TaskMachine | None = None
        self._watch = Stopwatch(saved.wall if saved else 0.0)
        self._guest = saved.guest if saved else 0.0
        self._host_before = 0.0
        self._program: GuestProgram | None = None
        self._streams: SlotStreams | None = None
        self._source: Source | None = None
        self._fed = saved.stdin if saved else 0
        self._fraction = saved.fraction_done if saved else 0.0
        self._is_first = is_first
        self._is_expired = False

    # What the client hears of it.

    @property
    def fraction_done(self) -> float:
        said = self.requests.fraction_done
        return self._fraction if said is None else said

    def has_checkpointed(self) -> bool:
        return False  # what a program saves in its machine is lost with the machine

    def seconds(self) -> CpuSeconds:
        before = self._saved
        return CpuSeconds(
            guest=self._guest - (before.guest if before else 0.0),
            host=self._machine.host_seconds() - self._host_before if self._machine else 0.0,
            wall=self._watch.elapsed - (before.wall if before else 0.0),
        )

    def cpu_time(self) -> float:
        return self.seconds().guest

    def resident(self) -> int:
        return self._machine.resident() if self._machine else 0

    @property
    def machine(self) -> TaskMachine | None:
        """Where it runs, once that is up."""
        return self._machine

    @property
    def process_id(self) -> int | None:
        return self._machine.process_id if self._machine else None

    # What the client wishes. The machine itself is paused by whoever owns it.

    def start_suspended(self) -> None:
        """The client wants it suspended before it has begun."""
        self._watch.pause()

    async def suspend(self) -> None:
        self._watch.pause()

    async def resume(self) -> None:
        self._watch.resume()

    async def reach(self, seconds: float) -> None:
        await self._watch.reach(seconds)

    async def expire(self) -> None:
        self._is_expired = True
        await self.ask_to_end()

    async def ask_to_end(self) -> None:
        """Ends the program, if it runs: by SIGTERM, and what has not ended GRACE seconds of
        running later by SIGKILL. As for a task of the host."""
        program, machine = self._program, self._machine
        if program is None or machine is None or machine.is_saved or not machine.is_answering:
            return
        program.signal(signals.TERMINATE)
        ended = asyncio.ensure_future(program.wait())
        limit = asyncio.ensure_future(self._watch.reach(self._watch.elapsed + GRACE))
        try:
            await asyncio.wait((ended, limit), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                program.signal(signals.KILL)
        finally:
            for future in (ended, limit):
                future.cancel()
            await asyncio.gather(ended, limit, return_exceptions=True)

    async def kill(self) -> None:
        if self._machine is not None:
            await self._machine.kill()

    def state(self) -> SavedTask | None:
        """What `saved` must be when the machine wakes; None where the task cannot go on from
        here, because its program does not run: the task then begins anew."""
        if self._program is None or self._streams is None:
            return None
        return SavedTask(
            number=self._index,
            program=self._program.state(),
            stdin=self._fed,
            files=self._streams.sizes(),
            guest=self._guest,
            wall=self._watch.elapsed,
            fraction_done=self.fraction_done,
        )

    # What it does.

    async def wait(self) -> WorkerEnd:
        """Does all of it; a saved program that cannot go on is begun anew.

        Raises BoincvmError; SavedMachineError if more than this task was lost.
        """
        try:
            return await self._do()
        except SavedMachineError as error:
            await self._give_up()
            if self._saved is None or not self._is_first:
                raise
            log(f"{error.message}: the task begins anew")
            self._saved, self._machine = None, None
            self._guest, self._fed, self._fraction = 0.0, 0, 0.0
            return await self._do()

    async def _do(self) -> WorkerEnd:
        self._machine = machine = await self._open_machine()
        # The boot counts for the first task in a machine.
        self._host_before = machine.host_seconds() if machine.steps and not self._saved else 0.0
        if self._saved is None:
            machine.steps.append(self._index)
        return await machine.guard(self._run(machine))

    async def _run(self, machine: TaskMachine) -> WorkerEnd:
        session = machine.session
        packages = GuestPackages(session, self._command.packages)
        if self._saved is None:
            await self._copy_in(session)
            await packages.install()
        serving = asyncio.ensure_future(self.requests.serve(session))
        try:
            end = await self._run_program(machine)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        await self.requests.finish(session)
        if self.requests.temporary_exit is not None:
            raise self.requests.temporary_exit
        await packages.remove()
        failed = (end.code != 0) and not self._is_expired
        limit: LimitError | None = None
        if failed:
            memory = machine.size
            try:
                check_limits(end, self._command.argv[0], memory, ("memory_mb", "disk_mb"))
            except LimitError as error:
                limit = error
        await self._copy_out(session, failed=failed)
        if limit is not None:
            raise limit
        return WorkerEnd(code=end.code, signal=end.signal)

    async def _copy_in(self, session: Session) -> None:
        machine = self._machine
        if machine is not None and len(machine.steps) > 1 and self._command.inputs:
            # An earlier task in this machine may have had files of the same names.
            paths = [str(item.destination) for item in self._command.inputs]
            await run_in_guest(session, ["rm", "-rf", "--", *paths])
        for item in self._command.inputs:
            await put_tree(
                session.link,
                session.window,
                Path(item.source.name),
                item.destination,
                directory=item.source.parent,
            )

    async def _copy_out(self, session: Session, *, failed: bool) -> None:
        missing: list[OutputFileError] = []
        for item in self._command.outputs:
            target = Path(item.destination)
            try:
                await get_tree(
                    session.link,
                    session.window,
                    item.source,
                    PurePosixPath(target.name),
                    directory=target.parent,
                    maximum_bytes=MAXIMUM_OUTPUT,
                )
            except OutputFileError as error:
                missing.append(error)
        if missing and not failed:
            raise all_of(missing)
        for one in missing:
            log(one.message)  # a program that failed need not have written all

    async def _run_program(self, machine: TaskMachine) -> ProgramEnd:
        session, saved = machine.session, self._saved
        async with open_streams(
            self._command,
            self._grant,
            session.fail,
            stdin_offset=saved.stdin if saved else 0,
            sizes=saved.files if saved else self._sizes_at_begin(),
        ) as streams:
            program = (
                self._begin(session, streams)
                if saved is None
                else self._go_on(session, streams, saved)
            )
            self._program, self._streams = program, streams
            try:
                if saved is None:
                    self._watch_fraction(program)
                if saved is not None:
                    await self._wake(machine)
                self._feed_from(streams.stdin, program, session)
                if self._is_expired:  # before it had begun
                    program.signal(signals.KILL)
                end = await program.wait()
                await streams.flush()
            finally:
                self._program = self._streams = None
                if self._source is not None:
                    self._source.close()
        self._guest = end.user_time + end.system_time
        return end

    async def _wake(self, machine: TaskMachine) -> None:
        try:
            await machine.wake()
        except (GuestError, HypervisorError) as error:
            raise SavedMachineError(f"the saved guest does not go on: {error.message}") from error

    def _begin(self, session: Session, streams: SlotStreams) -> GuestProgram:
        return GuestProgram(
            session.link,
            self._command.argv,
            directory=str(self._command.directory),
            environment={**ENVIRONMENT, **self._command.environment},
            output=streams.write,
            on_stdin_room=self._add_room,
            on_voice=self._take_words,
            on_usage=self._take_usage,
        )

    def _watch_fraction(self, program: GuestProgram) -> None:
        path = self._command.fraction_done
        if path is None:
            return
        if not path.is_relative_to(self._command.directory):
            log(f"{path} is not in the program's directory, so it cannot be watched")
            return
        program.watch(str(path.relative_to(self._command.directory)), self._take_change)

    def _go_on(self, session: Session, streams: SlotStreams, saved: SavedTask) -> GuestProgram:
        return GuestProgram.attached(
            session.link,
            saved.program,
            output=streams.write,
            on_stdin_room=self._add_room,
            on_voice=self._take_words,
            on_usage=self._take_usage,
            on_change=self._take_change,
        )

    def _feed_from(self, stdin: int | None, program: GuestProgram, session: Session) -> None:
        if stdin is None:
            program.end_input()
            return

        def feed(data: bytes) -> None:
            self._fed += len(data)
            program.feed(data)

        room = STDIN_WINDOW - program.untaken
        self._source = Source(stdin, feed, program.end_input, room, session.fail)

    # What the program says.

    def _grant(self, count: int) -> None:
        if self._program is not None:
            self._program.grant(count)

    def _add_room(self, count: int) -> None:
        if self._source is not None:
            self._source.add_room(count)

    def _take_words(self, words: Sequence[Word], count: int) -> None:
        for word in words:
            self.requests.take(word)
        self._grant(count)

    def _take_usage(self, usage: Usage) -> None:
        self._guest = usage.user_time + usage.system_time

    def _take_change(self, _path: str, _modified: int, tail: bytes) -> None:
        number = last_number(tail)
        if number is not None:
            self.requests.fraction_done = min(max(number, 0.0), 1.0)
