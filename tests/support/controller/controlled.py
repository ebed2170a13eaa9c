"""A controller for a test, in this process, with short methods for its operations."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.commands.command import Command
from boincvm.controller.controller import Controller, run_controller
from boincvm.controller.operations import call
from boincvm.shim.machine_directory import MachineDirectory

LIMIT = 60.0


class Controlled:
    def __init__(self, controller: Controller) -> None:
        self.controller = controller

    async def __call__(self, operation: str, **arguments: object) -> Any:
        async with asyncio.timeout(LIMIT):
            return await call(self.controller, operation, arguments)

    async def outcome(self, operation: str, vm: str, **arguments: object) -> Mapping[str, Any]:
        """Return the outcome of an operation on one machine."""
        done = await self(operation, vms=vm, **arguments)
        (outcome,) = done["outcomes"].values()
        return outcome

    async def vm(self, vm: str) -> Mapping[str, Any]:
        (table,) = (await self("list", vms=vm))["vms"]
        return table

    async def begin(self, vms: str, *argv: str, **options: object) -> Command:
        reported = await self("exec", vms=vms, argv=list(argv), **options)
        return self.controller.hub.commands.find(reported["command"])

    async def run(self, vms: str, *argv: str) -> dict[str, tuple[object, str]]:
        """Run a program; return each machine's exit code, or error, and output."""
        command = await self.begin(vms, *argv)
        return await self.ends(command)

    async def ends(self, command: Command) -> dict[str, tuple[object, str]]:
        async with asyncio.timeout(LIMIT):
            await command.finished()
        reported = await self("command", id=command.id, output=True)
        return {
            name: (_how(answer), answer["output"]["stdout"])
            for name, answer in reported["answers"].items()
        }

    async def until_event(self, kind: str, text: str) -> None:
        """Wait for an event of that kind that contains `text`, from the first event on."""
        async with asyncio.timeout(LIMIT):
            async for event in self.controller.events.follow(0):
                if event.kind == kind and text in event.text:
                    return

    def directory(self, vm: str) -> MachineDirectory:
        machine = self.controller.machines.find(vm)
        assert machine is not None
        return machine.directory

    def shim(self, vm: str) -> int:
        """Return the process id of the machine's shim."""
        return self.directory(vm).status().pid


@asynccontextmanager
async def controlled(
    directory: Path, broker: BrokerAddress | None = None, *, ends_all: bool = True
) -> AsyncIterator[Controlled]:
    """Run a controller within the block; `ends_all`: remove all machines at the end."""
    async with run_controller(directory, broker=broker) as controller:
        asked = Controlled(controller)
        try:
            yield asked
        finally:
            if ends_all and controller.machines.all():
                await call(controller, "remove", {"vms": "**", "force": True})


def _how(answer: Mapping[str, Any]) -> object:
    """Return the exit code, or what there was in place of one."""
    return answer["code"] if answer["code"] is not None else answer["error"] or answer["why"]


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
