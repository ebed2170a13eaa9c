"""A QEMU process, the channels and files that lead to it, and the disks that it needs."""

import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from boincvm.errors import HostDiskFullError, HypervisorError, UsageError
from boincvm.filetree import DISK_FULL
from boincvm.hypervisor import qcow2, qemu_command
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.early_qemu import LOG, WINDOW, EarlyQemu
from boincvm.hypervisor.qemu_launch import Launch
from boincvm.processes import ChildProcess, quiet_environment
from boincvm.sizes import format_size
from boincvm.sparse_files import make_sparse_file

WINDOW_SIZE = 32 << 20


class QemuProcess:
    """Running from the constructor on. Whoever takes the channels owns them.

    qmp, link, console: our ends of QEMU's channels. window, log: descriptors of the files.
    """

    def __init__(
        self,
        spec: MachineSpec,
        accelerator: str,
        launch: Launch,
        descriptors: Sequence[int] = (),
    ) -> None:
        """`descriptors`: those that `launch` speaks of. Raises HypervisorMissingError, OSError."""
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
            self.window = os.open(spec.directory / WINDOW, os.O_RDWR | os.O_CLOEXEC)
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self.log = os.open(spec.directory / LOG, flags, 0o600)
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

    @classmethod
    def of(cls, early: EarlyQemu, spec: MachineSpec, accelerator: str) -> Self:
        """One that runs already; what was `early`'s is its own now, but for the state."""
        process = cls.__new__(cls)
        process.spec, process.accelerator = spec, accelerator
        process.qmp, process.link, process.console = (
            socket.socket(fileno=channel.detach())
            for channel in (early.qmp, early.link, early.console)
        )
        process.window, process.log = early.window, early.log
        process.child = ChildProcess.started(early.pid)
        return process

    def last_words(self) -> str:
        """The last line that QEMU wrote to its log, or nothing."""
        if self.log < 0:
            return ""
        text = os.pread(self.log, 1 << 16, 0).decode(errors="replace")
        lines = text.strip().splitlines()
        return "".join(filter(str.isprintable, lines[-1]))[:300] if lines else ""

    def release(self) -> None:
        """Closes the files; again is harmless."""
        for descriptor in (self.window, self.log):
            if descriptor >= 0:
                os.close(descriptor)
        self.window = self.log = -1

    def close_channels(self) -> None:
        """Closes our ends of the channels; again is harmless."""
        for channel in (self.qmp, self.link, self.console):
            channel.close()


def environment(spec: MachineSpec) -> dict[str, str]:
    """QEMU's, for that machine."""
    variables = quiet_environment()
    if spec.cpus == 1:
        # With a heap of its own for the thread that is the guest's processor, the C library
        # takes more memory by hundreds of small system calls while code is translated.
        variables["MALLOC_ARENA_MAX"] = "1"
    return variables


def make_files(spec: MachineSpec, layer: str, below: Path) -> None:
    """The root disk's layer to write to, named `layer`, over the file `below`, and a new transfer
    disk. Raises HypervisorError, HostDiskFullError, UsageError."""
    size, pieces = empty_layer(spec, below)
    try:
        make_sparse_file(str(spec.directory / layer), size, pieces)
    except OSError as error:
        raise failure_of_disks(error) from error
    make_window(spec)


def empty_layer(spec: MachineSpec, below: Path) -> tuple[int, list[tuple[int, bytes]]]:
    """A layer of the root disk over `below`, for `make_sparse_file`.

    Raises HypervisorError, UsageError, HostDiskFullError.
    """
    try:
        size = qcow2.virtual_size(below)
        wanted = size if spec.disk_size is None else spec.disk_size
        if wanted < size:
            raise UsageError(
                f"a disk of {format_size(wanted)} is less than the image's {format_size(size)}",
                hint="ask for as much or more, or leave the disk's size out",
            )
        return qcow2.overlay(below, wanted)
    except OSError as error:
        raise failure_of_disks(error) from error
    except ValueError as error:
        raise HypervisorError(f"the machine's disks cannot be made: {error}") from error


def make_window(spec: MachineSpec) -> None:
    """A new transfer disk. Raises HypervisorError, HostDiskFullError."""
    try:
        with (spec.directory / WINDOW).open("wb") as window:
            window.truncate(WINDOW_SIZE)
    except OSError as error:
        raise failure_of_disks(error) from error


def remove_directory(directory: Path) -> None:
    """If nothing is in it any more. Raises OSError."""
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
            raise  # what else is there is somebody else's


def failure_of_disks(error: OSError) -> HypervisorError | HostDiskFullError:
    """What it means that a file of a machine cannot be made."""
    if error.errno in DISK_FULL:
        return HostDiskFullError(
            f"the host's disk is full: {error.strerror}", hint="free some space and run again"
        )
    return HypervisorError(f"the machine's disks cannot be made: {error}")
