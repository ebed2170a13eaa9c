"""One life of a machine: it is started, paused, saved and stopped on request, and ends."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial

from boincvm.controller.protocol.report import Report
from boincvm.controller.protocol.vm_state import VmState
from boincvm.durations import format_duration
from boincvm.errors import (
    BoincvmError,
    GuestDiedError,
    HostError,
    HypervisorError,
    ImageMissingError,
    MachineStateError,
    TaskFailedError,
    host_error,
)
from boincvm.guestlink.display import printable
from boincvm.guestlink.host_name import host_name
from boincvm.guestlink.link import GuestLink
from boincvm.hypervisor.contract import EndCause, MachineEnd
from boincvm.hypervisor.registry import DEFAULT, open_driver
from boincvm.image.journal import has_journal
from boincvm.image.store import Image, ImageStore
from boincvm.job.model import Limits
from boincvm.machine.checkpointing import Identity, write_checkpoint
from boincvm.machine.end import end_error, is_orderly
from boincvm.machine.golden.background import Warmers
from boincvm.machine.guest_commands import (
    LONG,
    GuestCommandLimitError,
    output_in_guest,
    run_in_guest,
)
from boincvm.machine.host_capacity import check_checkpoint_room, check_room
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.saved_machine import SavedMachine
from boincvm.machine.session import Session
from boincvm.machine.settings import Settings
from boincvm.machine.spec import machine_spec
from boincvm.machine.start_source import Boot, Clone, Restore, StartSource
from boincvm.node.commands import NodeCommands
from boincvm.shim.machine_directory import Definition, MachineDirectory
from boincvm.shim.programs import MachinePrograms, drain
from boincvm.shim.screen import open_screen
from boincvm.shim.snapshots import MachineSnapshot, Snapshots, read_checkpoint
from boincvm.side_thread import in_side_thread

_SETTINGS = Settings(Limits(boot=300.0, silence=120.0, stop=20.0), report_period=1.0)
_LINGER_TIME = 30.0
"""Seconds that saving may take when the host is shutting down."""
_AS_FILE = """\
file=$(mktemp) && printf %s "$1" >"$file" && chmod 700 "$file" || exit
"$file"
code=$?
rm -f "$file"
exit $code
"""
_COMPLAINT = 300
"""Bytes of what a failed first-boot script has written last."""
_LOG = logging.getLogger("boincvm.shim")


class ShimMachine:
    """The machine of one shim. `notify` is called at each change of state.

    The caller must run its operations one after the other.
    """

    def __init__(
        self, directory: MachineDirectory, definition: Definition, notify: Callable[[], None]
    ) -> None:
        self.directory = directory
        self.definition = definition
        self.snapshots = Snapshots(directory)
        self.programs = MachinePrograms(lambda: self.session, self.has_ended)
        self.commands: NodeCommands | None = None
        """The commands that its guest was given."""
        self.status = directory.status()
        self.progress: float | None = None
        self.cold_because = ""
        """Why it booted although there was a golden snapshot."""
        self._notify = notify
        self._held = ExitStack()
        self._warmers = Warmers()
        self._image: Image | None = None
        self._machine: ManagedMachine | None = None
        self._is_up = False
        self._is_ending = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cpu = (time.monotonic(), 0.0)

    # What it shows to others.

    @property
    def session(self) -> Session | None:
        """The machine's session; None while no program can run in it."""
        return self._machine.session if self._machine is not None and self._is_up else None

    def report(self) -> Report:
        """Return its current state and load."""
        machine, cpu = self._machine, None
        if machine is not None:
            (then, used_then), now = self._cpu, time.monotonic()
            used = machine.host_seconds()
            if now > then:
                cpu = max(used - used_then, 0.0) / (now - then)
            self._cpu = (now, used)
        memory = machine.resident() if machine is not None else None
        status = self.status
        return Report(status.state, status.why, cpu, memory, self.progress, status.started_at)

    def _set(self, state: VmState, why: str = "", **changes: object) -> None:
        """Change the state, write it to disk, and notify.

        Raises OSError if it cannot be written; the new state is then known to this process alone.
        """
        if self._over.done():
            return  # an operation that was running when it ended must not revive it
        self.status = self.status._replace(state=state, why=why, **changes)  # type: ignore[arg-type]
        try:
            self.directory.write_status(self.status)
        finally:
            self._notify()

    def _pass_to(self, state: VmState) -> None:
        """Change to a state that need not be on disk: a full disk is only logged."""
        try:
            self._set(state)
        except OSError as error:
            _LOG.warning("the state %s cannot be recorded: %s", state.label, error)

    # Start.

    def prepare(self, commands: NodeCommands, *, goes_on: bool) -> None:
        """Prepare the guest's commands and the state for this life.

        With `goes_on` it continues the life in which the machine was saved.
        """
        self.commands = commands
        commands.hold()  # until there is a machine to run them in
        if goes_on:
            commands.load(self.directory.commands())
        else:
            self.directory.write_commands([])
        self._set(VmState.STARTING, instance=commands.instance, pid=os.getpid())

    async def begin(self, snapshot: str | None) -> None:
        """Start the machine; return when the guest's agent has answered.

        It starts from `snapshot`, else from where it was saved, else by booting. Raises
        BoincvmError.
        """
        image = self._image = await in_side_thread(self._open_image)
        self._held.enter_context(image)
        check_room(self.directory.disk, self.definition.memory)
        if not self.status.layers:  # a first life may have been interrupted
            self.snapshots.sweep(frozenset(), self.status.saved)
        found = self.snapshots.find(snapshot) if snapshot is not None else None
        number = found.number if found else self.status.saved
        driver = await open_driver(DEFAULT, image.kernel)
        defined = self.definition
        spec = machine_spec(defined.shape, image, self.directory.disk)
        spec = spec._replace(display=defined.display, host_name=host_name(defined.id), durable=True)
        sources: list[StartSource] = [Clone(image), Boot()]
        is_first = number is None and not self.status.layers
        if number is None:
            self._set(VmState.STARTING, started_at=time.time())
            spec = spec._replace(layers=self.status.layers)
            await in_side_thread(self._warn_of_damage, image)
        else:
            self._set(VmState.RESTORING, started_at=time.time())
            saved = await in_side_thread(read_checkpoint, self.directory, number)
            sources = [Restore(saved, partial(self._attach, found))]
        machine = self._machine = ManagedMachine(driver, spec, _SETTINGS)
        await machine.start(sources)
        self.cold_because = machine.cold_because
        if machine.is_cold and spec.display:
            open_screen(machine.session.link)
        if machine.lacks_golden:
            self._warmers.make(image, spec)
        if is_first and self.definition.first_boot:
            await _run_first_boot(machine.session, self.definition.first_boot)
        self._is_up = True
        await in_side_thread(self.directory.sync_disk, machine.disk_layers)
        # Before anything says that its disk needs it.
        await in_side_thread(self.directory.keep_image, defined, image.digest)
        self.come_up(image.digest, machine.disk_layers, machine.files_in_use())

    def _open_image(self) -> Image:
        """Open the image beneath its disk, whatever has become of the name. Raises BoincvmError."""
        name, digest = self.definition.image, self.status.image
        try:
            return ImageStore().open(name, digest or None)
        except ImageMissingError as error:
            if not digest:
                raise
            raise HypervisorError(
                f"the image {name} has changed since the machine's disk was made",
                hint="create a new machine, or restore the previous image",
            ) from error

    def _warn_of_damage(self, image: Image) -> None:
        """Log that the disk may be damaged, if it was in use at the end and has no journal.

        Raises OSError, HypervisorError.
        """
        if self.status.layers and not self.status.was_shut_down and not has_journal(image.root):
            _LOG.warning(
                "its file system has no journal, and it was not shut down: files may be damaged."
                " To prevent that, build its image %s again with this version of boincvm, and"
                " create the machine again",
                self.definition.image,
            )

    def come_up(self, image: str, layers: tuple[str, ...], in_use: frozenset[str]) -> None:
        """Record that it runs, with the disk `layers`, which are on disk already.

        All files but those `in_use` are removed before others learn that it runs: what it was
        restored from, and leftovers of killed processes. Raises HostError, OSError.
        """
        self._set(self.status.state, layers=layers, saved=None)
        self.snapshots.sweep(in_use)
        self.directory.write_commands([])
        self._set(VmState.RUNNING, image=image, layers=layers, saved=None, was_shut_down=False)
        if self.commands is not None:
            self.commands.release()

    def _attach(self, snapshot: MachineSnapshot | None, link: GuestLink) -> None:
        """Attach the programs that ran when it was saved, before its guest continues."""
        if snapshot is not None:
            drain(link, snapshot.programs)
        elif self.commands is not None and self._machine is not None:
            self.commands.attach(partial(self.programs.bring_back, self._machine.session))

    def _required(self) -> ManagedMachine:
        if self._machine is None or not self._is_up:
            raise MachineStateError(
                "the machine is not running", hint="wait until it is running, or start it"
            )
        return self._machine

    # While it runs.

    @property
    def is_over(self) -> bool:
        return self._over.done()

    @property
    def is_ending(self) -> bool:
        """Tell whether it is being ended or has ended, so that further failures are expected."""
        return self._is_ending

    async def has_ended(self) -> None:
        """Wait until it has ended, whether or not it ever ran."""
        await asyncio.wait((self._over,))

    async def until_over(self) -> None:
        """Wait until it has ended for any reason, which is then in `status`."""
        ended = asyncio.ensure_future(self._required().ended())
        try:
            await asyncio.wait((ended, self._over), return_when=asyncio.FIRST_COMPLETED)
            if not self._over.done():
                await self._end_by_itself(ended.result())
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def _end_by_itself(self, end: MachineEnd) -> None:
        """Handle an end that this process did not cause.

        It is orderly if the guest had been asked to shut down.
        """
        was_asked = self.status.state is VmState.STOPPING and end.cause is EndCause.LINK_LOST
        if is_orderly(end) or was_asked:
            was_shut_down = self.status.state is VmState.STOPPING
            await self._end(VmState.POWERED_OFF, was_shut_down=was_shut_down)
        else:
            await self.fail(end_error(end))

    async def fail(self, error: BoincvmError) -> None:
        """End the machine because of an error."""
        await self._end(VmState.ABORTED, error.message)

    async def pause(self) -> None:
        """Pause the machine; calling it again is harmless.

        Raises BoincvmError if it cannot be paused, and then it runs on.
        """
        machine = self._required()
        try:
            await machine.suspend()
        except HypervisorError:
            await self._go_back(machine, VmState.RUNNING)
            raise
        self._pass_to(VmState.PAUSED)

    async def resume(self) -> None:
        """Let a paused machine run on."""
        await self._required().resume()
        self._pass_to(VmState.RUNNING)

    async def save(self) -> None:
        """Save the machine's state to disk and end it.

        Raises BoincvmError, OSError; then it is in its previous state, or has ended.
        """
        machine, before = self._required(), self.status.state
        try:
            saved, _ = await self._save(last=True)
        except (BoincvmError, OSError) as error:
            if machine.is_saved:
                await self.fail(
                    _as_ours(error)
                )  # it has ended, and its saved state is not recorded
            await self._go_back(machine, before)
            raise
        self._finish(VmState.SAVED, saved=saved.checkpoint.number)
        if self.status.state is not VmState.SAVED:
            raise HostError(self.status.why)

    async def snapshot(self, name: str | None, description: str) -> tuple[str, SavedMachine]:
        """Take a snapshot while the machine runs on; return its name and checkpoint.

        Raises BoincvmError, OSError.
        """
        machine, before = self._required(), self.status.state
        chosen = self.snapshots.choose_name(name, description)
        try:
            saved, programs = await self._save(last=False)
            self.snapshots.add(chosen, description, saved, programs)
        except (BoincvmError, OSError):
            await self._go_back(machine, before)
            if not self._over.done():
                self.snapshots.sweep(machine.files_in_use())
            raise
        await self._go_back(machine, before)
        return chosen, saved

    async def _go_back(self, machine: ManagedMachine, state: VmState) -> None:
        """Return to `state`, the state before an operation.

        If the machine has ended, wait until its watcher has recorded the reason.
        """
        if machine.is_up:
            try:
                await machine.go_on(paused=state is VmState.PAUSED)
            except BoincvmError as error:
                _LOG.warning("it cannot be resumed: %s", error)
        if machine.is_up:
            self._set(state, layers=machine.disk_layers)
        elif not self._over.done():
            await asyncio.wait((self._over,))

    async def _save(self, *, last: bool) -> tuple[SavedMachine, list[dict[str, object]]]:
        """Save the machine's state; return it and the states of the running programs."""
        machine, image, commands = self._required(), self._image, self.commands
        if image is None or commands is None:
            raise HypervisorError("the machine has not started")
        check_checkpoint_room(self.directory.disk, machine.resident(), self.directory.disk, 0)

        def begin() -> None:  # not before its turn, for which it may wait long
            self._pass_to(VmState.SAVING)
            commands.hold()

        try:
            saved, (programs, command_states) = await write_checkpoint(
                machine,
                Identity(image.digest, self.definition.shape),
                lambda: (None, (self.programs.states(), commands.states())),
                last=last,
                hold=True,  # a snapshot may be restored many times
                record_layers=self._record_layers,
                begins=begin,
            )
        except BaseException:
            commands.release()
            raise
        if not last:
            commands.release()
        if last:
            await in_side_thread(self.directory.write_commands, command_states)
        return saved, programs

    async def _record_layers(self, layers: tuple[str, ...]) -> None:
        """Record the layers of its disk before they are used, in case anything is killed.

        Raises OSError.
        """
        self._set(self.status.state, layers=layers)

    async def stop(self, within: float) -> None:
        """Ask the guest to shut down; kill the machine after `within` seconds."""
        machine, was_shut_down = self._required(), False
        self._pass_to(VmState.STOPPING)
        try:
            async with asyncio.timeout(within):
                await machine.resume()
                machine.session.link.power_off()
                end = await machine.ended()
                if not is_orderly(end) and end.cause is not EndCause.LINK_LOST:
                    await asyncio.wait((self._over,))  # its watcher records the reason
                was_shut_down = True
        except (TimeoutError, HypervisorError, GuestDiedError):
            pass  # it does not cooperate, or has ended already
        await self._end(VmState.POWERED_OFF, was_shut_down=was_shut_down)

    async def power_off(self) -> None:
        """Kill the machine, as if its plug were pulled."""
        self._pass_to(VmState.STOPPING)
        await self._end(VmState.POWERED_OFF)

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot. Raises UsageError, OSError."""
        self.snapshots.remove(name, self._required().files_in_use(), self.status.saved)

    # End.

    @property
    def is_waiting_for_turn(self) -> bool:
        """Tell whether a snapshot waits for those of other machines; it has done nothing yet."""
        return self._machine is not None and self._machine.waits_for_turn

    def hurried(self, why: str) -> AbstractContextManager[None]:
        """Within the block, no snapshot waits for those of other machines: it fails instead."""
        machine = self._machine
        return nullcontext() if machine is None else machine.turn_not_waited_for(why)

    async def end_with_host(self) -> None:
        """Save the machine if possible, since the host is shutting down."""
        if self._over.done():
            return
        try:
            async with asyncio.timeout(_LINGER_TIME):
                await self.save()
        except (BoincvmError, OSError, TimeoutError) as error:
            await self._end(VmState.ABORTED, f"it could not be saved: {error}")

    async def _end(self, state: VmState, why: str = "", *, was_shut_down: bool = False) -> None:
        """End the machine. Only the first cause is recorded; later callers wait for the end."""
        if self._is_ending:
            await asyncio.wait((self._over,))
            return
        self._is_ending = True
        if self._machine is None or not self._machine.has_begun:
            was_shut_down = self.status.was_shut_down  # it is as the life before has left it
        if self.commands is not None:
            self.commands.give_up("the machine did not resume")
            self.commands.release()
        if self._machine is not None:
            await self._machine.kill()
            # Do not use the driver's layers: an interrupted snapshot may not have told it of a
            # new one, and a machine that did not come up still has the recorded layers.
            try:
                await in_side_thread(self.directory.sync_disk, self.status.layers)
            except OSError as error:
                state, why = VmState.ABORTED, why or f"its disk cannot be written: {error}"
                was_shut_down = False
        self._finish(state, why, was_shut_down=was_shut_down)

    def _finish(self, state: VmState, why: str = "", **changes: object) -> None:
        self._is_ending = True
        session, self._is_up = self.session, False
        if state is VmState.SAVED and self.commands is not None:
            self.commands.freeze()
        if session is not None:
            session.fail(GuestDiedError("the machine has ended"))
            session.link.close()
        self._machine = None
        try:
            self._set(state, why, started_at=None, **changes)
        except OSError as error:
            reason = f"the state {state.label} cannot be recorded: {error.strerror}"
            self.status = self.status._replace(state=VmState.ABORTED, why=reason)
            self._notify()
        if not self._over.done():
            self._over.set_result(None)

    async def close(self) -> None:
        """Release the image of a machine that has ended."""
        await self._warmers.close()
        self._held.close()


def _as_ours(error: BoincvmError | OSError) -> BoincvmError:
    return error if isinstance(error, BoincvmError) else host_error("the host refused", error)


async def _run_first_boot(session: Session, script: str) -> None:
    """Run a script in a guest that boots for the first time. Raises TaskFailedError, GuestError.

    If it fails, so does the start, and the next one begins with a new disk.
    """
    command: tuple[str, ...] = ("sh", "-c", script)
    if script.startswith("#!"):  # it names what runs it
        command = ("sh", "-c", _AS_FILE, "sh", script)
    try:
        run = output_in_guest(session, command, _COMPLAINT, within=LONG, is_end_kept=True)
        code, output = await session.guard(run)
    except GuestCommandLimitError as error:
        raise TaskFailedError(
            f"its first-boot script did not end within {format_duration(LONG)}",
            hint="create the machine again with a script that takes less time",
        ) from error
    if code != 0:
        raise TaskFailedError(
            f"its first-boot script failed: {printable(output) or f'it ended with {code}'}",
            hint="create the machine again with a script that works",
        )
    # What it has written is on the disk before anybody is told that the machine is up.
    complaint = await session.guard(run_in_guest(session, ("sync",)))
    if complaint is not None:
        raise TaskFailedError(
            f"what the first-boot script wrote is not on its disk: {complaint}",
            hint="give it a larger disk: boincvm create --disk",
        )
