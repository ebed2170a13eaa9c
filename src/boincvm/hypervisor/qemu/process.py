"""A QEMU process, its channels and files, and the disks that it needs."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from boincvm.errors import DISK_FULL, HostDiskFullError, HypervisorError, UsageError
from boincvm.host.files import create_new, open_descriptor, read_at
from boincvm.host.processes import ChildProcess
from boincvm.host.programs import quiet_environment
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.qemu import command as qemu_command
from boincvm.hypervisor.qemu.command import WINDOW
from boincvm.hypervisor.qemu.launch import Launch
from boincvm.sizes import format_size

LOG = "qemu.log"
"""QEMU's output, in the machine's directory."""
WINDOW_SIZE = 32 << 20
"""Size of the transfer disk in bytes."""


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
            self.window = open_descriptor(spec.directory / WINDOW, "r+", follow_links=False)
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
            for _, far in pairs:
                far.close()

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
    try:
        kind = spec.root_format if below == spec.root else "qcow2"
        size = qcow2.check_root(below, kind)
        wanted = size if spec.disk_size is None else spec.disk_size
        if wanted < size:
            raise UsageError(
                f"a disk of {format_size(wanted)} is less than the image's {format_size(size)}",
                hint="ask for at least that much, or leave out the disk's size",
            )
        qcow2.write_overlay(spec.directory / layer, wanted)
    except OSError as error:
        raise failure_of_disks(error) from error
    except qcow2.DiskRefusedError as error:
        raise _refusal(error) from error
    make_window(spec)


def check_disks(spec: MachineSpec, launch: Launch) -> None:
    """Check that QEMU may open what `spec` and `launch` name as the machine's disk.

    Nobody but this user can change these files in the meantime: they lie in directories of mode
    0700 or in the store of images (paths.py). Raises HypervisorError, HostDiskFullError.
    """
    try:
        qcow2.check_root(spec.root, spec.root_format)
        for name in launch.layers:
            qcow2.check_disk(spec.directory / name)
    except OSError as error:
        raise failure_of_disks(error) from error
    except qcow2.DiskRefusedError as error:
        raise _refusal(error) from error


def _refusal(error: qcow2.DiskRefusedError) -> HypervisorError:
    return HypervisorError(f"the machine's disk is refused: {error}")


def make_window(spec: MachineSpec) -> None:
    """Make a new transfer disk. Raises HypervisorError, HostDiskFullError."""
    try:
        with create_new(spec.directory / WINDOW) as window:
            window.truncate(WINDOW_SIZE)
    except OSError as error:
        raise failure_of_disks(error) from error


def failure_of_disks(error: OSError) -> HypervisorError | HostDiskFullError:
    """Return the error for a machine's file that cannot be made."""
    if error.errno in DISK_FULL:
        return HostDiskFullError(
            f"the host's disk is full: {error.strerror}", hint="free some space and run again"
        )
    return HypervisorError(f"the machine's disks cannot be made: {error}")
