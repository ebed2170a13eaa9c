"""The private VirtualBox of one machine: its registry, service and sockets, in a directory.

    virtualbox/ID/        in the cache directory, mode 0700
        lock              held as long as the machine is ours: flock(2)
        home/             VBOX_USER_HOME: registry and logs of the service
        machine/          the machine's definition and log
        0, 1, 2           sockets of the serial lines
        boot.iso          the boot disc
        process           the process id of VBoxHeadless, in decimal
    /tmp/.vbox-boincvm-ID-ipc/   the service's socket, at the place that VirtualBox chooses

What a process that was killed has left is removed by the next one that makes a machine.
"""

import asyncio
import os
import secrets
import select
import shutil
import socket
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from boincvm.errors import HypervisorError, host_error
from boincvm.host.files import read_regular
from boincvm.host.locks import exclusive, open_lock, try_lock
from boincvm.host.own_files import check_directory, make_directory
from boincvm.host.process_tree import KILL, command_line, send
from boincvm.host.processes import open_process
from boincvm.host.sockets import connect_blocking, peer_process, private_listener
from boincvm.hypervisor.virtualbox.vboxmanage import VBoxManage, environment
from boincvm.paths import cache_directory

_HOMES = "virtualbox"
_PREFIX = "boincvm-"
_LOCK, _USER_HOME, _MACHINE, _PROCESS = "lock", "home", "machine", "process"
_REGISTRY = "VirtualBox.xml"
_SERVICE = b"VBoxSVC"
_SERVICE_LIMIT = 10.0
"""Seconds that the service may take to end when it is told to."""
_LONGEST_SOCKET = 107
"""Bytes of a socket's path: sun_path of unix(7)."""


class Medium(NamedTuple):
    """A disk in the registry."""

    id: uuid.UUID
    path: Path
    format: str
    """As VirtualBox names it: VDI, QCOW, RAW, VMDK."""
    kind: str = "Normal"


class Home:
    """The directory of one machine's private VirtualBox."""

    def __init__(self, directory: Path, lock: int) -> None:
        self.directory = directory
        self._lock = lock
        self.name = _PREFIX + directory.name
        """The name of the machine, and of the service's sockets."""
        self.machine_directory = directory / _MACHINE
        user_home = directory / _USER_HOME
        self.environment = environment(user_home, self.name, os.environ.get("PATH", os.defpath))
        self.manage = VBoxManage(self.environment)
        self._registry = user_home / _REGISTRY

    @classmethod
    def make(cls) -> "Home":
        """Make a new one, and remove those whose owners were killed.

        Raises HypervisorError, HostDiskFullError.
        """
        homes = cache_directory() / _HOMES
        try:
            make_directory(homes)
            # Nobody may take a new one that is not locked yet for an orphan.
            with exclusive(homes.with_suffix(".lock")):
                _remove_orphans(homes)
                directory = homes / secrets.token_hex(4)
                directory.mkdir(mode=0o700)
                lock = open_lock(directory / _LOCK)
                try_lock(lock)
            for name in (_USER_HOME, _MACHINE):
                (directory / name).mkdir(mode=0o700)
        except OSError as error:
            raise host_error("VirtualBox's files cannot be made", error, HypervisorError) from error
        if len(os.fsencode(directory / "0")) > _LONGEST_SOCKET:
            shutil.rmtree(directory)
            raise HypervisorError(
                f"the path of {homes} is too long for sockets",
                hint="set XDG_CACHE_HOME or BOINCVM_HOME to a directory with a shorter path",
            )
        return cls(directory, lock)

    def write_registry(self, chain: Sequence[Medium], others: Sequence[Medium]) -> None:
        """Write the registry that the service reads when it starts.

        `chain`: the root disk's layers, the lowest first. Raises OSError.
        """
        disks = ""
        for medium in reversed(chain):
            disks = f"<HardDisk {_attributes(medium)}>{disks}</HardDisk>"
        disks += "".join(f"<HardDisk {_attributes(medium)}/>" for medium in others)
        self._registry.write_text(
            '<?xml version="1.0"?>\n'
            '<VirtualBox xmlns="http://www.virtualbox.org/" version="1.12-linux"><Global>'
            f"<MachineRegistry/><MediaRegistry><HardDisks>{disks}</HardDisks></MediaRegistry>"
            f"<SystemProperties defaultMachineFolder={quoteattr(str(self.machine_directory))}/>"
            "</Global></VirtualBox>\n"
        )

    def socket(self, number: int) -> Path:
        """Return the path of a serial line's socket."""
        return self.directory / str(number)

    @property
    def log(self) -> Path:
        """Return the path of VirtualBox's log of the machine, which is there once it starts."""
        return self.machine_directory / self.name / "Logs" / "VBox.log"

    @property
    def boot_disc(self) -> Path:
        return self.directory / "boot.iso"

    def note_process(self, process: int) -> None:
        """Note which process runs the machine, for whoever finds it without us."""
        (self.directory / _PROCESS).write_text(str(process))

    async def remove(self) -> None:
        """End the service and remove everything. Idempotent. Raises HypervisorError."""
        if self._lock < 0:
            return
        await asyncio.to_thread(_end_service, self.name)
        try:
            _remove(self.directory)
        except OSError as error:
            raise host_error(
                "VirtualBox's files cannot be removed", error, HypervisorError
            ) from error
        finally:
            os.close(self._lock)
            self._lock = -1


