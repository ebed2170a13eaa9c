"""A task in a machine under a client: the whole step on the fake driver, no virtual machine."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path, PurePosixPath
from typing import cast

import pytest
import pytest_asyncio

from boincvm.errors import OutputFileError, ProgramStartError
from boincvm.hypervisor.contract import MachineSpec, MachineState
from boincvm.hypervisor.fake.driver import FakeDriver
from boincvm.hypervisor.fake.guest import FakeCall, FakeFile, FakeGuest
from boincvm.job.model import InputFile, MachineShape, MachineTask, OutputFile
from boincvm.machine.checkpointing import Identity, write_checkpoint
from boincvm.machine.saved_machine import SavedMachine, SavedTask
from boincvm.machine.settings import Settings
from boincvm.machine.start_source import Boot, Restore
from boincvm.wrapper.tasks.guest_requests import GuestRequests, Messenger
from boincvm.wrapper.tasks.machine_start import TaskMachine
from boincvm.wrapper.tasks.machine_step import MachineStep
from boincvm.wrapper.tasks.step import TaskEnd

pytestmark = pytest.mark.timeout(30)

LIMIT = 10.0


class Bench:
    """Steps of one task, `task`, in one slot; each has its own machine."""

    def __init__(self, slot: Path) -> None:
        self.slot = slot
        self.driver = FakeDriver()
        self.given_up = 0
        self.opened: list[TaskMachine] = []
        directory = slot / "machine"
        directory.mkdir()
        nowhere = slot / "none"
        self.spec = MachineSpec(directory, nowhere, nowhere, nowhere, memory=1 << 28, cpus=1)

    def step(self, task: MachineTask, saved: SavedMachine | None = None) -> MachineStep:
        async def open_machine() -> TaskMachine:
            steps = saved.steps if saved else ()
            machine = TaskMachine(self.driver, self.spec, Settings(report_period=1.0), steps)
            self.opened.append(machine)
            await machine.start([Restore(saved) if saved else Boot()])
            return machine

        async def give_up() -> None:
            self.given_up += 1

        client = cast(Messenger, None)  # no program here asks for anything of the client's
        requests = GuestRequests(client, self.slot, frozenset(), lambda: None)
        return MachineStep(
            0,
            task,
            self.slot,
            open_machine,
            give_up,
            requests,
            lambda: {"stdout": 0},
            saved.task if saved else None,
            is_first=True,
        )

    async def save(self, step: MachineStep) -> SavedMachine:
        identity = Identity("digest", MachineShape())

        def poll() -> tuple[SavedTask | None, None]:
            return step.state(), None

        saved, _ = await write_checkpoint(self.opened[-1], identity, poll, last=True, steps=(0,))
        return saved


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for machine in bench.opened:
        await machine.close()


async def waited(step: MachineStep) -> TaskEnd:
    async with asyncio.timeout(LIMIT):
        return await step.wait()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.005)


def outputs(slot: Path, *names: str) -> tuple[OutputFile, ...]:
    return tuple(OutputFile(PurePosixPath(name), PurePosixPath(slot / name)) for name in names)


async def test_files_go_in_and_out_and_streams_flow(bench: Bench) -> None:
    async def works(guest: FakeGuest, call: FakeCall) -> int:
        await call.stdin_ended.wait()
        call.write("stdout", bytes(call.stdin).upper() + guest.files[b"d/in"].data)
        call.report("fraction_done 0.25")
        call.use(1.5, 4096)
        call.change(b"done", 1, b"0.5\n")
        guest.files[b"result"] = FakeFile("file", 0o644, b"made")
        return 0

    bench.driver.programs["works"] = works
    slot = bench.slot
    (slot / "in").write_bytes(b"of the slot")
    (slot / "log").write_bytes(b"what a former start wrote")
    task = MachineTask(
        ("works",),
        stdin=slot / "in",
        stdout=slot / "log",
        inputs=(InputFile(slot / "in", PurePosixPath("d/in")),),
        outputs=outputs(slot, "result"),
        fraction_done=PurePosixPath("done"),
    )
    step = bench.step(task)
    assert await waited(step) == TaskEnd(0, None)
    assert (slot / "log").read_bytes() == b"OF THE SLOTof the slot"
    assert (slot / "result").read_bytes() == b"made"
    assert step.fraction_done == 0.5


async def test_a_script_without_its_interpreter(bench: Bench) -> None:
    (bench.slot / "in").write_bytes(b"#!/opt/perl6\n")
    sent = InputFile(bench.slot / "in", PurePosixPath("prog"))
    step = bench.step(MachineTask(("./prog",), inputs=(sent,)))
    with pytest.raises(ProgramStartError, match="interpreter that the file names, '/opt/perl6'"):
        await waited(step)


@pytest.mark.parametrize(("code", "is_missed"), [(0, True), (3, False)])
async def test_an_output_that_is_missing(bench: Bench, code: int, is_missed: bool) -> None:
    """If the program failed, outputs may be missing."""

    async def ends(*_: object) -> int:
        return code

    bench.driver.programs["ends"] = ends
    step = bench.step(MachineTask(("ends",), outputs=outputs(bench.slot, "a", "b")))
    if is_missed:
        with pytest.raises(OutputFileError, match=r"output a: .*; output b: "):
            await waited(step)
    else:
        assert await waited(step) == TaskEnd(3, None)


async def test_a_time_limit_asks_the_program_to_end(bench: Bench) -> None:
    async def waits(_: FakeGuest, call: FakeCall) -> int:
        return -(await call.signals.get())

    bench.driver.programs["waits"] = waits
    step = bench.step(MachineTask(("waits",)))
    waiting = asyncio.ensure_future(waited(step))
    await until(lambda: step.state() is not None)
    await step.expire()
    assert await waiting == TaskEnd(None, 15)


async def test_a_time_limit_before_the_program_begins(bench: Bench) -> None:
    async def waits(_: FakeGuest, call: FakeCall) -> int:
        return -(await call.signals.get())

    bench.driver.programs["waits"] = waits
    step = bench.step(MachineTask(("waits",)))
    await step.expire()
    assert await waited(step) == TaskEnd(None, 9)


async def test_a_program_goes_on_where_it_was_saved(bench: Bench) -> None:
    """Its input continues, and later output is truncated."""
    goes_on = asyncio.Event()

    async def works(_: FakeGuest, call: FakeCall) -> int:
        call.write("stdout", b"first ")
        call.use(2.0, 4096)
        await goes_on.wait()
        await call.stdin_ended.wait()
        call.write("stdout", f"then {len(call.stdin)}".encode())
        return 0

    bench.driver.programs["works"] = works
    slot = bench.slot
    (slot / "in").write_bytes(b"x" * 200_000)
    task = MachineTask(("works",), stdin=slot / "in", stdout=slot / "log")
    step = bench.step(task)
    waiting = asyncio.ensure_future(step.wait())
    await until(lambda: step.state() and (slot / "log").read_bytes() == b"first ")
    await until(lambda: step.seconds().guest == 2.0)
    saved = await bench.save(step)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert bench.driver.machines[0].state is MachineState.SAVED
    assert saved.task is not None
    assert saved.task.files == {"stdout": 6}
    with (slot / "log").open("ab") as file:
        file.write(b"of a start that was lost")
    goes_on.set()
    later = bench.step(task, saved)
    assert await waited(later) == TaskEnd(0, None)
    assert (slot / "log").read_bytes() == b"first then 200000"
    assert bench.given_up == 0
