"""The VirtualBox driver: each machine in a private VirtualBox (home.py), run by VBoxHeadless."""

import asyncio
import subprocess
import uuid
from typing import NamedTuple

from boincvm.errors import HypervisorError, HypervisorMissingError, host_error
from boincvm.host.files import remove_if_empty
from boincvm.host.programs import run_quickly
from boincvm.hypervisor.channel import Channel
from boincvm.hypervisor.contract import (
    EndCause,
    MachineEnd,
    MachineSpec,
    MachineState,
    NetworkCard,
    Usage,
)
from boincvm.hypervisor.serial_line import SerialChannel
from boincvm.hypervisor.virtualbox import command
from boincvm.hypervisor.virtualbox.boot_disc import write_boot_disc
from boincvm.hypervisor.virtualbox.disks import WINDOW_FILES, Disks
from boincvm.hypervisor.virtualbox.home import Home
from boincvm.hypervisor.virtualbox.installation import INSTALL_HINT, MANAGE, OLDEST, program
from boincvm.hypervisor.virtualbox.process import HeadlessProcess
from boincvm.hypervisor.virtualbox.vboxmanage import Version, VirtualBoxError, parse_version

_RUNS = (MachineState.RUNNING, MachineState.PAUSED)
_STARTING_LIMIT = 60.0
"""Seconds in which a machine whose processor has begun takes commands."""
_MOMENT = 0.05
_NOT_YET = ("is not currently running", "Starting", "Restoring", "already locked", "Spawning")
"""What VirtualBox says of a machine that is about to run. It has no event for the command line."""


class VirtualBoxDriver:
    """Makes machines on VirtualBox."""

    name = "virtualbox"
    has_firmware = True
    most_cpus: int | None = command.MOST_CPUS
    saved_machines = None
    golden_snapshots = None

    def __init__(self, version: Version) -> None:
        self.version = version

    def machine(self, spec: MachineSpec) -> "VirtualBoxMachine":
        return VirtualBoxMachine(spec, self.version)


async def open_driver() -> VirtualBoxDriver:
    """Return the driver for the VirtualBox that is installed.

    Raises HypervisorMissingError where there is none, or one that is too old.
    """
    path = program(MANAGE)
    try:
        text = await asyncio.to_thread(run_quickly, [path, "--version"])
    except (OSError, subprocess.SubprocessError) as error:
        raise HypervisorMissingError(f"{path} does not work: {error}", hint=INSTALL_HINT) from error
    version = parse_version(text)
    if version < OLDEST:
        raise HypervisorMissingError(f"VirtualBox {version} is too old", hint=INSTALL_HINT)
    return VirtualBoxDriver(version)


class TransferDisk(NamedTuple):
    """The `contract.TransferDisk` of a VirtualBox."""

    descriptor: int