def _attributes(medium: Medium) -> str:
    return (
        f'uuid="{{{medium.id}}}" location={quoteattr(str(medium.path))}'
        f' format="{medium.format}" type="{medium.kind}"'
    )


def _socket_directory(name: str) -> Path:
    return Path("/tmp", f".vbox-{name}-ipc")  # noqa: S108 - VirtualBox chooses this place


def _end_service(name: str) -> None:
    """End the service if it runs, and wait for its end; alone it would take some five seconds."""
    try:
        with connect_blocking(_socket_directory(name) / "ipcd", _SERVICE_LIMIT) as connection:
            service = peer_process(connection)
    except OSError:
        return  # it does not run
    if service is not None and _is_service(service):
        _end_process(service)


def _is_service(process: int) -> bool:
    """Tell whether it is a VBoxSVC: the id of a process that has gone may be another's by now."""
    program = command_line(process)[:1]
    return bool(program) and program[0].endswith(_SERVICE)


def _end_process(process: int) -> None:
    """Kill a process and wait for its end, at most some seconds."""
    try:
        handle = open_process(process)
    except ProcessLookupError:
        return
    send(process, KILL)
    if handle is not None:
        try:
            select.select([handle], [], [], _SERVICE_LIMIT)
        finally:
            os.close(handle)


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=False)
    sockets = _socket_directory(_PREFIX + directory.name)
    with suppress(FileNotFoundError):
        shutil.rmtree(check_directory(sockets))


def remove_orphans() -> int:
    """Remove what machines have left whose makers were killed; return how many.

    Raises HostError, OSError.
    """
    homes = cache_directory() / _HOMES
    return _remove_orphans(homes) if homes.is_dir() else 0


def _remove_orphans(homes: Path) -> int:
    """Do `remove_orphans` in the directory of all homes. Raises OSError."""
    removed = 0
    for directory in homes.iterdir():
        try:
            lock = open_lock(directory / _LOCK)
        except FileNotFoundError:
            continue  # being removed
        try:
            if try_lock(lock):
                _end_machine(directory)
                _end_service(_PREFIX + directory.name)
                with suppress(FileNotFoundError):
                    _remove(directory)
                removed += 1
        finally:
            os.close(lock)
    return removed


def _end_machine(directory: Path) -> None:
    """End an orphan's VBoxHeadless, which knows its machine's name from its command line."""
    try:
        noted = read_regular(directory / _PROCESS, 16)
    except FileNotFoundError:
        return
    if noted.isdigit() and os.fsencode(_PREFIX + directory.name) in command_line(int(noted)):
        _end_process(int(noted))


def listen(path: Path) -> socket.socket:
    """Return a listening socket at `path` for this user alone. Raises OSError."""
    listener = private_listener(path)
    listener.listen(1)
    listener.setblocking(False)
    return listener
