"""A QEMU process, its channels and files, and the disks that it needs."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from boincvm.errors import HypervisorError
from boincvm.host.child_output import ChildOutput
from boincvm.host.child_sockets import ChildSocket
from boincvm.host.files import create_new, open_descriptor
from boincvm.host.processes import ChildProcess
from boincvm.host.programs import quiet_environment
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.disks import TRANSFER_DISK, TRANSFER_DISK_SIZE, disk_errors, disk_size
from boincvm.hypervisor.machine_spec import MachineSpec
from boincvm.hypervisor.qemu import command as qemu_command
from boincvm.hypervisor.qemu.launch import Launch

LOG = "qemu.log"
"""QEMU's output, in the machine's directory, on Windows and of older versions of boincvm."""


class QemuProcess:
    """A QEMU process, running once constructed. The caller owns the channels once it takes them.

    transfer_disk: the file's descriptor. A guest can make QEMU write messages without end: only
    the last ones are kept.
    """

    def __init__(
        self,
        spec: MachineSpec,
        accelerator: str,
        launch: Launch,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start QEMU; `descriptors` are those that `launch` refers to.

        Raises HypervisorMissingError, HypervisorError for disks that are refused, HostError for a
        device of the host that cannot be the machine's, OSError.
        """
        check_disks(spec, launch)
        if spec.gpu is not None:
            from boincvm.host.passthrough import prepare_passthrough  # few machines have one

            prepare_passthrough(spec.gpu, spec.memory)
        self.spec = spec
        self.accelerator = accelerator
        qmp, link, console = ChildSocket(), ChildSocket(), ChildSocket()
        self._root = None if spec.root_source is None else ChildSocket()
        self._sockets = [qmp, link, console, *([self._root] if self._root else [])]
        self._channels: tuple[socket.socket, socket.socket, socket.socket] | None = None
        self.transfer_disk = -1
        self._output: ChildOutput | None = None
        try:
            command = qemu_command.machine_command(
                spec,
                accelerator,
                launch,
                qmp=qmp.option,
                link=link.option,
                console=console.option,
                root=_descriptor(self._root),
            )
            self.transfer_disk = open_descriptor(
                spec.directory / TRANSFER_DISK, "r+", follow_links=False
            )
            self._output = ChildOutput(spec.directory / LOG)
            inherited = [number for one in self._sockets for number in one.descriptors]
            self.child = ChildProcess(
                command,
                directory=spec.directory,
                descriptors=[*inherited, *descriptors],
                stderr=self._output.inherited,
                environment=environment(spec),
            )
            self._output.started()
        except BaseException:
            self.release()
            for one in self._sockets:
                one.close()
            raise

    def connect(self) -> tuple[socket.socket, socket.socket, socket.socket]:
        """Return our ends of QMP, the link and the console, once QEMU has connected its own.

        Raises OSError.
        """
        if self._channels is None:
            qmp, link, console = (one.connect(self.child) for one in self._sockets[:3])
            self._channels = qmp, link, console
        return self._channels

    def connect_root(self) -> socket.socket | None:
        """Return our end of what QEMU reads its root disk from, for the caller to own.

        None if that is a file. Raises OSError.
        """
        return None if self._root is None else self._root.connect(self.child)

    def watch_output(self) -> None:
        """Read what QEMU writes, in the running event loop."""
        if self._output is not None:
            self._output.watch()

    def last_output(self) -> str:
        """Return the last line that QEMU has written, or ""."""
        if self._output is None:
            return ""
        from boincvm.redaction import redact_output  # only needed for an error

        # Redact before shortening, or a folder's name would no longer be recognized.
        text = redact_output(self._output.tail())
        lines = text.strip().splitlines()
        return "".join(filter(str.isprintable, lines[-1]))[:300] if lines else ""

    def release(self) -> None:
        """Close the transfer disk, and stop reading QEMU's output. Idempotent."""
        if self.transfer_disk >= 0:
            os.close(self.transfer_disk)
        self.transfer_disk = -1
        if self._output is not None:
            self._output.close()

    def close_channels(self) -> None:
        """Close our ends of the channels. Idempotent."""
        for one in (*self._sockets, *(self._channels or ())):
            one.close()


def _descriptor(connection: ChildSocket | None) -> int | None:
    """Return the child's end of a socket. Raises HypervisorError where it cannot inherit any."""
    if connection is None:
        return None
    if not connection.descriptors:
        raise HypervisorError(
            "QEMU cannot read its disk on demand on this system",
            hint="bring the whole image: boincvm image fetch URL NAME",
        )
    return connection.descriptors[0]


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
    make_transfer_disk(spec)


def check_disks(spec: MachineSpec, launch: Launch) -> None:
    """Check that QEMU may open what `spec` and `launch` name as the machine's disk.

    Nobody but this user can change these files in the meantime: they lie in directories of mode
    0700 or in the store of images (paths.py). Raises HypervisorError, HostDiskFullError.
    """
    with disk_errors():
        qcow2.check_root(spec.root, spec.root_format)
        for name in launch.layers:
            qcow2.check_disk(spec.directory / name)


def make_transfer_disk(spec: MachineSpec) -> None:
    """Make a new transfer disk. Raises HypervisorError, HostDiskFullError."""
    with disk_errors(), create_new(spec.directory / TRANSFER_DISK) as disk:
        disk.truncate(TRANSFER_DISK_SIZE)
