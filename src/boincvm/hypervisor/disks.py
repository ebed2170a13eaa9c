"""What the disks of all drivers' machines have in common: sizes, the transfer disk, and errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from boincvm.errors import DISK_FULL, HostDiskFullError, HypervisorError, UsageError
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.qcow2 import DiskRefusedError
from boincvm.sizes import format_size

TRANSFER_DISK = "window"
"""The file name of the transfer disk in the machine's directory."""
TRANSFER_DISK_SIZE = 32 << 20
"""Bytes."""


class TransferDiskFile(NamedTuple):
    """The `contract.TransferDisk` that is a file of the host."""

    descriptor: int


def disk_size(spec: MachineSpec, least: int) -> int:
    """Return the size in bytes of the machine's disk over one of `least` bytes.

    Raises UsageError if a smaller one is wanted.
    """
    wanted = least if spec.disk_size is None else spec.disk_size
    if wanted < least:
        raise UsageError(
            f"a disk of {format_size(wanted)} is less than the image's {format_size(least)}",
            hint="ask for at least that much, or leave out the disk's size",
        )
    return wanted


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
