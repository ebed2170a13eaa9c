"""One life of a machine: it begins, is paused, saved and stopped as it is told, and ends."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from boincvm.controller.guest_commands import GuestCommands
from boincvm.controller.keeper.kept_programs import KeptPrograms, drain
from boincvm.controller.keeper.origins import (
    former_machine,
    may_be_copy,
    new_machine,
    spec_of,
)
from boincvm.controller.keeper.place import Definition, Place
from boincvm.controller.keeper.screen import open_screen
from boincvm.controller.keeper.snapshots import Snapshot, Snapshots, read_checkpoint
from boincvm.controller.report import Report
from boincvm.controller.vm_state import VmState
from boincvm.errors import BoincvmError, GuestDiedError, HypervisorError, UsageError
from boincvm.guestlink.link import GuestLink
from boincvm.hypervisor.contract import Driver, MachineSpec
from boincvm.hypervisor.drivers import DriverName, open_driver
from boincvm.image.store import Image, ImageStore
from boincvm.wrapper.golden_background import Warmers
from boincvm.wrapper.host_room import check_checkpoint_room, check_room
from boincvm.wrapper.saved_machine import SavedMachine, next_number, write_saved
from boincvm.wrapper.session import Session
from boincvm.wrapper.side_thread import in_side_thread
from boincvm.wrapper.task_machine import TaskMachine

_KEPT_FOR_LAST = 30.0
"""Seconds that saving may take where the host is being shut down."""


class KeptMachine:
    """`tell` is called at each change of state; `commands`: those that its guest was given. Its
    verbs are called one after the other."""

    def __init__(self, place: Place, definition: Definition, tell: Callable[[], None]) -> None:
        self.place = place
        self.definition = definition
        self.snapshots = Snapshots(place)
        self.programs = KeptPrograms(lambda: self.session)
        self.commands: GuestCommands | None = None
        self.status = place.status()
        self.progress: float | None = None
        self._tell = tell
        self._held = ExitStack()
        self._warmers = Warmers()
        self._image: Image | None = None
        self._machine: TaskMachine | None = None
        self._is_up = False
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cpu = (time.monotonic(), 0.0)

    # What others see of it.

    @property
    def session(self) -> Session | None:
        """None while no program can run in it."""
        return self._machine.session if self._machine is not None and self._is_up else None

    def report(self) -> Report:
        """As it is now."""
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
        self.status = self.status._replace(state=state, why=why, **changes)  # type: ignore[arg-type]
        self.place.write_status(self.status)
        self._tell()

    # Its beginning.

    def begin_life(self, commands: GuestCommands, *, goes_on: bool) -> None:
        """Its keeper is there. `goes_on`: with the life in which it was saved."""
        self.commands = commands
        commands.hold()  # until there is a machine to run them in
        if goes_on:
            commands.load(self.place.commands())
        else:
            self.place.write_commands([])
        self._set(VmState.STARTING, instance=commands.instance, pid=os.getpid())

    async def begin(self, snapshot: str | None) -> None:
        """Until the guest's agent has answered: from `snapshot`, from where it was saved, or from
        its boot. Raises BoincvmError."""
        image = self._image = await in_side_thread(ImageStore().open, self.definition.image)
        self._held.enter_context(image)
        if self.status.image not in ("", image.digest):
            raise HypervisorError(
                f"the image {image.name} has changed since the machine's disk was made",
                hint="make a new machine, or bring the former image back",
            )
        check_room(self.place.disk, self.definition.memory)
        found = self.snapshots.find(snapshot) if snapshot is not None else None
        number = found.number if found else self.status.saved
        goes_on = number is not None or self.status.saved is not None
        driver = await open_driver(DriverName.QEMU, image.kernel)
        spec = spec_of(self.definition, image, self.place.disk)
        if number is None:
            await self._boot(driver, spec, image)
        else:
            self._set(VmState.RESTORING, started_at=time.time())
            saved = await in_side_thread(read_checkpoint, self.place, number)
            await self._restore(driver, spec, saved, found)
        self._is_up = True
        machine = self._required().machine
        self.come_up(image.digest, machine.disk_layers, machine.files_in_use() if goes_on else None)

    def come_up(
        self, image: str, layers: tuple[str, ...], goes_on_with: frozenset[str] | None
    ) -> None:
        """It runs. `goes_on_with`: files that it still needs of what it was restored from, None
        where it booted. Nothing else is left of that when others hear that it runs. Raises
        HostError, OSError."""
        if goes_on_with is not None:
            self._set(VmState.RESTORING, layers=layers, saved=None)
            self.snapshots.sweep(goes_on_with)
        self.place.write_commands([])
        self._set(VmState.RUNNING, image=image, layers=layers, saved=None)
        if self.commands is not None:
            self.commands.release()

    async def _boot(self, driver: Driver, spec: MachineSpec, image: Image) -> None:
        self._set(VmState.STARTING, started_at=time.time())
        spec = spec._replace(layers=self.status.layers)
        self._machine = new_machine(driver, spec, image)
        await self._machine.start()
        if spec.display:
            open_screen(self._machine.session.link)
        if may_be_copy(driver, spec) and not self._machine.is_copy:
            self._warmers.make(image, spec)

    async def _restore(
        self, driver: Driver, spec: MachineSpec, saved: SavedMachine, snapshot: Snapshot | None
    ) -> None:
        machine = self._machine = former_machine(driver, spec, saved)

        def attach(link: GuestLink) -> None:
            if snapshot is not None:
                drain(link, snapshot.programs)
            elif self.commands is not None:
                self.commands.attach(partial(self.programs.bring_back, machine.session))

        await machine.start(attach)

    def _required(self) -> TaskMachine:
        if self._machine is None or not self._is_up:
            raise UsageError("the machine is not up", hint="wait until it runs, or start it")
        return self._machine

    # Its life.

    async def until_over(self) -> None:
        """Until it has ended, for whatever reason; `status` says which."""
        machine = self._required()
        watch = asyncio.ensure_future(machine.session.guard(_for_ever()))
        try:
            await asyncio.wait((watch, self._over), return_when=asyncio.FIRST_COMPLETED)
            if not self._over.done():
                await self._end_badly(watch)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _end_badly(self, watch: "asyncio.Future[None]") -> None:
        try:
            await watch
        except GuestDiedError as error:
            if self.status.state is VmState.STOPPING or "by itself" in error.message:
                await self._end(VmState.POWERED_OFF)
                return
            await self.fail(error)
        except BoincvmError as error:
            await self.fail(error)

    async def fail(self, error: BoincvmError) -> None:
        """It ends, and that was nobody's wish."""
        await self._end(VmState.ABORTED, error.message)

    async def pause(self) -> None:
        """Again is harmless. Raises BoincvmError."""
        await self._required().suspend()
        self._set(VmState.PAUSED)

    async def resume(self) -> None:
        """The opposite."""
        await self._required().resume()
        self._set(VmState.RUNNING)

    async def save(self) -> None:
        """Its state goes to the disk, and it ends. Raises BoincvmError: then it runs on."""
        machine, before = self._required(), self.status.state
        self._set(VmState.SAVING)
        try:
            saved, _ = await self._keep(last=True)
        except (BoincvmError, OSError):
            if self._is_up and machine.machine.process_ids():
                await machine.resume()
                self._set(VmState.RUNNING if before is not VmState.PAUSED else before)
            raise
        self._finish(VmState.SAVED, saved=saved.checkpoint.number)

    async def snapshot(self, name: str | None, description: str) -> tuple[str, SavedMachine]:
        """Keeps its state while it runs on; the snapshot's name. Raises BoincvmError, OSError."""
        self._required()
        chosen = self.snapshots.choose_name(name, description)
        before = self.status.state
        self._set(VmState.SAVING)
        try:
            saved, programs = await self._keep(last=False)
            self.snapshots.add(chosen, description, saved, programs)
        finally:
            if before is VmState.PAUSED:
                await self._required().suspend()
            self._set(before, layers=self._required().machine.disk_layers)
        return chosen, saved

    async def _keep(self, *, last: bool) -> tuple[SavedMachine, list[dict[str, object]]]:
        """And the programs that ran."""
        machine, image, commands = self._required(), self._image, self.commands
        if image is None or commands is None:
            raise HypervisorError("the machine has not begun")
        check_checkpoint_room(self.place.disk, machine.resident(), self.place.disk, 0)
        number = next_number(self.place.disk)
        commands.hold()
        try:
            kept, link, (programs, told) = await machine.keep(
                number, lambda: (self.programs.states(), commands.states()), last=last
            )
        except BaseException:
            commands.release()
            raise
        if not last:
            commands.release()
        saved = SavedMachine(
            checkpoint=kept,
            driver=DriverName.QEMU,
            image=image.digest,
            shape=self.definition.shape,
            link=link,
            steps=(),
            task=None,
        )
        await in_side_thread(write_saved, self.place.disk, saved)
        if last:
            await in_side_thread(self.place.write_commands, told)
        return saved, programs

    async def stop(self, within: float) -> None:
        """The guest writes out its disk and ends; after `within` seconds it is ended."""
        machine = self._required()
        self._set(VmState.STOPPING)
        await machine.resume()
        machine.session.link.power_off()
        try:
            async with asyncio.timeout(within):
                await machine.machine.ended()
        except TimeoutError:
            pass  # then without its help
        await self._end(VmState.POWERED_OFF)

    async def power_off(self) -> None:
        """At once: like pulling the plug."""
        self._set(VmState.STOPPING)
        await self._end(VmState.POWERED_OFF)

    def remove_snapshot(self, name: str) -> None:
        """Raises UsageError, OSError."""
        self.snapshots.remove(name, self._required().machine.files_in_use(), self.status.saved)

    # Its end.

    async def end_with_host(self) -> None:
        """We were asked to end, as everybody is when the host is shut down: it is saved if it
        can be."""
        if self._over.done():
            return
        try:
            async with asyncio.timeout(_KEPT_FOR_LAST):
                await self.save()
        except (BoincvmError, OSError, TimeoutError) as error:
            await self._end(VmState.ABORTED, f"it could not be saved: {error}")

    async def _end(self, state: VmState, why: str = "") -> None:
        if self._over.done():
            return
        if self.commands is not None:
            self.commands.give_up("the machine did not come back")
            self.commands.release()
        machine = self._machine
        if machine is not None:
            await machine.kill()
            layers = machine.machine.disk_layers
            await in_side_thread(_sync, self.place.disk, layers)
            self._finish(state, why, layers=layers or self.status.layers)
        else:
            self._finish(state, why)

    def _finish(self, state: VmState, why: str = "", **changes: object) -> None:
        session, self._is_up = self.session, False
        if state is VmState.SAVED and self.commands is not None:
            self.commands.freeze()
        if session is not None:
            session.fail(GuestDiedError("the machine has ended"))
            session.link.close()
        self._machine = None
        self._set(state, why, started_at=None, **changes)
        if not self._over.done():
            self._over.set_result(None)

    async def close(self) -> None:
        """Lets go of the image; the machine has ended."""
        await self._warmers.close()
        self._held.close()


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def _sync(directory: object, layers: tuple[str, ...]) -> None:
    """What the guest has written outlives a power cut from now on."""
    for name in layers:
        descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
