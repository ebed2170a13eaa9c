"""One machine of VirtualBox, with a VirtualBox of its own (home.py), run by VBoxHeadless."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorError, HypervisorKilledError, host_error
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
    RemoteDesktop,
    RemoteDesktopAccess,
    Screenshots,
    Usage,
)
from boincvm.hypervisor.disks import TransferDiskFile, share_file
from boincvm.hypervisor.life_cycle import check_can_start
from boincvm.hypervisor.sealing import sealed_checkpoint
from boincvm.hypervisor.serial_line import SerialChannel
from boincvm.hypervisor.uninterrupted import uninterrupted
from boincvm.hypervisor.virtualbox import command, remote_desktop
from boincvm.hypervisor.virtualbox.disks import TRANSFER_DISK_FILES, Disks
from boincvm.hypervisor.virtualbox.home import Home
from boincvm.hypervisor.virtualbox.process import HeadlessProcess
from boincvm.hypervisor.virtualbox.saved import (
    GOLDEN_TABLE,
    SavedState,
    read_saved_state,
)
from boincvm.hypervisor.virtualbox.saving import (
    Frozen,
    check_top,
    saved_states,
    take_snapshot,
)
from boincvm.hypervisor.virtualbox.vboxmanage import Version, VirtualBoxError, parse_table
from boincvm.job.model import PortForward

_STARTING_LIMIT = 60.0
"""Seconds in which a machine that has begun takes commands."""
_DESKTOP_LIMIT = 20.0
"""Seconds in which a machine that has begun has opened the port of its remote desktop."""
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
        self._password = ""
        self._remote_desktop: RemoteDesktopAccess | None = None
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
        return TransferDiskFile(self._disks.transfer_disk) if self._disks is not None else None

    @property
    def screenshots(self) -> Screenshots | None:
        return self

    async def take_screenshot(self, target: Path) -> None:
        """Implement `Screenshots.take_screenshot`."""
        await self._control(self._running("seen"), "screenshotpng", str(target))

    @property
    def remote_desktop(self) -> RemoteDesktop | None:
        return self if self.spec.remote_desktop else None

    @property
    def access(self) -> RemoteDesktopAccess | None:
        """Implement `RemoteDesktop.access`."""
        return self._remote_desktop if self.state.is_active else None

    @property
    def network(self) -> NetworkCard | None:
        return self if self.spec.network else None

    @property
    def disk_layers(self) -> tuple[str, ...]:
        return () if self.spec.ephemeral else self._layers

    def files_in_use(self) -> frozenset[str]:
        return (
            frozenset() if self.spec.ephemeral else frozenset((*self._layers, *TRANSFER_DISK_FILES))
        )

    def usage(self) -> Usage | None:
        return self._process.usage() if self._process is not None else None

    def process_ids(self) -> tuple[int, ...]:
        running = self._process is not None and self._process.child.is_running
        return (self._process.child.pid,) if self._process is not None and running else ()

    @property
    def forwards(self) -> tuple[PortForward, ...]:
        return self.spec.forwards

    async def create(self) -> None:
        if self.state not in (MachineState.DEFINED, MachineState.SAVED) or self.home is not None:
            return
        try:
            home, disks = await uninterrupted(self._make_files())
            await self._define(home, disks)
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

    async def _make_files(self) -> tuple[Home, Disks]:
        home = self.home = await asyncio.to_thread(Home.make)
        directory = home.directory if self.spec.ephemeral else self.spec.directory
        if self._source is not None and self._source.directory != directory:
            for name in self._source.saved.layers:
                share_file(self._source.directory / name, directory / name)
        is_saved = self._source is not None
        disks = self._disks = await asyncio.to_thread(
            Disks, self.spec, directory, self._layers, are_frozen=is_saved
        )
        self._layers = disks.layers
        return home, disks

    async def _define(self, home: Home, disks: Disks) -> None:
        """Have VirtualBox know the machine."""
        name, run, attach = home.name, home.manage.run, command.attach
        home.write_registry(disks.chain, [disks.transfer_disk_medium])
        await run(*command.create(name, str(home.machine_directory), self._id))
        sockets = tuple(str(home.socket(line)) for line in command.LINES)
        await run(*command.modify(name, self.spec, self._version, sockets, str(disks.directory)))
        await run(*command.extra_data(name))
        if self.spec.remote_desktop:
            pack = await remote_desktop.find_pack(home.manage)
            await run(*remote_desktop.modify(name, pack))
            self._password = remote_desktop.new_password()
            await run(*remote_desktop.allow(name, self._password))
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
        transfer_disk = str(disks.transfer_disk_medium.id)
        await run(*attach(name, command.DISK_CONTROLLER, 1, "hdd", transfer_disk))
        if self._source is not None:
            state = home.directory / "state.sav"  # VirtualBox removes it once it has read it
            share_file(self._source.directory / self._source.saved.state, state)
            await run("adoptstate", name, str(state))

    async def start(self) -> Channel:
        was_removed = self.state is MachineState.CREATED and self.home is None
        check_can_start(self.state, has_ended=self._process is not None or was_removed)
        await self.create()
        if self.home is None:
            raise RuntimeError("a machine that was created has no VirtualBox")
        goes_on = self._source is not None
        try:
            process = await HeadlessProcess.start(
                self.home, self._id, paused=goes_on, remote_desktop=self.spec.remote_desktop
            )
        except OSError as error:
            raise host_error("VirtualBox cannot be started", error, HypervisorError) from error
        except VirtualBoxError as error:
            other = self._other_version()
            if not other:
                raise
            raise HypervisorError(f"{error.message}{other}", hint=error.hint) from error
        self._process = process
        channel = SerialChannel(process.link, process.receipts)
        try:
            if goes_on:
                await self._until_paused(self.home)
            self.state = MachineState.PAUSED if goes_on else MachineState.RUNNING
            if self.spec.remote_desktop:
                self._remote_desktop = await self._bound_remote_desktop(self.home)
        except BaseException:
            channel.close()
            raise
        return channel

    async def _bound_remote_desktop(self, home: Home) -> RemoteDesktopAccess:
        """Wait until the remote desktop's server has a port, and return how to reach it."""
        address, user = remote_desktop.ADDRESS, remote_desktop.USER
        try:
            async with asyncio.timeout(_DESKTOP_LIMIT):
                while self.process_ids():
                    output = await home.manage.run("showvminfo", home.name, "--machinereadable")
                    port = remote_desktop.bound_port(output)
                    if port is not None:
                        return RemoteDesktopAccess("RDP", address, port, user, self._password)
                    await asyncio.sleep(_MOMENT)
        except TimeoutError:
            pass
        raise HypervisorError("VirtualBox does not open the machine's remote desktop")

    async def _until_paused(self, home: Home) -> None:
        """Wait until the machine has its memory back."""
        try:
            async with asyncio.timeout(_STARTING_LIMIT):
                while True:
                    output = await home.manage.run("showvminfo", home.name, "--machinereadable")
                    if parse_table(output).get("VMState") == "paused":
                        return
                    if not self.process_ids():
                        await self._check_not_killed()
                        break
                    await asyncio.sleep(_MOMENT)
        except TimeoutError:
            pass
        reason = await self._why_it_did_not_go_on()
        raise HypervisorError(f"the machine does not resume{self._other_version()}: {reason}")

    async def _check_not_killed(self) -> None:
        """Raise HypervisorKilledError if that ended the process, which has ended."""
        if self._process is not None and not self._asked_to_end:
            end = await self._process.ended()
            if end.cause is EndCause.KILLED:
                raise HypervisorKilledError(f"the machine did not resume: {end.detail}")

    def _other_version(self) -> str:
        """Say that another VirtualBox has saved what the machine starts from, if that is so."""
        if self._source is None or self._source.saved.version == str(self._version):
            return ""
        return f" (VirtualBox {self._source.saved.version} saved it, and {self._version} is here)"

    async def _why_it_did_not_go_on(self) -> str:
        if self._process is None:
            return "it was not started"
        self._process.child.kill()
        return (await self._process.ended()).detail or "VirtualBox gives no reason"

    def _running(self, wanted: str) -> Home:
        if self.home is None or not self.state.is_active:
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
            await uninterrupted(self._pause(home))

    async def _pause(self, home: Home) -> None:
        await self._control(home, "pause", unless="Already paused")
        self.state = MachineState.PAUSED

    async def resume(self) -> None:
        home = self._running("resumed")
        if self.state is MachineState.PAUSED:
            await uninterrupted(self._resume(home))

    async def _resume(self, home: Home) -> None:
        await self._control(home, "resume", unless="(machine state: Running)")
        self.state = MachineState.RUNNING

    async def connect(self, *, connected: bool) -> None:
        """Implement `NetworkCard.connect`."""
        on = "on" if connected else "off"
        if self.state.is_active:
            await self._control(self._running("connected"), "setlinkstate1", on)
        else:
            await self.create()
            if self.home is not None:
                await self.home.manage.run("modifyvm", self.home.name, "--cableconnected1", on)

    async def checkpoint(
        self, number: int, record_layers: RecordLayers | None = None
    ) -> Checkpoint:
        """Implement `Checkpointing.checkpoint`; the guest is paused while its memory is written."""
        home, disks = self._running("saved"), self._disks
        if disks is None or self.spec.ephemeral:
            raise HypervisorError("an ephemeral machine is never saved")
        frozen = await uninterrupted(self._take_snapshot(home, disks, number, record_layers))
        saved = self._saved_state(frozen.state, frozen.layers)
        self._checkpoint = await self._sealed(number, saved, frozen.pause)
        return self._checkpoint

    async def _take_snapshot(
        self, home: Home, disks: Disks, number: int, record_layers: RecordLayers | None
    ) -> Frozen:
        was = self.state
        await self.pause()
        try:
            return await take_snapshot(home, disks, number, record_layers)
        except OSError as error:
            raise host_error("the machine cannot be saved", error, HypervisorError) from error
        finally:
            self._layers = disks.layers
            if was is MachineState.RUNNING and self.process_ids():
                await self.resume()

    async def save(self, number: int, record_layers: RecordLayers | None = None) -> Checkpoint:  # noqa: ARG002
        """Implement `Checkpointing.save`; the disk needs no new layer until it goes on."""
        if self.state is MachineState.SAVED and self._checkpoint is not None:
            return self._checkpoint
        home = self._running("saved")
        if self.spec.ephemeral:
            raise HypervisorError("an ephemeral machine is never saved")
        state = await self._save_state(home, self.spec.directory)
        checkpoint = await self._sealed(number, self._saved_state(state, self._layers), 0.0)
        await self._end()
        self.state = MachineState.SAVED
        self._checkpoint = checkpoint
        return checkpoint

    async def _save_state(self, home: Home, directory: Path) -> str:
        """Have VirtualBox write memory and devices, and end; return the file's name."""
        if self._disks is not None:
            await check_top(home, self._disks)
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

    def _saved_state(self, state: str, layers: tuple[str, ...]) -> SavedState:
        return SavedState(str(self._version), processor_name(), state, layers)

    async def _sealed(self, number: int, saved: SavedState, pause: float) -> Checkpoint:
        return await sealed_checkpoint(
            number, self.spec.directory, saved.files, saved.table(), self._checkpoint, pause
        )

    async def freeze(self) -> None:
        """Implement `Freezing.freeze`."""
        home, directory = self._running("a golden snapshot"), self.spec.directory
        state = await self._save_state(home, directory)
        saved = self._saved_state(state, self._layers)
        (directory / GOLDEN_TABLE).write_text(json.dumps(saved.table()))
        await self._end()
        for name in TRANSFER_DISK_FILES:
            (directory / name).unlink(missing_ok=True)
        self.state = MachineState.DESTROYED  # what is left belongs to the snapshot

    async def stop(self) -> None:
        self._asked_to_end = True
        await self._end()
        if self.state.is_active:
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
            for name in TRANSFER_DISK_FILES:
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
