"""Which of libvirt's errors tell of a QEMU that ended while it started, and did not say why."""

import pytest

from boincvm.hypervisor.libvirt.connection import LibvirtError

INTERNAL = 1
"""VIR_ERR_INTERNAL_ERROR."""
MOMENTS = (
    "internal error: Process exited prior to exec",
    "failed to connect to monitor socket: Connection refused",
    "internal error: process exited while connecting to monitor",
    "internal error: qemu unexpectedly closed the monitor",
    "internal error: QEMU unexpectedly closed the monitor (vm='boincvm-0123abcd')",
    "Unable to read from monitor: Connection reset by peer",
    "Unable to write to monitor: Broken pipe",
    "internal error: Error while processing monitor IO (vm='boincvm-0123abcd')",
    "operation failed: domain is not running",
    "operation failed: domain is no longer running",
    "internal error: guest unexpectedly quit",
    "Domain not found: no domain with matching uuid '01234567' (boincvm-0123abcd)",
    "cannot set CPU affinity on process 4711: No such process",
)
OTHERS = (
    "internal error: qemu unexpectedly closed the monitor: qemu-system-x86_64: no such machine",
    "internal error: QEMU unexpectedly closed the monitor (vm='boincvm-0123abcd'): no such machine",
    "internal error: process exited while connecting to monitor: Could not open a disk",
    "internal error: Process exited prior to exec: libvirt: error : cannot limit locked memory",
    "failed to connect to monitor socket: Permission denied",
    "operation failed: domain 'boincvm-0123abcd' already exists with uuid 01234567",
    "End of file while reading data: Input/output error",
    "operation failed: job 'restore' failed: load of migration failed",
)


@pytest.mark.parametrize("text", MOMENTS)
def test_of_an_ended_one(text: str) -> None:
    """Each tells of the same: they differ in what libvirt was doing with it."""
    assert LibvirtError(f"libvirt: {text}", INTERNAL).is_of_ended


@pytest.mark.parametrize("text", OTHERS)
def test_of_another_cause(text: str) -> None:
    """What QEMU wrote, or libvirt found, is the cause."""
    assert not LibvirtError(f"libvirt: {text}", INTERNAL).is_of_ended
