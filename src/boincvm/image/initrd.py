"""The initial RAM disk: loads the disk's driver, mounts the root, starts the agent."""

from collections.abc import Iterable
from dataclasses import dataclass

from boincvm.image.kernel import KernelPackage
from boincvm.image.tools import run_tool

MODULES = {
    "modules": ("virtio_pci", "virtio_blk", "virtio_console"),
    "modules/mmio": ("virtio_mmio",),
    "modules/network": ("virtio_net",),
    "modules/balloon": ("virtio_balloon",),
}
"""Kernel modules by the folder from which the init script loads them: always, if no disk exists yet
(a machine without PCI), if the machine has a network, or if it has a balloon. Each costs 20 to 100
ms under emulation."""

_MOUNTS = b"""\
proc /new/proc proc nosuid,nodev,noexec 0 0
sysfs /new/sys sysfs nosuid,nodev,noexec 0 0
cgroup2 /new/sys/fs/cgroup cgroup2 nosuid,nodev,noexec,favordynmods 0 0
devtmpfs /new/dev devtmpfs nosuid 0 0
devpts /new/dev/pts devpts nosuid,noexec,gid=5,mode=620,ptmxmode=666 0 0
tmpfs /new/dev/shm tmpfs nosuid,nodev,mode=1777 0 0
mqueue /new/dev/mqueue mqueue nosuid,nodev,noexec 0 0
tmpfs /new/run tmpfs nosuid,nodev,mode=755 0 0
"""
"""A mount table, so that one program mounts all file systems.

favordynmods: the kernel does not wait for all processors when a program enters its control group.
Under emulation that wait took 11 of the 36 ms that a small program took from start to end.
"""

_DIRECTORY = 0o040755
_PROGRAM = 0o100755
_FILE = 0o100644
_LINK = 0o120777
_DIRECTORIES = ("bin", "dev", "etc", *MODULES, "new", "proc", "sys")
_DEVICES = "devices"
_DEVICE_DIRECTORIES = ("mqueue", "pts", "shm")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
"""Links in /dev in addition to the kernel's device nodes (Linux, admin-guide/devices.rst,
"Compulsory links"); they lie in a folder, so that one program copies them all."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a cpio archive."""

    name: str
    mode: int
    """Type and permission bits."""
    content: bytes = b""
    """For a symbolic link, its target."""


def build_initrd(init: bytes, busybox: bytes, kernel: KernelPackage) -> bytes:
    """Build the compressed archive. Equal inputs give equal bytes. Raises ImageBuildError."""
    entries = [Entry(name, _DIRECTORY) for name in (*_DIRECTORIES, _DEVICES)]
    entries += [Entry(f"{_DEVICES}/{name}", _DIRECTORY) for name in _DEVICE_DIRECTORIES]
    entries += [
        Entry(f"{_DEVICES}/{name}", _LINK, target.encode())
        for name, target in _DEVICE_LINKS.items()
    ]
    entries += [Entry("init", _PROGRAM, init), Entry("etc/fstab", _FILE, _MOUNTS)]
    entries += [Entry("bin/busybox", _PROGRAM, busybox)]
    for number, (name, module) in enumerate(kernel.modules.items()):
        # The numbers give the order of loading to the shell's `modules/*.ko`.
        entries.append(Entry(f"{_folder(name, kernel)}/{number:02}-{name}.ko", _FILE, module))
    return run_tool(["lz4", "-l", "-9", "-c", "-q"], stdin=cpio(entries))


def wanted_modules() -> tuple[str, ...]:
    """Return the names of all modules that read_kernel is to find, in the folders' order."""
    return tuple(name for names in MODULES.values() for name in names)


def _folder(module: str, kernel: KernelPackage) -> str:
    """Return the folder of the first wanted module that is, or needs, `module`."""
    ordered = list(kernel.modules)
    for folder, names in MODULES.items():
        if ordered.index(module) <= max(ordered.index(name) for name in names):
            return folder
    return "modules"


def cpio(entries: Iterable[Entry]) -> bytes:
    """Make an archive in the kernel's `newc` format (buffer-format.rst), times zero, owner root."""
    archive = bytearray()
    for number, entry in enumerate((*entries, Entry("TRAILER!!!", 0)), start=1):
        name = entry.name.encode() + b"\0"
        links = 2 if entry.mode == _DIRECTORY else 1
        header = (number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
        archive += b"070701" + b"".join(b"%08X" % value for value in header) + name
        archive += bytes(-len(archive) % 4)
        archive += entry.content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
