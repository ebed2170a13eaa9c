"""The machine of one worker of a sweep: kept from item to item, and replaced when it must be."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from boincvm.errors import GuestError, HypervisorError, ProgramStartError
from boincvm.guestlink.guest_paths import WORK
from boincvm.machine.guest_commands import run_in_guest
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.start_source import StartSource
from boincvm.runner.run_directory import run_directory

MakeMachine = Callable[[Path], tuple[ManagedMachine, Sequence[StartSource]]]
"""Returns a machine with its files in a directory, and what it can start from."""

_EMPTY_LIMIT = 60.0
"""Seconds; a machine whose directories cannot be emptied in this time is replaced."""
_EMPTY = ("find", str(WORK), "/tmp", "-mindepth", "1", "-delete")  # noqa: S108 - the guest's


class WorkerMachine:
    """A machine that is made when it is first needed."""

    def __init__(self, make: MakeMachine) -> None:
        self._make = make
        self._machine: ManagedMachine | None = None
        self._stack = ExitStack()
        self.lacks_golden = False
        """Whether one of the machines booted for lack of a golden snapshot."""

    async def ready(self) -> ManagedMachine:
        """Return a running machine whose working directory and /tmp are empty.

        It is the one of the last item if that can be emptied, else a new one. Raises what
        `ManagedMachine.start` raises.
        """
        if self._machine is not None and not await self._empty(self._machine):
            await self.close()
        if self._machine is None:
            machine, sources = self._make(self._stack.enter_context(run_directory()))
            self._machine = machine
            try:
                await machine.start(sources)
            except BaseException:
                await self.close()
                raise
            self.lacks_golden = self.lacks_golden or machine.lacks_golden
        return self._machine

    async def _empty(self, machine: ManagedMachine) -> bool:
        """Empty the directories that programs write to; tell whether that worked.

        An agent kills all descendants of a program that ends, so nothing writes there any more.
        """
        if not machine.is_up:
            return False
        try:
            async with asyncio.timeout(_EMPTY_LIMIT):
                return await machine.guard(run_in_guest(machine.session, _EMPTY)) is None
        except (GuestError, HypervisorError, ProgramStartError, TimeoutError):
            return False

    async def close(self) -> None:
        """End the machine and remove its files; `ready` makes another one. Idempotent."""
        machine, self._machine = self._machine, None
        try:
            if machine is not None:
                await machine.close()
        finally:
            self._stack.close()
