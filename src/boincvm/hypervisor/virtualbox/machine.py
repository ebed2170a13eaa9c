"""One machine of VirtualBox, with a VirtualBox of its own (home.py), run by VBoxHeadless."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorError, host_error
from boincvm.host.files import remove_if_empty
from boincvm.host.resources import processor_name
from boincvm.hypervisor.boot_disc import write_boot_disc
from boincvm.hypervisor.channel import Channel
from boincvm.hypervisor.contract import (
    Checkpoint,
    Checkpointing,
    EndCause,
    Freezing,
    MachineEnd,
    MachineSpec,
    MachineState,
    NetworkCard,
    RecordLayers,
    Usage,
)
from boincvm.hypervisor.disks import TransferDiskFile
from boincvm.hypervisor.serial_line import SerialChannel
from boincvm.hypervisor.virtualbox import command
from boincvm.hypervisor.virtualbox.disks import WINDOW_FILES, Disks
from boincvm.hypervisor.virtualbox.home import Home
from boincvm.hypervisor.virtualbox.process import HeadlessProcess
from boincvm.hypervisor.virtualbox.saved import (
    GOLDEN_TABLE,
    SavedState,
    read_saved_state,
    share_file,
)
from boincvm.hypervisor.virtualbox.saving import Frozen, describe, saved_states, take_snapshot
from boincvm.hypervisor.virtualbox.vboxmanage import Version, VirtualBoxError, parse_table

_RUNS = (MachineState.RUNNING, MachineState.PAUSED)
_STARTING_LIMIT = 60.0
"""Seconds in which a machine that has begun takes commands."""
_MOMENT = 0.05
_NOT_YET = (
    *("is not currently running", "Starting", "Restoring", "already locked", "Spawning"),
    "COM RC=E_ACCESSDENIED",
)
"""What VirtualBox says of a machine that is about to run, for which the command line has no event.
The last one came once of a machine that was to be saved, right after a snapshot of it."""


class Source(NamedTuple):
    """What a machine starts from, if it does not boot."""

    saved: SavedState
    directory: Path
    """Where the state's files lie. They are shared with the machine, which never changes them."""
    checkpoint: Checkpoint | None = None
    """The checkpoint that this is, if it is the machine's own."""


