"""A controller, and that of another host, which it has invited."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.controller import run_controller
from boincvm.controller.machines.controller_node import USUAL_RIGHTS, RemoteRights
from boincvm.controller.protocol.host_machines import HostMachine, encode_page
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import UsageError
from support.controller.controlled import Controlled
from support.controller.invited import LOOPBACK, invite


class Two(NamedTuple):
    """A controller, and that of the host `b`, which it has invited."""

    first: Controlled
    second: Controlled
    location: BrokerAddress


@asynccontextmanager
async def invited(
    directory: Path, location: BrokerAddress, rights: RemoteRights = USUAL_RIGHTS
) -> AsyncIterator[Controlled]:
    """Run the controller of the invited host; remove its machines at the end."""
    async with run_controller(directory / "b", broker=location, rights=rights) as controller:
        asked = Controlled(controller)
        try:
            yield asked
        finally:
            if controller.machines.all() and controller.side.bus.is_connected:
                await asked("remove", vms="**", force=True)


@asynccontextmanager
async def inviting(directory: Path) -> AsyncIterator[Controlled]:
    async with run_controller(directory / "a", listen=LOOPBACK) as controller:
        yield Controlled(controller)


@asynccontextmanager
async def two(directory: Path, rights: RemoteRights = USUAL_RIGHTS) -> AsyncIterator[Two]:
    async with inviting(directory) as first:
        location = await invite(first.controller)
        async with invited(directory, location, rights) as second:
            await until_there(first)
            yield Two(first, second, location)


async def until(asked: Controlled, condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds, which is looked at after each event."""
    events = asked.controller.events
    async with asyncio.timeout(30):
        last = events.last
        if condition():
            return
        async for _ in events.follow(last):
            if condition():
                return


async def until_there(asked: Controlled, name: str = "b") -> None:
    def is_there() -> bool:
        host = asked.controller.hub.other_hosts.get(name)
        return host is not None and host.why_away is None

    await until(asked, is_there)


def state(asked: Controlled, vm: str) -> str:
    """Return a machine's state, or "" if it is not known."""
    try:
        return str(asked.controller.overview.vm(vm)["state"])
    except UsageError:
        return ""


async def until_state(asked: Controlled, **states: str) -> None:
    wanted = {name.replace("_", "."): found for name, found in states.items()}
    await until(asked, lambda: all(state(asked, vm) == one for vm, one in wanted.items()))


async def error_of(asked: Controlled, operation: str, vm: str, **arguments: object) -> Any:
    return (await asked.outcome(operation, vm, **arguments))["error"]


def page(*names: str) -> bytes:
    machines = (
        HostMachine(name, VmState.POWERED_OFF, "", "base", 1 << 28, 1, None, {}) for name in names
    )
    return encode_page(machines)[0]
