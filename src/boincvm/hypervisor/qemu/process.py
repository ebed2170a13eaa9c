"""A QEMU process, its channels and files, and the disks that it needs."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from boincvm.host.files import create_new, open_descriptor, read_at
from boincvm.host.processes import ChildProcess
from boincvm.host.programs import quiet_environment
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.disks import TRANSFER_DISK, TRANSFER_DISK_SIZE, disk_errors, disk_size
from boincvm.hypervisor.qemu import command as qemu_command
from boincvm.hypervisor.qemu.launch import Launch

LOG = "qemu.log"
"""QEMU's output, in the machine's directory."""


class QemuProcess:
    """A QEMU process, running once constructed. Whoever takes the channels owns them.

    qmp, link, console: our ends of QEMU's channels. window, log: descriptors of the files.
    """

    def __init__(
        self,
        spec: MachineSpec,
        accelerator: str,
        launch: Launch,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start QEMU; `descriptors` are those that `launch` refers to.

        Raises HypervisorMissingError, HypervisorError for disks that are refused, OSError.
        """
        check_disks(spec, launch)
        self.spec = spec
        self.accelerator = accelerator
        pairs = [socket.socketpair() for _ in range(3)]
        (self.qmp, qmp), (self.link, link), (self.console, console) = pairs
        self.window = self.log = -1
        ends = (qmp.fileno(), link.fileno(), console.fileno())
        try:
            command = qemu_command.machine_command(
                spec, accelerator, launch, qmp=ends[0], link=ends[1], console=ends[2]
            )
            self.window = open_descriptor(spec.directory / TRANSFER_DISK, "r+", follow_links=False)
            self.log = open_descriptor(
                spec.directory / LOG, "w+", follow_links=False, permissions=0o600
            )
            self.child = ChildProcess(
                command,
                directory=spec.directory,
                descriptors=[*ends, *descriptors],
                stderr=self.log,
                environment=environment(spec),
            )
        except BaseException:
            self.close_channels()
            self.release()
            raise
        finally:
            for _, its in pairs:
                its.close()

    def last_output(self) -> str:
        """Return the last line of QEMU's log, or ""."""
        if self.log < 0:
            return ""
        from boincvm.redaction import redact  # only needed for an error

        # Redact before shortening, or a folder's name would no longer be recognized.
        text = redact(os.fsdecode(read_at(self.log, 1 << 16, 0)))
        lines = text.strip().splitlines()
        return "".join(filter(str.isprintable, lines[-1]))[:300] if lines else ""

    def release(self) -> None:
        """Close the files. Idempotent."""
        for descriptor in (self.window, self.log):
            if descriptor >= 0:
                os.close(descriptor)
        self.window = self.log = -1

    def close_channels(self) -> None:
        """Close our ends of the channels. Idempotent."""
        for channel in (self.qmp, self.link, self.console):
            channel.close()


def environment(spec: MachineSpec) -> dict[str, str]:
    """Return QEMU's environment for that machine."""
    variables = quiet_environment()
    if spec.cpus == 1:
        # If the guest's CPU thread has a heap of its own, the C library makes hundreds of small
        # system calls for more memory while code is translated.
        variables["MALLOC_ARENA_MAX"] = "1"
    return variables


def make_files(spec: MachineSpec, layer: str, below: Path) -> None:
    """Make the writable layer `layer` of the root disk over the file `below`, and a transfer disk.

    Raises HypervisorError, HostDiskFullError, UsageError.
    """
    with disk_errors():
        kind = spec.root_format if below == spec.root else "qcow2"
        size = disk_size(spec, qcow2.check_root(below, kind))
        qcow2.write_overlay(spec.directory / layer, size)
    make_window(spec)


def check_disks(spec: MachineSpec, launch: Launch) -> None:
    """Check that QEMU may open what `spec` and `launch` name as the machine's disk.

    Nobody but this user can change these files in the meantime: they lie in directories of mode
    0700 or in the store of images (paths.py). Raises HypervisorError, HostDiskFullError.
    """
    with disk_errors():
        qcow2.check_root(spec.root, spec.root_format)
        for name in launch.layers:
            qcow2.check_disk(spec.directory / name)


def make_window(spec: MachineSpec) -> None:
    """Make a new transfer disk. Raises HypervisorError, HostDiskFullError."""
    with disk_errors(), create_new(spec.directory / TRANSFER_DISK) as disk:
        disk.truncate(TRANSFER_DISK_SIZE)
