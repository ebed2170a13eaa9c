"""The sandbox around a User-mode Linux, made by bubblewrap(1).

User-mode Linux alone does not keep a guest's programs from its kernel's memory, and who
controls the kernel is a process of the host. So that process has a mount namespace with nothing in
it but the kernel and its initrd, a network namespace without a network, PID and IPC namespaces in
which nobody else is, no capabilities, a filter of system calls (seccomp.py), little private memory,
and, if root starts it, a user id of its own.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from boincvm.errors import HypervisorMissingError
from boincvm.host import locks, memory_files
from boincvm.host.files import open_descriptor
from boincvm.host.own_files import make_directory
from boincvm.host.programs import find_program
from boincvm.host.resources import usable_processors
from boincvm.host.users import is_root
from boincvm.hypervisor.uml.kernel import needs_libraries
from boincvm.hypervisor.uml.seccomp import filter_program
from boincvm.paths import cache_directory

INSTALL_HINT = "install it: apt-get install --no-install-recommends bubblewrap util-linux"
KERNEL, INITRD = "/linux", "/initrd"
"""Where these files are in the sandbox."""
MEMORY = "/tmp"  # noqa: S108 - of the sandbox
"""Where the kernel keeps its guest's memory, in a nameless file."""
_MEMORY_ROOM = 32 << 20
"""Bytes that may lie there besides the guest's memory."""
_PRIVATE_MEMORY = 256 << 20
"""Bytes of private memory that each process may have. The guest's own memory is shared: all of it
is in one file."""
_FIRST_UID, _UIDS = 61184, 4336
"""User ids that belong to nobody: those that systemd gives to services (its DynamicUser)."""
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")


class Sandbox(NamedTuple):
    """A command that runs a program in a sandbox, and what it needs while it starts."""

    command: list[str]
    descriptors: tuple[int, ...]
    """Descriptors that the command inherits; the caller closes them once it has started."""
    uid: int | None
    """The user id that the program has on the host; None if it is our own."""

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


def make_sandbox(kernel: int, initrd: int | None, memory: int, cpu: int | None) -> Sandbox:
    """Return a sandbox in which `KERNEL` is the program with the descriptor `kernel`.

    `memory`: the guest's, in bytes. `cpu`: the host's processor on which all of it runs, None for
    any. The descriptors are duplicated. Raises HypervisorMissingError, OSError.
    """
    uid = _FIRST_UID + os.getpid() % _UIDS if is_root() else None
    opened: list[int] = []
    try:
        opened.append(_inheritable(kernel))
        opened.append(_filter())
        files = ["--perms", "0555", "--ro-bind-data", str(opened[0]), KERNEL]
        if initrd is not None:
            opened.append(_inheritable(initrd))
            files += ["--perms", "0444", "--ro-bind-data", str(opened[2]), INITRD]
        if needs_libraries(kernel):
            for directory in _LIBRARIES:
                files += ["--ro-bind-try", directory, directory]
        command = [
            *_limits(),
            *([] if cpu is None else [find("taskset"), "--cpu-list", str(cpu)]),
            *([] if uid is None else _as_user(uid)),
            find("bwrap"),
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
            "--as-pid-1",  # when the kernel ends, so does all in its namespace
            *("--cap-drop", "ALL"),
            "--clearenv",
            *("--setenv", "TMPDIR", MEMORY),
            *("--proc", "/proc"),  # by which the kernel opens its disks, which are descriptors
            *("--dev-bind", "/dev/null", "/dev/null"),
            *("--size", str(memory + _MEMORY_ROOM), "--tmpfs", MEMORY),
            *files,
            *("--remount-ro", "/"),
            *("--chdir", "/"),
            *("--seccomp", str(opened[1])),
            "--",
            KERNEL,
        ]
        return Sandbox(command, tuple(opened), uid)
    except BaseException:
        for descriptor in opened:
            os.close(descriptor)
        raise


def find(name: str) -> str:
    """Return the path of the program `name`. Raises HypervisorMissingError."""
    path = find_program(name)
    if path is None:
        raise HypervisorMissingError(
            f"{name} is not installed, and User-mode Linux runs in a sandbox only",
            hint=INSTALL_HINT,
        )
    return path


def _limits() -> list[str]:
    return [find("prlimit"), "--core=0", f"--data={_PRIVATE_MEMORY}", "--"]


def _as_user(uid: int) -> list[str]:
    command = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
    return [find("setpriv"), *command, "--pdeathsig", "KILL", "--"]


def _inheritable(descriptor: int) -> int:
    """Duplicate a descriptor, with an offset of its own at the file's beginning."""
    return open_descriptor(memory_files.path_of(descriptor))


def _filter() -> int:
    made = memory_files.create("boincvm-filter")
    os.write(made, filter_program())
    os.lseek(made, 0, os.SEEK_SET)
    return made


class Processor(NamedTuple):
    """A processor of the host that a machine has for itself among our machines."""

    number: int | None
    """None if it runs on any."""
    lock: int

    def close(self) -> None:
        if self.lock >= 0:
            os.close(self.lock)


def take_processor() -> Processor:
    """Return a processor that none of our machines runs on, or none if all are taken.

    A call of a guest's program is a switch to the kernel's process and back, which is faster on one
    processor. Raises OSError.
    """
    directory = cache_directory() / "uml"
    make_directory(directory)
    for number in usable_processors():
        lock = locks.open_lock(directory / f"processor-{number}")
        if locks.try_lock(lock):
            return Processor(number, lock)
        os.close(lock)
    return Processor(None, -1)
