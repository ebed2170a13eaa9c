"""What a build asks of virtual machines. The engine, which stands above images, does it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePosixPath
from typing import Protocol

from boincvm.guestlink.program import ProgramEnd
from boincvm.hypervisor.contract import MachineSpec


class RunProgram(Protocol):
    """Runs programs in one machine."""

    async def __call__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        on_output: Callable[[str, bytes], None],
    ) -> ProgramEnd:
        """Run a program to its end.

        `on_output` is called with a stream's name and each piece of its output; a BoincvmError that
        it raises ends the program. Raises GuestError, HypervisorError, HostDiskFullError,
        ProgramStartError.
        """


class BuildMachine(Protocol):
    """One machine, which runs programs, and to and from which files move."""

    async def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        on_output: Callable[[str, bytes], None],
    ) -> ProgramEnd:
        """Run a program to its end, as RunProgram does."""

    async def put(self, source: Path, destination: PurePosixPath) -> None:
        """Send a file of the host to `destination` beneath the guest's /work.

        Raises InputFileError, LimitError if the guest's disk is full, HostDiskFullError,
        GuestError, HypervisorError.
        """

    async def get(self, source: PurePosixPath, destination: Path, most: int) -> None:
        """Fetch a file of at most `most` bytes from beneath the guest's /work.

        Raises OutputFileError, HostDiskFullError, GuestError, HypervisorError.
        """


BootMachine = Callable[[MachineSpec, float], AbstractAsyncContextManager[RunProgram]]
"""Boots a machine within that many seconds, and ends it with the block. Raises GuestError,
HypervisorError, HypervisorMissingError, HostDiskFullError."""

BootBuildMachine = Callable[[MachineSpec, float], AbstractAsyncContextManager[BuildMachine]]
"""The same for a machine to and from which files move."""
