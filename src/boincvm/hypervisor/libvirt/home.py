"""The directory in which a machine's domain finds its sockets, and which says whose domain it is.

    libvirt/ID/        in the cache directory, mode 0700
        lock           held as long as the machine is ours: flock(2)
        uri            the libvirt that was asked for the domain
        link, console  sockets that the hypervisor connects to

A domain is ours if its name and its metadata say so and its directory is here. What a process that
was killed has left is removed by the next one that makes a machine with the same libvirt.
"""

import os
from pathlib import Path

import libvirt

from boincvm.errors import HypervisorError, host_error
from boincvm.host.files import read_regular
from boincvm.host.held_directories import abandoned, make_held, remove_held
from boincvm.hypervisor.libvirt.connection import LibvirtError, translate
from boincvm.hypervisor.libvirt.definition import NAMESPACE, PREFIX
from boincvm.hypervisor.libvirt.uri import Uri
from boincvm.hypervisor.listeners import check_socket_path
from boincvm.paths import cache_directory

_URI = "uri"
LINK, CONSOLE = "link", "console"
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
        check_socket_path(_homes() / "12345678" / CONSOLE)
        try:
            directory, lock = make_held(_homes(), identity)
            home = cls(directory, lock)
            try:
                (directory / _URI).write_text(uri.text)
            except BaseException:
                home.remove()
                raise
        except FileExistsError as error:
            raise HypervisorError(
                f"the saved machine runs already, or {_homes() / identity} was left by one",
                hint="end it; `boincvm doctor --clean` removes what is left of one",
            ) from error
        except OSError as error:
            raise host_error("the machine cannot be made", error, HypervisorError) from error
        return home

    def remove(self) -> None:
        """Remove it. Idempotent. Raises OSError."""
        if self._lock >= 0:
            try:
                remove_held(self.directory)
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
    wanted = (uri.text.encode(), None)  # None: its maker was killed before it asked for a domain
    for directory in abandoned(_homes(), lambda one: _asked_libvirt(one) in wanted):
        asked = _asked_libvirt(directory)  # by now
        if asked not in wanted:
            continue
        if asked is not None:
            end_domain(connection, directory.name)
        remove_held(directory)
        removed += 1
    return removed


def _asked_libvirt(directory: Path) -> bytes | None:
    """Return which libvirt was asked for the domain, None if none was yet. Raises OSError."""
    try:
        return read_regular(directory / _URI, _LONGEST_URI)
    except (FileNotFoundError, NotADirectoryError):
        return None


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