class VirtualBoxMachine:
    """A machine that boots, or goes on from `source`."""

    balloon = None
    display = None
    root_disk = None

    def __init__(
        self,
        spec: MachineSpec,
        version: Version,
        source: Source | None = None,
        *,
        is_freezable: bool = False,
    ) -> None:
        self.spec = spec
        self.state = MachineState.DEFINED if source is None else MachineState.SAVED
        self.home: Home | None = None
        """Its VirtualBox, from `create` to its end."""
        self._version = version
        self._source = source
        self._is_freezable = is_freezable
        self._id = str(uuid.uuid4())
        self._disks: Disks | None = None
        self._process: HeadlessProcess | None = None
        self._asked_to_end = False
        self._layers = spec.layers if source is None else source.saved.layers
        self._checkpoint = source.checkpoint if source is not None else None

    @property
    def checkpointing(self) -> Checkpointing | None:
        return self

    @property
    def freezing(self) -> Freezing | None:
        return self if self._is_freezable else None

    @property
    def transfer_disk(self) -> TransferDiskFile | None:
        return TransferDiskFile(self._disks.window) if self._disks is not None else None

    @property
    def network(self) -> NetworkCard | None:
        return self if self.spec.network else None

    @property
    def disk_layers(self) -> tuple[str, ...]:
        return () if self.spec.ephemeral else self._layers

    def files_in_use(self) -> frozenset[str]:
        return frozenset() if self.spec.ephemeral else frozenset((*self._layers, *WINDOW_FILES))

    def usage(self) -> Usage | None:
        return self._process.usage() if self._process is not None else None

    def process_ids(self) -> tuple[int, ...]:
        running = self._process is not None and self._process.child.is_running
        return (self._process.child.pid,) if self._process is not None and running else ()

    async def create(self) -> None:
        if self.state not in (MachineState.DEFINED, MachineState.SAVED) or self.home is not None:
            return
        home = self.home = await asyncio.to_thread(Home.make)
        try:
            directory = home.directory if self.spec.ephemeral else self.spec.directory
            if self._source is not None and self._source.directory != directory:
                for name in self._source.saved.layers:
                    share_file(self._source.directory / name, directory / name)
            is_saved = self._source is not None
            self._disks = await asyncio.to_thread(
                Disks, self.spec, directory, self._layers, are_frozen=is_saved
            )
            self._layers = self._disks.layers
            await self._define(home, self._disks)
        except OSError as error:
            await self._remove_home()
            raise host_error("the machine cannot be made", error, HypervisorError) from error
        except BaseException:
            await self._remove_home()
            raise
        if self.spec.ephemeral:
            remove_if_empty(self.spec.directory)
        if self.state is MachineState.DEFINED:
            self.state = MachineState.CREATED

    async def _define(self, home: Home, disks: Disks) -> None:
        """Have VirtualBox know the machine."""
        name, run, attach = home.name, home.manage.run, command.attach
        home.write_registry(disks.chain, [disks.window_medium])
        await run(*command.create(name, str(home.machine_directory), self._id))
        sockets = tuple(str(home.socket(line)) for line in command.LINES)
        await run(*command.modify(name, self.spec, self._version, sockets, str(disks.directory)))
        await run(*command.extra_data(name))
        for verb in command.controllers(name):
            await run(*verb)
        controller = command.DISK_CONTROLLER
        if self.spec.kernel is None:
            controller = command.BOOT_CONTROLLER
        else:
            disc = "emptydrive"
            if self._source is None:
                disc = str(home.boot_disc)
                await asyncio.to_thread(_write_boot_disc, home.boot_disc, self.spec)
            await run(*attach(name, command.BOOT_CONTROLLER, 0, "dvddrive", disc))
        await run(*attach(name, controller, 0, "hdd", str(disks.top.id)))
        window = str(disks.window_medium.id)
        await run(*attach(name, command.DISK_CONTROLLER, 1, "hdd", window))
        if self._source is not None:
            state = home.directory / "state.sav"  # VirtualBox removes it once it has read it
            share_file(self._source.directory / self._source.saved.state, state)
            await run("adoptstate", name, str(state))

    async def start(self) -> Channel:
        if self.state in _RUNS:
            raise HypervisorError("the machine is already running, and its link is taken")
        if self._process is not None or self.state in (
            MachineState.STOPPED,
            MachineState.DESTROYED,
        ):
            raise HypervisorError("the machine has ended, so it cannot start again")
        await self.create()
        if self.home is None:
            raise HypervisorError("the machine has ended, so it cannot start again")
        goes_on = self._source is not None
        try:
            process = await HeadlessProcess.start(self.home, self._id, paused=goes_on)
        except OSError as error:
            raise host_error("VirtualBox cannot be started", error, HypervisorError) from error
        except VirtualBoxError as error:
            other = self._other_version()
            if not other:
                raise
            raise HypervisorError(f"{error.message}{other}", hint=error.hint) from error
        self._process = process
        if goes_on:
            await self._until_paused(self.home)
        self.state = MachineState.PAUSED if goes_on else MachineState.RUNNING
        return SerialChannel(process.link, process.receipts)

    async def _until_paused(self, home: Home) -> None:
        """Wait until the machine has its memory back."""
        try:
            async with asyncio.timeout(_STARTING_LIMIT):
                while True:
                    output = await home.manage.run("showvminfo", home.name, "--machinereadable")
                    if parse_table(output).get("VMState") == "paused":
                        return
                    if not self.process_ids():
                        break
                    await asyncio.sleep(_MOMENT)
        except TimeoutError:
            pass
        reason = await self._why_it_did_not_go_on()
        raise HypervisorError(f"the machine does not go on{self._other_version()}: {reason}")

    def _other_version(self) -> str:
        """Say that another VirtualBox has saved what the machine starts from, if that is so."""
        if self._source is None or self._source.saved.version == str(self._version):
            return ""
        return f" (VirtualBox {self._source.saved.version} saved it, and {self._version} is here)"

    async def _why_it_did_not_go_on(self) -> str:
        if self._process is None:
            return "it was not started"
        self._process.child.kill()
        return (await self._process.ended()).detail or "VirtualBox does not say why"

    def _running(self, wanted: str) -> Home:
        if self.home is None or self.state not in _RUNS:
            raise HypervisorError(f"the machine is not running, so it cannot be {wanted}")
        return self.home

    async def _control(self, home: Home, *verb: str, unless: str = "") -> None:
        """Give a command to the machine as soon as it takes any.

        `unless`: what VirtualBox says of a machine that is already where the command leads.
        """
        try:
            async with asyncio.timeout(_STARTING_LIMIT):
                while True:
                    try:
                        await home.manage.run("controlvm", home.name, *verb)
                    except VirtualBoxError as error:
                        if unless and unless in error.text:
                            return
                        is_early = any(sign in error.text for sign in _NOT_YET)
                        if not self.process_ids() or not is_early:
                            raise
                    else:
                        return
                    await asyncio.sleep(_MOMENT)
        except TimeoutError:
            raise HypervisorError(f"the machine does not take the command {verb[0]}") from None

    async def pause(self) -> None:
        home = self._running("paused")
        if self.state is MachineState.RUNNING:
            await self._control(home, "pause", unless="Already paused")
            self.state = MachineState.PAUSED

    async def resume(self) -> None:
        home = self._running("resumed")
        if self.state is MachineState.PAUSED:
            await self._control(home, "resume", unless="(machine state: Running)")
            self.state = MachineState.RUNNING

    async def connect(self, *, connected: bool) -> None:
        """Implement `NetworkCard.connect`."""
        on = "on" if connected else "off"
        if self.state in _RUNS:
            await self._control(self._running("connected"), "setlinkstate1", on)
        else:
            await self.create()
            if self.home is not None:
                await self.home.manage.run("modifyvm", self.home.name, "--cable-connected1", on)

    async def checkpoint(
        self, number: int, record_layers: RecordLayers | None = None
    ) -> Checkpoint:
        """Implement `Checkpointing.checkpoint`; the guest is paused while its memory is written."""
        home, was = self._running("saved"), self.state
        if self._disks is None or self.spec.ephemeral:
            raise HypervisorError("an ephemeral machine is never saved")
        await self.pause()
        try:
            frozen = await take_snapshot(home, self._disks, number, record_layers)
        except OSError as error:
            raise host_error("the machine cannot be saved", error, HypervisorError) from error
        finally:
            self._layers = self._disks.layers
            if was is MachineState.RUNNING and self.process_ids():
                await self.resume()
        directory = self.spec.directory
        self._checkpoint = await describe(
            number, directory, frozen, self._version, self._checkpoint
        )
        return self._checkpoint

    async def save(self, number: int, record_layers: RecordLayers | None = None) -> Checkpoint:  # noqa: ARG002
        """Implement `Checkpointing.save`; the disk needs no new layer until it goes on."""
        if self.state is MachineState.SAVED and self._checkpoint is not None:
            return self._checkpoint
        home = self._running("saved")
        if self.spec.ephemeral:
            raise HypervisorError("an ephemeral machine is never saved")
        directory = self.spec.directory
        state = await self._save_state(home, directory)
        frozen = Frozen(state, self._layers, 0.0)
        checkpoint = await describe(number, directory, frozen, self._version, self._checkpoint)
        await self._end()
        self.state = MachineState.SAVED
        self._checkpoint = checkpoint
        return checkpoint

    async def _save_state(self, home: Home, directory: Path) -> str:
        """Have VirtualBox write memory and devices, and end; return the file's name."""
        before = saved_states(directory)
        self._asked_to_end = True
        try:
            await self._control(home, "savestate")
        except BaseException:
            self._asked_to_end = False
            raise
        if self._process is not None:
            await self._process.child.wait()
        written = sorted(saved_states(directory) - before)  # by time, which their names are
        if not written:
            raise HypervisorError("VirtualBox has saved no state")
        for failed in written[:-1]:
            (directory / failed).unlink()
        return written[-1]

    async def freeze(self) -> None:
        """Implement `Freezing.freeze`."""
        home, directory = self._running("a golden snapshot"), self.spec.directory
        state = await self._save_state(home, directory)
        saved = SavedState(str(self._version), processor_name(), state, self._layers)
        (directory / GOLDEN_TABLE).write_text(json.dumps(saved.table()))
        await self._end()
        for name in WINDOW_FILES:
            (directory / name).unlink(missing_ok=True)
        self.state = MachineState.DESTROYED  # what is left belongs to the snapshot

    async def stop(self) -> None:
        self._asked_to_end = True
        await self._end()
        if self.state in _RUNS:
            self.state = MachineState.STOPPED

    async def _end(self) -> None:
        """End the process if it runs, and remove the machine's VirtualBox."""
        if self._process is not None:
            self._process.child.kill()
            await self._process.child.wait()
            self._process.close()
        await self._remove_home()

    async def _remove_home(self) -> None:
        """Remove the machine's VirtualBox; its disk stays, unless it is ephemeral."""
        if self._disks is not None:
            self._disks.close()
            self._disks = None
        if self.home is not None:
            home, self.home = self.home, None
            await home.remove()

    async def destroy(self) -> None:
        if self.state is MachineState.DESTROYED:
            return
        await self.stop()
        if not self.spec.ephemeral:
            for kind in ("*.vdi", "*.sav"):
                for path in self.spec.directory.glob(kind):
                    path.unlink(missing_ok=True)
            for name in WINDOW_FILES:
                (self.spec.directory / name).unlink(missing_ok=True)
        self.state = MachineState.DESTROYED

    async def ended(self) -> MachineEnd:
        if self._process is None:
            raise HypervisorError("the machine was never started")
        end = await self._process.ended()
        return MachineEnd(EndCause.ASKED, "") if self._asked_to_end else end


def _write_boot_disc(path: Path, spec: MachineSpec) -> None:
    if spec.kernel is None or spec.initrd is None:
        raise HypervisorError("the machine was given a kernel, but no initrd")
    write_boot_disc(path, spec.kernel, spec.initrd, command.kernel_arguments(spec))


def source_of(checkpoint: Checkpoint, directory: Path) -> Source:
    """Return the source for the machine in `directory` as of the checkpoint.

    Raises HypervisorError.
    """
    return Source(read_saved_state(checkpoint), directory, checkpoint)
