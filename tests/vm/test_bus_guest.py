"""Commands over the bus, run by real machines."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from boincvm.bus.client import Address
from boincvm.controller.commands.command import OUTPUT_CAPACITY, Command
from boincvm.controller.guests.hub import Hub
from boincvm.controller.guests.registry import Change
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.program import Request, Result
from boincvm.node.machine_programs import programs_of
from boincvm.node.node import Node
from support.booted import LIMIT, booted, spec_in
from support.bus.embedded import broker, bus

pytestmark = pytest.mark.timeout(200)


@asynccontextmanager
async def machine(directory: Path, image: Path, address: Address, name: str) -> AsyncIterator[None]:
    """Start a machine that is the guest `name` of the bus."""
    async with (
        booted(spec_in(directory, image)) as (_, link),
        bus(address, name) as opened,
        asyncio.TaskGroup() as tasks,
    ):
        me = Guest(name, name, instance="1")
        guest = Node(opened, me, programs_of(link), tasks)
        await guest.open()
        try:
            yield
        finally:
            await guest.close()


async def result(command: Command, name: str) -> tuple[Result, bytes, bytes]:
    async with asyncio.timeout(LIMIT):
        await command.finished()
    answer = command.answers[name]
    assert answer.result is not None, answer.why
    out, err = (
        answer.outputs[stream].read(0, OUTPUT_CAPACITY)[1] for stream in ("stdout", "stderr")
    )
    return answer.result, out, err


async def test_commands_to_two_machines(base_image: Path, tmp_path: Path) -> None:
    there = asyncio.Semaphore(0)

    def report(_: Guest, change: Change) -> None:
        if change is Change.FOUND:
            there.release()

    async with broker() as (_, address), bus(address) as opened:
        hub = Hub(opened, report)
        await hub.open()
        try:
            async with (
                machine(tmp_path / "1", base_image, address, "g1"),
                machine(tmp_path / "2", base_image, address, "g2"),
            ):
                async with asyncio.timeout(LIMIT):
                    for _ in range(2):
                        await there.acquire()
                await commands(hub)
                await input_that_follows(hub)
                await progress(hub)
        finally:
            await hub.close()


async def commands(hub: Hub) -> None:
    script = 'cat; echo "$WORD" >&2; exit 5'
    both = hub.run("g*", Request(("sh", "-c", script), {"WORD": "err"}, stdin=b"in"))
    for name in ("g1", "g2"):
        end, out, err = await result(both, name)
        assert (end.code, out, err) == (5, b"in", b"err\n")
        assert end.resources["max_rss"] > 0
        assert 0 < end.resources["wall_time"] < LIMIT
    # More than may be on its way at once, and more than is kept.
    size = 3 << 20
    large = hub.run("g1", Request(("head", "-c", str(size), "/dev/zero")))
    end, out, _ = await result(large, "g1")
    assert (end.code, end.stdout, out) == (0, size, bytes(OUTPUT_CAPACITY))
    missing = hub.run("g2", Request(("no-such-program",)))
    end, _, _ = await result(missing, "g2")
    assert end.error == "no such program in the guest: no-such-program"
    late = hub.run("g2", Request(("sleep", "100"), timeout=0.5))
    end, _, _ = await result(late, "g2")
    assert (end.signal, end.timed_out) == (9, True)
    asked = hub.run("g1", Request(("sleep", "100")))
    hub.commands.signal(asked.id, 15)
    end, _, _ = await result(asked, "g1")
    assert end.signal == 15


async def input_that_follows(hub: Hub) -> None:
    command = hub.run("g*", Request(("cat",), stdin=b"first "), keep_input=True)
    pieces = [b"second ", bytes(range(256)) * 1000, b"last"]
    async with asyncio.timeout(LIMIT):
        for piece in pieces:
            await hub.give_input(command.id, piece)
        await hub.give_input(command.id, b"", ends=True)
    for name in ("g1", "g2"):
        end, out, _ = await result(command, name)
        assert (end.code, out) == (0, b"first " + b"".join(pieces))


async def progress(hub: Hub) -> None:
    script = 'echo "fraction-done 0.25" > "$BOINCVM_STATUS_CHANNEL"; read wait'
    command = hub.run("g1", Request(("sh", "-c", script)), keep_input=True)
    async with asyncio.timeout(LIMIT):
        while command.answers["g1"].progress != 0.25:
            await command.changed()
        await hub.give_input(command.id, b"\n")
    await result(command, "g1")
