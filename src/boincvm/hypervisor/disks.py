"""What the disks of all drivers' machines have in common: names, sizes, and errors."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import DISK_FULL, HostDiskFullError, HypervisorError, UsageError
from boincvm.host.files import open_descriptor
from boincvm.hypervisor.machine_spec import MachineSpec
from boincvm.hypervisor.qcow2 import DiskRefusedError
from boincvm.sizes import format_size

TRANSFER_DISK = "transfer-disk"
"""The file name of the transfer disk in the machine's directory."""
TRANSFER_DISK_SIZE = 32 << 20
"""Bytes."""


class TransferDiskFile(NamedTuple):
    """The `contract.TransferDisk` that is a file of the host."""

    descriptor: int


def layer_name(number: int, suffix: str = ".qcow2") -> str:
    """Return the file name of the layer of a machine's disk with that number."""
    return f"disk-{number:06d}{suffix}"


def free_layer(directory: Path, suffix: str = ".qcow2") -> str:
    """Return a name for a new layer, with a greater number than all existing ones."""
    names = (path.name.removesuffix(suffix) for path in directory.glob(f"disk-*{suffix}"))
    numbers = (name.removeprefix("disk-") for name in names)
    newest = max((int(number) for number in numbers if number.isdecimal()), default=-1)
    return layer_name(newest + 1, suffix)


def disk_size(spec: MachineSpec, least: int) -> int:
    """Return the size in bytes of the machine's disk over one of `least` bytes.

    Raises UsageError if a smaller one is wanted.
    """
    wanted = least if spec.disk_size is None else spec.disk_size
    check_size(wanted, least)
    return wanted


def check_size(wanted: int, least: int) -> None:
    """Check that a disk of `wanted` bytes holds an image's of `least` bytes. Raises UsageError."""
    if wanted < least:
        raise UsageError(
            f"a disk of {format_size(wanted)} is less than the image's {format_size(least)}",
            hint="ask for at least that much, or leave out the disk's size",
        )


def open_files(paths: Iterable[Path]) -> list[int]:
    """Open files of a disk to read them; the caller closes their descriptors. Raises OSError."""
    with ExitStack() as stack:
        opened = []
        for path in paths:
            opened.append(open_descriptor(path, follow_links=False))
            stack.callback(os.close, opened[-1])
        stack.pop_all()
    return opened


def share_file(source: Path, target: Path) -> None:
    """Have `target` be the same file as `source`, or a copy if it lies elsewhere. Raises OSError.

    Nobody writes to either from then on.
    """
    target.unlink(missing_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        import shutil  # here only: it brings three compressors into every start

        shutil.copyfile(source, target, follow_symlinks=False)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise HypervisorError or HostDiskFullError for a DiskRefusedError or OSError."""
    try:
        yield
    except DiskRefusedError as error:
        raise HypervisorError(f"the machine's disk is refused: {error}") from error
    except OSError as error:
        raise disk_failure(error) from error


def disk_failure(error: OSError) -> HypervisorError | HostDiskFullError:
    """Return the error for a machine's disk that cannot be made."""
    if error.errno in DISK_FULL:
        return HostDiskFullError(
            f"the host's disk is full: {error.strerror}", hint="free some space and run again"
        )
    return HypervisorError(f"the machine's disks cannot be made: {error}")
