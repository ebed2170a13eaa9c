"""The directory of one machine while it runs, in which VMware finds its definition.

    vmware/ID/          in the cache directory, mode 0700
        lock            held as long as the machine is ours: flock(2)
        boincvm-ID.vmx  the definition; VMware puts its own lock, log and tables beside it
        boot.iso        the boot disc
        0, 1, 2         sockets that the serial lines connect to
        process         the process id of VMware's program that runs it, in decimal

No machine has a name that another one had: what a crash has left is never taken for a new one. It
is removed by the next process that makes a machine, and no other machine of VMware's is touched.
"""

import os
import secrets
import select
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from boincvm.errors import HypervisorError, host_error
from boincvm.host.files import read_regular
from boincvm.host.locks import exclusive, open_lock, try_lock
from boincvm.host.own_files import make_directory
from boincvm.host.process_tree import KILL, command_line, send
from boincvm.host.processes import open_process
from boincvm.host.sockets import private_listener
from boincvm.hypervisor.vmware.installation import find_vmrun, product_of
from boincvm.hypervisor.vmware.vmrun import environment
from boincvm.paths import cache_directory

PREFIX = "boincvm-"
"""Of our machines' names."""
_HOMES = "vmware"
_LOCK, _PROCESS = "lock", "process"
_LOG = "vmware.log"
_MOST_OF_LOG = 1 << 16
_STOP_LIMIT = 30.0
"""Seconds that VMware may take to end an orphan."""
_LONGEST_DEFINITION = 1 << 20
_LONGEST_SOCKET = 107
"""Bytes of a socket's path: sun_path of unix(7)."""


class Home:
    """The directory of one machine."""

    def __init__(self, directory: Path, lock: int) -> None:
        self.directory = directory
        self._lock = lock
        self.id = directory.name
        self.name = PREFIX + self.id
        self.definition = directory / f"{self.name}.vmx"
        self.boot_disc = directory / "boot.iso"

    @classmethod
    def make(cls) -> "Home":
        """Make a new one, and remove those whose owners were killed.

        Raises HypervisorError, HostDiskFullError.
        """
        homes = cache_directory() / _HOMES
        if len(os.fsencode(homes / "12345678" / "0")) > _LONGEST_SOCKET:
            raise HypervisorError(
                f"the path of {homes} is too long for sockets",
                hint="set XDG_CACHE_HOME or BOINCVM_HOME to a directory with a shorter path",
            )
        try:
            make_directory(homes)
            # Nobody may take a new one that is not locked yet for an orphan.
            with exclusive(homes.with_suffix(".lock")):
                _remove_orphans(homes)
                directory = homes / secrets.token_hex(4)
                directory.mkdir(mode=0o700)
                lock = open_lock(directory / _LOCK)
                try_lock(lock)
        except OSError as error:
            raise host_error("VMware's files cannot be made", error, HypervisorError) from error
        return cls(directory, lock)

    def socket_path(self, line: int) -> Path:
        """Return the path of a serial line's socket."""
        return self.directory / str(line)

    def listen(self, line: int) -> socket.socket:
        """Return a listening socket for a serial line, for this user alone. Raises OSError."""
        listener = private_listener(self.socket_path(line))
        listener.listen(1)
        listener.setblocking(False)
        return listener

    def read_definition(self) -> str:
        """Return the .vmx file as VMware has changed it since it was written. Raises OSError."""
        return read_regular(self.definition, _LONGEST_DEFINITION).decode("utf-8", "replace")

    def log(self) -> str:
        """Return the end of VMware's log of this machine, "" if there is none."""
        with suppress(OSError), (self.directory / _LOG).open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _MOST_OF_LOG, 0))
            return file.read(_MOST_OF_LOG).decode("utf-8", "replace")
        return ""

    def note_process(self, process: int) -> None:
        """Note which process runs the machine, for whoever finds it without us. Raises OSError."""
        (self.directory / _PROCESS).write_text(str(process))

    def remove(self) -> None:
        """Remove everything. Idempotent. Raises HypervisorError."""
        if self._lock < 0:
            return
        try:
            shutil.rmtree(self.directory)
        except OSError as error:
            raise host_error("VMware's files cannot be removed", error, HypervisorError) from error
        finally:
            os.close(self._lock)
            self._lock = -1


def remove_orphans() -> int:
    """Remove what machines have left whose makers were killed; return how many.

    Raises HostError, OSError.
    """
    homes = cache_directory() / _HOMES
    if not homes.is_dir():
        return 0
    with exclusive(homes.with_suffix(".lock")):
        return _remove_orphans(homes)


def _remove_orphans(homes: Path) -> int:
    """Do `remove_orphans` in the directory of all homes, whose lock is held. Raises OSError."""
    removed = 0
    for directory in homes.iterdir():
        try:
            lock = open_lock(directory / _LOCK)
        except FileNotFoundError:
            continue  # its owner is removing it
        try:
            if try_lock(lock) and _has_ended(directory):
                with suppress(FileNotFoundError):
                    shutil.rmtree(directory)
                removed += 1
        finally:
            os.close(lock)
    return removed


def _has_ended(directory: Path) -> bool:
    """End an orphan's machine; tell whether nothing of it runs any more."""
    definition = directory / f"{PREFIX}{directory.name}.vmx"
    # VMware's own lock is there while the machine runs, and after VMware itself was killed.
    if not definition.with_name(f"{definition.name}.lck").exists():
        return True
    _end_process(directory)
    path = find_vmrun()
    if path is None:
        return False  # it may run, and whoever removed VMware knows
    listed = _ask([path, "-T", product_of(path), "list"])
    if str(definition) not in listed.splitlines():
        return True
    _ask([path, "-T", product_of(path), "stop", str(definition), "hard"])
    return str(definition) not in _ask([path, "-T", product_of(path), "list"]).splitlines()


def _ask(command: list[str]) -> str:
    """Run `vmrun` and return what it prints; errors are among that."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_STOP_LIMIT,
            env=environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.decode(errors="replace")


def _end_process(directory: Path) -> None:
    """Kill the noted process, if it is still the one that has the machine's id on its command line.

    Its number may be another process's by now.
    """
    try:
        noted = read_regular(directory / _PROCESS, 16)
    except FileNotFoundError:
        return
    word = os.fsencode(PREFIX + directory.name)
    if not noted.isdigit() or not any(word in one for one in command_line(int(noted))):
        return
    try:
        handle = open_process(int(noted))
    except ProcessLookupError:
        return
    with suppress(PermissionError):  # it runs as root: VMware itself is asked next
        send(int(noted), KILL)
    if handle is not None:
        try:
            select.select([handle], [], [], _STOP_LIMIT)
        finally:
            os.close(handle)
