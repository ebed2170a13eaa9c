"""A machine is saved with a running program, and resumes with another host process."""

import asyncio
import time
from pathlib import Path

import pytest

from boincvm.errors import GuestHungError
from boincvm.guestlink.status_channel import FractionDone
from boincvm.hypervisor.contract import MachineSpec, MachineState
from support.booted import LIMIT, NUMBERS, Listener, booted, restored, save, spec_in, through_a_file

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def spec(base_image: Path, tmp_path: Path) -> MachineSpec:
    return spec_in(tmp_path / "machine", base_image)


COUNTS = """
import os, select, sys, time
status_channel = open(os.environ["BOINCVM_STATUS_CHANNEL"], "wb", buffering=0)
number = 0
while True:
    print(number)
    status_channel.write(b"fraction-done %.6f\\n" % (number / 1e6))
    number += 1
    if select.select([0], [], [], 0.001)[0]:
        text = os.read(0, 1 << 16)
        if not text:
            break
        print("echo", text.decode().strip())
print("clock", time.time_ns())
raise SystemExit(7)
"""


def sort_lines(listener: Listener) -> tuple[list[int], list[str], int]:
    """Return what COUNTS has written: its numbers, its echoes, and the guest's clock at its end."""
    *lines, clock = listener.output["stdout"].decode().splitlines()
    echoes = [line for line in lines if line.startswith("echo ")]
    return [int(line) for line in lines if line not in echoes], echoes, int(clock.split()[1])


async def test_a_program_goes_on_in_another_process(spec: MachineSpec) -> None:
    listener = Listener()
    async with booted(spec) as (machine, link):
        program = listener.start(link, COUNTS, status_channel=True, usage=True)
        program.feed(b"at first\n")
        await listener.until(lambda: b"echo at first\n" in listener.output["stdout"])
        states = await save(machine, link, listener)
        await asyncio.sleep(1.5)  # the guest's clock stands still meanwhile
        for word in ("again", "and again"):
            async with restored(spec, states[0], states[2]) as (machine, link):
                program = listener.attach(link, states[1])
                program.feed(f"{word}\n".encode())  # is held back until the guest listens
                before = time.time_ns()
                await link.attach(LIMIT, let_run=machine.resume)
                link.expect_beats(LIMIT)
                echo = f"echo {word}\n".encode()
                await listener.until(lambda e=echo: e in listener.output["stdout"])
                beats = len(listener.usage)
                await listener.until(lambda n=beats: len(listener.usage) > n)
                if word == "again":
                    states = await save(machine, link, listener)
                    continue
                program.end_input()
                async with asyncio.timeout(LIMIT):
                    assert (await program.wait()).code == 7
                end = time.time_ns()
    numbers, echoes, clock = sort_lines(listener)
    assert numbers == list(range(len(numbers)))
    assert echoes == ["echo at first", "echo again", "echo and again"]
    fractions = [word.fraction for word in listener.messages if isinstance(word, FractionDone)]
    assert [round(fraction * 1e6) for fraction in fractions] == numbers
    assert before <= clock < end + 1e9
    assert listener.output["stderr"] == b""


WAITS = """
import sys
sys.stdin.read()
print("last")
raise SystemExit(4)
"""


async def test_the_same_link_goes_on_and_nothing_comes_meanwhile(spec: MachineSpec) -> None:
    listener, ends = Listener(), Listener()
    async with booted(spec) as (machine, link):
        program = listener.start(link, COUNTS, status_channel=True)
        ending = ends.start(link, WAITS)
        await listener.until(lambda: listener.output["stdout"].count(b"\n") > 100)
        link.expect_beats(LIMIT)
        await link.quiesce(LIMIT)
        assert link._silence_timer is None  # nothing is expected of it now
        lines = listener.output["stdout"].count(b"\n")
        ending.end_input()
        program.feed(b"hello\n")
        await asyncio.sleep(1.5)  # in which it would have written much
        assert listener.output["stdout"].count(b"\n") == lines
        assert not link.failure.done()
        await machine.pause()
        await machine.resume()
        await link.attach(LIMIT)
        async with asyncio.timeout(LIMIT):
            assert (await ending.wait()).code == 4
        assert ends.output["stdout"] == b"last\n"
        await listener.until(lambda: b"echo hello" in listener.output["stdout"])
        program.end_input()
        async with asyncio.timeout(LIMIT):
            assert (await program.wait()).code == 7
    numbers, echoes, _ = sort_lines(listener)
    assert numbers == list(range(len(numbers)))
    assert echoes == ["echo hello"]


ENDS_LATER = """
import sys, time
print("soon", flush=True)
sys.stdin.readline()
time.sleep(1)
print("ended")
raise SystemExit(9)
"""


async def test_a_program_that_ends_and_a_host_that_hangs_up_while_it_is_quiet(
    spec: MachineSpec,
) -> None:
    listener = Listener()
    async with booted(spec) as (machine, link):
        program = listener.start(link, ENDS_LATER)
        await listener.until(lambda: listener.output["stdout"])
        program.feed(b"\n")  # a second before its end the guest is told to be quiet
        await link.quiesce(LIMIT)
        stored = through_a_file(link.state()), through_a_file(program.state())
        link.close()  # the guest sees its port hang up, and waits for the next host
        await asyncio.sleep(2)  # in which the program ends, and nobody is there to be told
        assert machine.process_ids()
        states = (*stored, await machine.save(next(NUMBERS)))
        assert machine.state is MachineState.SAVED
        async with restored(spec, states[0], states[2]) as (machine, link):
            program = listener.attach(link, states[1])
            await link.attach(LIMIT, let_run=machine.resume)
            async with asyncio.timeout(LIMIT):
                assert (await program.wait()).code == 9
    assert listener.output["stdout"] == b"soon\nended\n"


async def test_a_restored_guest_that_stays_silent(spec: MachineSpec) -> None:
    listener = Listener()
    async with booted(spec) as (machine, link):
        listener.start(link, COUNTS, status_channel=True)
        states = await save(machine, link, listener)
        async with restored(spec, states[0], states[2]) as (machine, link):
            assert machine.state is MachineState.PAUSED
            listener.attach(link, states[1])
            with pytest.raises(
                GuestHungError, match=r"restored guest did not answer within 0\.3 s"
            ):
                await link.attach(0.3)
