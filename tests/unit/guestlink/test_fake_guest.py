"""The fake guest sends messages, reports, becomes quiet and resumes like a real one."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram, Usage
from boincvm.guestlink.status_channel import FractionDone, StatusMessage
from boincvm.hypervisor.contract import MachineSpec, MachineState
from boincvm.hypervisor.fake.driver import FakeDriver
from boincvm.hypervisor.fake.guest import FakeCall, FakeGuest

LIMIT = 10.0


async def speak(_: FakeGuest, call: FakeCall) -> int:
    """Report everything, at a signal and when standard input has ended."""
    await call.signals.get()
    for number in (1, 2):
        call.write("stdout", b"%d" % number)
        call.report(f"fraction-done 0.{number}")
        call.use(number, number << 20)
        call.change(b"fraction", number, b"0.%d" % number)
        await call.stdin_ended.wait()
    return 7


async def test_a_saved_fake_machine_goes_on(tmp_path: Path) -> None:
    seen: list[object] = []
    received = asyncio.Event()

    def take_messages(messages: Sequence[StatusMessage], _: int) -> None:
        seen.extend(messages)

    def hear_usage(usage: Usage) -> None:
        seen.append(usage)

    def hear_change(*change: object) -> None:
        seen.append(change)
        received.set()

    def hear_output(*output: object) -> None:
        seen.append(output)

    driver = FakeDriver({"speak": speak})
    spec = MachineSpec(tmp_path, tmp_path, tmp_path, tmp_path, memory=1 << 28, cpus=1)
    machine = driver.machine(spec)
    link = await GuestLink.open(await machine.start())
    program = GuestProgram(
        link,
        ["speak"],
        directory="/",
        environment={},
        output=hear_output,
        on_status=take_messages,
        on_usage=hear_usage,
    )
    program.watch("fraction", hear_change)
    program.signal(10)
    async with asyncio.timeout(LIMIT):
        await received.wait()
        await link.quiesce(LIMIT)
        program.end_input()  # the guest hears of it when it goes on
        states = link.state(), program.state()
        checkpoint = await machine.save(1)
        link.close()
        machine = driver.restore(spec, checkpoint)
        assert machine.state is MachineState.SAVED
        link = await GuestLink.open(await machine.start(), attach_to=states[0])
        program = GuestProgram.attached(
            link,
            states[1],
            output=hear_output,
            on_status=take_messages,
            on_usage=hear_usage,
            on_change=hear_change,
        )
        assert machine.state is MachineState.PAUSED
        await link.attach(LIMIT, let_run=machine.resume)
        assert machine.state is MachineState.RUNNING
        assert (await program.wait()).code == 7
    link.close()
    await machine.destroy()
    assert seen == [
        item
        for number in (1, 2)
        for item in (
            ("stdout", b"%d" % number),
            FractionDone(number / 10),
            Usage(number, 0.0, number << 20),
            ("fraction", number, b"0.%d" % number),
        )
    ]
