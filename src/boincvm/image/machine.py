"""What a build asks of virtual machines. The engine, which stands above images, does it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
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


BootMachine = Callable[[MachineSpec, float], AbstractAsyncContextManager[RunProgram]]
"""Boots a machine within that many seconds, and ends it with the block. Raises GuestError,
HypervisorError, HypervisorMissingError, HostDiskFullError."""
