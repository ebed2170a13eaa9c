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
import subprocess
from contextlib import suppress
from pathlib import Path

from boincvm.errors import HypervisorError, host_error
from boincvm.host.files import read_regular
from boincvm.host.held_directories import abandoned, make_held, remove_held
from boincvm.hypervisor.listeners import check_socket_path
from boincvm.hypervisor.noted_process import kill_noted_process, note_process
from boincvm.hypervisor.vmware.installation import find_vmrun, product_of
from boincvm.hypervisor.vmware.vmrun import environment
from boincvm.paths import cache_directory

PREFIX = "boincvm-"
"""Of our machines' names."""
_LOG = "vmware.log"
_MOST_OF_LOG = 1 << 16
_STOP_LIMIT = 30.0
"""Seconds that VMware may take to end an orphan."""
_LONGEST_DEFINITION = 1 << 20


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
        check_socket_path(_homes() / "12345678" / "0")
        try:
            remove_orphans()
            directory, lock = make_held(_homes())
        except OSError as error:
            raise host_error("VMware's files cannot be made", error, HypervisorError) from error
        return cls(directory, lock)

    def socket_path(self, line: int) -> Path:
        """Return the path of a serial line's socket."""
        return self.directory / str(line)

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
        """Record which process runs the machine, so that others can find it. Raises OSError."""
        note_process(self.directory, process)

    def remove(self) -> None:
        """Remove everything. Idempotent. Raises HypervisorError."""
        if self._lock < 0:
            return
        try:
            remove_held(self.directory)
        except OSError as error:
            raise host_error("VMware's files cannot be removed", error, HypervisorError) from error
        finally:
            os.close(self._lock)
            self._lock = -1


def remove_orphans() -> int:
    """Remove what machines have left whose makers were killed; return how many.

    Raises HostError, OSError.
    """
    removed = 0
    for directory in abandoned(_homes()):
        if _has_ended(directory):
            remove_held(directory)
            removed += 1
    return removed


def _homes() -> Path:
    return cache_directory() / "vmware"


def _has_ended(directory: Path) -> bool:
    """End an orphan's machine; tell whether nothing of it runs any more."""
    definition = directory / f"{PREFIX}{directory.name}.vmx"
    # VMware's own lock is there while the machine runs, and after VMware itself was killed.
    if not definition.with_name(f"{definition.name}.lck").exists():
        return True
    with suppress(PermissionError):  # it runs as root: VMware itself is asked next
        kill_noted_process(directory, PREFIX + directory.name, _STOP_LIMIT)
    path = find_vmrun()
    if path is None:
        return False  # it may run, and the user who removed VMware knows
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
