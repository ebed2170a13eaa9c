"""The directory in which a machine's domain finds its sockets, and which says whose domain it is.

    libvirt/ID/        in the cache directory, mode 0700
        lock           held as long as the machine is ours: flock(2)
        uri            the libvirt that was asked for the domain
        link, console  sockets that the hypervisor connects to

A domain is ours if its name and its metadata say so and its directory is here. What a process that
was killed has left is removed by the next one that makes a machine with the same libvirt.
"""

import os
import secrets
import shutil
import socket
from contextlib import suppress
from pathlib import Path

import libvirt

from boincvm.errors import HypervisorError, host_error
from boincvm.host.files import read_regular
from boincvm.host.locks import open_lock, try_lock
from boincvm.host.own_files import make_directory
from boincvm.host.sockets import private_listener
from boincvm.hypervisor.libvirt.connection import LibvirtError, translate
from boincvm.hypervisor.libvirt.definition import NAMESPACE, PREFIX
from boincvm.hypervisor.libvirt.uri import Uri
from boincvm.paths import cache_directory

_LOCK, _URI = "lock", "uri"
LINK, CONSOLE = "link", "console"
_LONGEST_SOCKET = 107
"""Bytes of a socket's path: sun_path of unix(7)."""
_LONGEST_URI = 4096


class Home:
    """The directory of one machine's domain."""

    def __init__(self, directory: Path, lock: int) -> None:
        self.directory = directory
        self.id = directory.name
        self._lock = lock

    @classmethod
    def make(cls, uri: Uri, identity: str = "") -> "Home":
        """Make a new one, for the domain with that id if it must have one.

        Raises HypervisorError, HostDiskFullError.
        """
        homes = _homes()
        if len(os.fsencode(homes / "12345678" / CONSOLE)) > _LONGEST_SOCKET:
            raise HypervisorError(
                f"the path of {homes} is too long for sockets",
                hint="set XDG_CACHE_HOME or BOINCVM_HOME to a directory with a shorter path",
            )
        try:
            make_directory(homes)
            directory = homes / (identity or secrets.token_hex(4))
            directory.mkdir(mode=0o700)
            lock = open_lock(directory / _LOCK)
            try_lock(lock)
            (directory / _URI).write_text(uri.text)
        except FileExistsError as error:
            raise HypervisorError(
                f"the saved machine runs already, or {directory} was left by one",
                hint="end it; `boincvm doctor --clean` removes what is left of one",
            ) from error
        except OSError as error:
            raise host_error("the machine cannot be made", error, HypervisorError) from error
        return cls(directory, lock)

    def listen(self, name: str) -> socket.socket:
        """Return a listening socket of that name for this user alone. Raises OSError."""
        listener = private_listener(self.directory / name)
        listener.listen(1)
        listener.setblocking(False)
        return listener

    def remove(self) -> None:
        """Remove it. Idempotent. Raises OSError."""
        if self._lock >= 0:
            try:
                shutil.rmtree(self.directory)
            finally:
                os.close(self._lock)
                self._lock = -1


def _homes() -> Path:
    return cache_directory() / "libvirt"


def remove_orphans(connection: libvirt.virConnect, uri: Uri) -> int:
    """End the domains of ours whose makers have gone, and remove their directories.

    Returns how many there were. Raises LibvirtError, OSError.
    """
    removed = 0
    homes = _homes()
    if not homes.is_dir():
        return removed
    for directory in homes.iterdir():
        try:
            lock = open_lock(directory / _LOCK)
        except FileNotFoundError:
            continue  # being made, or being removed
        try:
            with suppress(FileNotFoundError):
                asked = read_regular(directory / _URI, _LONGEST_URI)
                if asked == uri.text.encode() and try_lock(lock):
                    end_domain(connection, directory.name)
                    shutil.rmtree(directory)
                    removed += 1
        finally:
            os.close(lock)
    return removed


def end_domain(connection: libvirt.virConnect, identity: str) -> None:
    """End the domain of our machine with that id, if there is one that is really ours.

    Raises LibvirtError.
    """
    try:
        domain = translate(connection.lookupByName, PREFIX + identity)
        metadata = translate(domain.metadata, libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
        if f'id="{identity}"' in metadata or f"id='{identity}'" in metadata:
            translate(domain.destroy)
    except LibvirtError as error:
        if error.code not in (
            libvirt.VIR_ERR_NO_DOMAIN,
            libvirt.VIR_ERR_NO_DOMAIN_METADATA,
            libvirt.VIR_ERR_OPERATION_INVALID,  # it has ended meanwhile
        ):
            raise
