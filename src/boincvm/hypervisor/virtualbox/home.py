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
import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from boincvm.errors import HypervisorError, host_error
from boincvm.host.held_directories import abandoned, make_held, remove_held
from boincvm.host.own_files import check_directory
from boincvm.host.sockets import connect_blocking, peer_process
from boincvm.hypervisor.listeners import check_socket_path
from boincvm.hypervisor.noted_process import kill_noted_process, kill_process, note_process
from boincvm.hypervisor.virtualbox.vboxmanage import VBoxManage, environment
from boincvm.paths import cache_directory

_PREFIX = "boincvm-"
_USER_HOME, _MACHINE = "home", "machine"
_REGISTRY = "VirtualBox.xml"
_SERVICE = b"VBoxSVC"
_END_LIMIT = 10.0
"""Seconds that a process of VirtualBox may take to end when it is killed."""


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
        check_socket_path(_homes() / "12345678" / "0")
        try:
            remove_orphans()
            directory, lock = make_held(_homes())
            try:
                for name in (_USER_HOME, _MACHINE):
                    (directory / name).mkdir(mode=0o700)
            except BaseException:
                os.close(lock)  # the next machine removes it
                raise
        except OSError as error:
            raise host_error("VirtualBox's files cannot be made", error, HypervisorError) from error
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
        """Record which process runs the machine, so that others can find it. Raises OSError."""
        note_process(self.directory, process)

    async def remove(self) -> None:
        """End the service and remove everything. Idempotent. Raises HypervisorError."""
        if self._lock < 0:
            return
        await asyncio.to_thread(_end_service, self.name)
        try:
            await asyncio.to_thread(_remove, self.directory)
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
        with connect_blocking(_socket_directory(name) / "ipcd", _END_LIMIT) as connection:
            service = peer_process(connection)
    except OSError:
        return  # it does not run
    if service is not None:
        with suppress(PermissionError):
            kill_process(service, _is_service, _END_LIMIT)


def _is_service(arguments: list[bytes]) -> bool:
    return bool(arguments) and arguments[0].endswith(_SERVICE)


def _remove(directory: Path) -> None:
    sockets = _socket_directory(_PREFIX + directory.name)
    with suppress(FileNotFoundError):
        shutil.rmtree(check_directory(sockets))
    remove_held(directory)  # last: nobody would find the sockets without it


def remove_orphans() -> int:
    """Remove what machines have left whose makers were killed; return how many.

    Raises HostError, OSError.
    """
    removed = 0
    for directory in abandoned(_homes()):
        name = _PREFIX + directory.name
        with suppress(PermissionError):
            kill_noted_process(directory, name, _END_LIMIT)
        _end_service(name)
        _remove(directory)
        removed += 1
    return removed


def _homes() -> Path:
    return cache_directory() / "virtualbox"