class VirtualBoxMachine:
    """A machine with a VirtualBox of its own."""

    checkpointing = None
    freezing = None
    balloon = None
    display = None

    def __init__(self, spec: MachineSpec, version: Version) -> None:
        self.spec = spec
        self.state = MachineState.DEFINED
        self._version = version
        self._id = str(uuid.uuid4())
        self.home: Home | None = None
        """Its VirtualBox, from `create` to its end."""
        self._disks: Disks | None = None
        self._process: HeadlessProcess | None = None
        self._asked_to_end = False
        self._layers = spec.layers

    @property
    def transfer_disk(self) -> TransferDisk | None:
        return TransferDisk(self._disks.window) if self._disks is not None else None

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
        if self.state is not MachineState.DEFINED:
            return
        home = self.home = Home.make()
        try:
            directory = home.directory if self.spec.ephemeral else self.spec.directory
            disks = self._disks = Disks(self.spec, directory, self.spec.layers)
            self._layers = disks.layers
            await self._define(home, disks)
        except OSError as error:
            await self._remove_home()
            raise host_error("the machine cannot be made", error, HypervisorError) from error
        except BaseException:
            await self._remove_home()
            raise
        if self.spec.ephemeral:
            remove_if_empty(self.spec.directory)
        self.state = MachineState.CREATED

    async def _define(self, home: Home, disks: Disks) -> None:
        """Have VirtualBox know the machine."""
        spec, name = self.spec, home.name
        home.write_registry(disks.chain, [disks.window_medium])
        run = home.manage.run
        await run(*command.create(name, str(home.machine_directory), self._id))
        sockets = tuple(str(home.socket(line)) for line in command.LINES)
        snapshots = str(disks.directory)
        await run(*command.modify(name, spec, self._version, sockets, snapshots))
        await run(*command.extra_data(name))
        for verb in command.controllers(name):
            await run(*verb)
        controller, disk = command.DISK_CONTROLLER, command.attach
        if spec.kernel is None:
            controller = command.BOOT_CONTROLLER
        elif spec.initrd is None:
            raise HypervisorError("the machine was given a kernel, but no initrd")
        else:
            arguments = command.kernel_arguments(spec)
            await asyncio.to_thread(
                write_boot_disc, home.boot_disc, spec.kernel, spec.initrd, arguments
            )
            await run(*disk(name, command.BOOT_CONTROLLER, 0, "dvddrive", str(home.boot_disc)))
        await run(*disk(name, controller, 0, "hdd", str(disks.top.id)))
        window = str(disks.window_medium.id)
        await run(*disk(name, command.DISK_CONTROLLER, 1, "hdd", window))

    async def start(self) -> Channel:
        if self.state in _RUNS:
            raise HypervisorError("the machine is already running, and its link is taken")
        if self.state is not MachineState.DEFINED and (self.home is None or self._process):
            raise HypervisorError("the machine has ended, so it cannot start again")
        await self.create()
        if self.home is None:
            raise RuntimeError("a machine that was created has no home")
        try:
            process = await HeadlessProcess.start(self.home, self._id, paused=False)
        except OSError as error:
            raise host_error("VirtualBox cannot be started", error, HypervisorError) from error
        self._process = process
        self.state = MachineState.RUNNING
        return SerialChannel(process.link, process.receipts)

    def _running(self, wanted: str) -> Home:
        if self.home is None or self.state not in _RUNS:
            raise HypervisorError(f"the machine is not running, so it cannot be {wanted}")
        return self.home

    async def _control(self, home: Home, *verb: str) -> None:
        """Give a command to the machine as soon as it takes any."""
        async with asyncio.timeout(_STARTING_LIMIT):
            while True:
                try:
                    await home.manage.run("controlvm", home.name, *verb)
                except VirtualBoxError as error:
                    if not self.process_ids() or not any(sign in error.text for sign in _NOT_YET):
                        raise
                else:
                    return
                await asyncio.sleep(_MOMENT)

    async def pause(self) -> None:
        home = self._running("paused")
        if self.state is MachineState.RUNNING:
            await self._control(home, "pause")
            self.state = MachineState.PAUSED

    async def resume(self) -> None:
        home = self._running("resumed")
        if self.state is MachineState.PAUSED:
            await self._control(home, "resume")
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

    async def stop(self) -> None:
        if self._process is not None:
            self._asked_to_end = True
            self._process.child.kill()
            await self._process.child.wait()
            self._process.close()
        await self._remove_home()
        if self.state in _RUNS:
            self.state = MachineState.STOPPED

    async def _remove_home(self) -> None:
        """Remove the machine's VirtualBox; its disk stays, unless it is ephemeral."""
        if self._disks is not None:
            self._disks.close()
            self._disks = None
        if self.home is not None:
            home, self.home = self.home, None
            await home.remove()

    async def destroy(self) -> None:
        await self.stop()
        if self.state is not MachineState.DESTROYED:
            if not self.spec.ephemeral:
                for name in (*self._layers, *WINDOW_FILES):
                    (self.spec.directory / name).unlink(missing_ok=True)
            self.state = MachineState.DESTROYED

    async def ended(self) -> MachineEnd:
        if self._process is None:
            raise HypervisorError("the machine was never started")
        end = await self._process.ended()
        return MachineEnd(EndCause.ASKED, "") if self._asked_to_end else end
