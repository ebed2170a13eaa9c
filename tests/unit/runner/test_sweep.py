"""Sweeps on the fake driver: which machines they use, signals, and results on disk."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import pytest

from boincvm.errors import BoincvmError, HypervisorError, UsageError
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.contract import EndCause, MachineSpec
from boincvm.hypervisor.fake.driver import FakeDriver
from boincvm.hypervisor.fake.guest import FakeCall, FakeFile, FakeGuest, FakeProgram
from boincvm.job.model import Job, MachineTask, OutputFile
from boincvm.job.sweep import Item
from boincvm.machine import admission
from boincvm.machine.errors import NotEnoughRoomError
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.start_source import Boot, StartSource
from boincvm.runner import sweep_worker
from boincvm.runner.sweep import Sweep
from boincvm.runner.sweep_results import (
    JOB_LOG,
    ItemEnd,
    Resume,
    SweepResults,
    failed,
    kept_results,
)
from boincvm.runner.sweep_worker import MachineWorker, WorkerLostError
from boincvm.runner.worker_machine import MakeMachine, WorkerMachine

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))


async def write(guest: FakeGuest, call: FakeCall) -> int:
    """Print the arguments and the existing files; leave one."""
    found = b" ".join(sorted(guest.files)) or b"nothing"
    call.write("stdout", b"%s finds %s\n" % (call.argv[1], found))
    guest.files[b"out"] = FakeFile("file", 0o644, b"result of " + call.argv[1])
    return 0


async def empty(guest: FakeGuest, _: FakeCall) -> int:
    """Stand for the program that empties directories."""
    guest.files.clear()
    return 0


async def fail(_: FakeGuest, call: FakeCall) -> int:
    return int(call.argv[1])


PROGRAMS: dict[str, FakeProgram] = {"write": write, "find": empty, "fail": fail}


class Ends:
    """A report that records what it gets."""

    def __init__(self) -> None:
        self.ends: list[ItemEnd] = []
        self.notes: list[str] = []
        self.begun = 0

    def begin(self, item: Item) -> None:
        self.begun += 1

    async def end(self, end: ItemEnd) -> None:
        self.ends.append(end)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Bench:
    """The parts of a sweep, whose items are a program and its argument."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.driver = FakeDriver(PROGRAMS)
        self.report = Ends()
        self.failing_starts = 0
        self.ended_before: Mapping[int, int] = {}

    def job(self, item: Item, slot: str) -> Job[MachineTask]:
        if item.values[0] == "refused":
            raise UsageError("not this one")
        outputs = (OutputFile(PurePosixPath("out"), PurePosixPath("out")),)
        task = MachineTask(item.values)
        return Job((task,), self.directory, outputs=outputs if item.values[0] == "write" else ())

    def make(self, directory: Path) -> tuple[ManagedMachine, Sequence[StartSource]]:
        if self.failing_starts:
            self.failing_starts -= 1
            raise HypervisorError("no machine today")
        nowhere = directory / "none"
        spec = MachineSpec(directory, nowhere, nowhere, nowhere, memory=1 << 20, cpus=1)
        return ManagedMachine(self.driver, spec), [Boot()]

    def open(self, stack: ExitStack, *commands: str, resume: Resume = Resume.NONE) -> Sweep:
        items = [Item(i, tuple(words.split())) for i, words in enumerate(commands, 1)]
        stored = kept_results(
            self.directory / "results", resume, items, lambda item: " ".join(item.values)
        )
        results = stack.enter_context(stored)
        self.ended_before = results.ended_before
        todo = [item for item in items if item.number not in results.ended_before]
        return Sweep(todo, self.job, lambda _: MachineWorker(self.make), results, self.report)

    async def run(
        self, *commands: str, workers: int = 1, resume: Resume = Resume.NONE
    ) -> dict[int, int]:
        """Run the commands; return the exit codes by the items' numbers."""
        self.report = Ends()
        with ExitStack() as stack:
            sweep = self.open(stack, *commands, resume=resume)
            await sweep.run(workers)
        assert all(machine.state.name == "DESTROYED" for machine in self.driver.machines)
        return {end.item.number: end.exit_code for end in self.report.ends}

    def stdout(self, number: int) -> str:
        return (self.directory / "results" / str(number) / "stdout").read_text()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_one_machine_with_a_clean_directory_for_each_item(bench: Bench) -> None:
    assert await bench.run("write a", "fail 3", "write b") == {1: 0, 2: 3, 3: 0}
    assert len(bench.driver.machines) == 1
    assert bench.stdout(1) == "a finds nothing\n"
    assert bench.stdout(3) == "b finds nothing\n"
    assert (bench.directory / "results/3/out").read_text() == "result of b"
    assert bench.report.ends[0].received == len("result of a")


async def test_a_machine_that_cannot_be_emptied_is_replaced(bench: Bench) -> None:
    bench.driver.programs = {**PROGRAMS, "find": fail_always}
    assert await bench.run("write a", "write b") == {1: 0, 2: 0}
    assert len(bench.driver.machines) == 2
    assert bench.stdout(2) == "b finds nothing\n"


async def fail_always(_: FakeGuest, call: FakeCall) -> int:
    call.write("stderr", b"find: cannot delete\n")
    return 1


async def test_a_machine_whose_program_was_killed_or_panicked_is_replaced(bench: Bench) -> None:
    async def killed(_: FakeGuest, call: FakeCall) -> int:
        return -9

    async def panic(_: FakeGuest, call: FakeCall) -> int:
        bench.driver.machines[-1].end(EndCause.PANICKED, "at last")
        await asyncio.Event().wait()
        return 0

    bench.driver.programs = {**PROGRAMS, "killed": killed, "panic": panic}
    ends = await bench.run("write a", "killed x", "write b", "panic x", "write c")
    assert ends == {1: 0, 2: 137, 3: 0, 4: 218, 5: 0}
    assert len(bench.driver.machines) == 3
    assert bench.report.ends[1].signal == 9
    assert "panicked" in bench.report.ends[3].message


async def test_what_one_item_lacks_is_no_matter_of_the_others(bench: Bench) -> None:
    ends = await bench.run("refused x", "no-such x", "write a")
    assert ends == {1: 210, 2: 127, 3: 0}
    assert bench.report.ends[0].message == "not this one"


async def test_workers_have_a_machine_each(bench: Bench) -> None:
    gate = asyncio.Barrier(2)

    async def meet(_: FakeGuest, call: FakeCall) -> int:
        async with asyncio.timeout(10):
            await gate.wait()
        return 0

    bench.driver.programs = {**PROGRAMS, "meet": meet}
    assert await bench.run("meet 1", "meet 2", "meet 3", "meet 4", workers=2) == dict.fromkeys(
        range(1, 5), 0
    )
    assert len(bench.driver.machines) == 2


async def test_a_worker_for_whom_there_is_no_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(_memory: int, used: list[int], *_: object) -> None:
        if used:
            raise NotEnoughRoomError("no room")

    monkeypatch.setattr(admission, "_check", check)
    commands = ("write a", "write b", "write c")
    assert await bench.run(*commands, workers=2) == {1: 0, 2: 0, 3: 0}
    assert bench.report.notes == ["a machine was lost: no room"]
    assert bench.report.begun == 3
    assert len(bench.driver.machines) == 1


async def test_a_lack_of_room_while_another_machine_closes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The item is run by the worker whose machine has closed meanwhile."""
    closing, refused = asyncio.Event(), asyncio.Event()

    class Worker(WorkerMachine):
        is_first = True

        def __init__(self, make: MakeMachine) -> None:
            super().__init__(make)
            self._is_first, Worker.is_first = Worker.is_first, False

        async def ready(self) -> ManagedMachine:
            if not self._is_first:
                await closing.wait()
                if not closed:
                    refused.set()
                    raise NotEnoughRoomError("no room")
            return await super().ready()

        async def close(self) -> None:
            if self._is_first and not closing.is_set():
                closing.set()
                await refused.wait()
            await super().close()
            closed.append(self)

    closed = list[Worker]()
    monkeypatch.setattr(sweep_worker, "WorkerMachine", Worker)
    async with asyncio.timeout(10):
        assert await bench.run("write a", "write b", workers=2) == {1: 0, 2: 0}
    assert bench.report.notes == ["a machine was lost: no room"]


async def test_where_no_machine_starts_the_sweep_ends(bench: Bench) -> None:
    bench.failing_starts = 2
    with pytest.raises(HypervisorError, match="no machine today"):
        await bench.run("write a", "write b", "write c", workers=2)
    assert (bench.report.begun, bench.report.ends) == (0, [])


async def test_a_signal_ends_programs_and_begins_no_more(bench: Bench) -> None:
    begun = asyncio.Event()

    async def wait_for_signal(_: FakeGuest, call: FakeCall) -> int:
        begun.set()
        return -(await call.signals.get())

    bench.driver.programs = {**PROGRAMS, "wait": wait_for_signal}
    commands = ("write a", "wait x", "write b")
    with ExitStack() as stack:
        sweep = bench.open(stack, *commands)
        work = asyncio.ensure_future(sweep.run(1))
        async with asyncio.timeout(10):
            await begun.wait()
            assert sweep.signal_program(signal.SIGINT)
            await work
    assert [end.item.number for end in bench.report.ends] == [1]
    assert bench.driver.machines[0].state.name == "DESTROYED"
    # What was interrupted runs again, and what has ended does not.
    bench.driver.programs = {**PROGRAMS, "wait": write}
    assert await bench.run(*commands, resume=Resume.UNFINISHED) == {2: 0, 3: 0}


async def test_a_signal_ends_workers_that_have_no_program(bench: Bench) -> None:
    bench.driver.boots = False
    with ExitStack() as stack:
        sweep = bench.open(stack, "write a", "write b")
        work = asyncio.ensure_future(sweep.run(2))
        async with asyncio.timeout(10):
            await asyncio.sleep(0)  # the workers begin
            assert not sweep.signal_program(signal.SIGINT)
            await work
    assert bench.report.ends == []


async def test_resuming(bench: Bench) -> None:
    commands = ("write a", "fail 3", "refused x")
    await bench.run(*commands)
    with pytest.raises(UsageError, match="the results of an earlier sweep"):
        await bench.run(*commands)
    assert await bench.run(*commands, "write b", resume=Resume.UNFINISHED) == {4: 0}
    assert bench.ended_before == {1: 0, 2: 3, 3: 210}
    assert await bench.run(*commands, "write b", resume=Resume.FAILED) == {2: 3, 3: 210}
    assert bench.ended_before == {1: 0, 4: 0}
    with pytest.raises(UsageError, match="another sweep: its item 1 was write a"):
        await bench.run("write z", *commands[1:], "write b", resume=Resume.FAILED)
    with pytest.raises(UsageError, match="another sweep: its item 2 was fail 3"):
        await bench.run("write a", "fail 4", "refused x", "write b", resume=Resume.FAILED)
    with pytest.raises(UsageError, match="another sweep: its item 3 was refused x"):
        await bench.run("write a", "fail 3", resume=Resume.FAILED)


async def test_resuming_where_nothing_was_begun(bench: Bench) -> None:
    items = [Item(1, ("fail", "0"))]

    def lacks_earlier(resume: Resume) -> bool:
        directory = bench.directory / "results"
        with kept_results(directory, resume, items, lambda item: " ".join(item.values)) as found:
            return found.lacks_earlier

    assert lacks_earlier(Resume.UNFINISHED)
    assert lacks_earlier(Resume.FAILED)
    await bench.run("fail 0", resume=Resume.UNFINISHED)
    assert not lacks_earlier(Resume.UNFINISHED)


async def test_a_program_that_is_nowhere_needs_no_machine(bench: Bench) -> None:
    assert await bench.run("./nosuch 1") == {1: ExitCode.NO_SUCH_PROGRAM}
    assert "'./nosuch' does not exist in" in bench.report.ends[0].message
    assert bench.driver.machines == []


async def test_the_job_log(bench: Bench) -> None:
    """An incomplete line is dropped, and its item runs again."""
    commands = ("write a", "fail 3", "write\tb")
    await bench.run(*commands)
    log = bench.directory / "results" / JOB_LOG
    lines = log.read_text().splitlines()
    assert lines[0] == "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand"
    rows = [line.split("\t") for line in lines[1:]]
    assert [(row[0], row[1], row[6], row[7], row[8]) for row in rows] == [
        ("1", ":", "0", "0", "write a"),
        ("2", ":", "3", "0", "fail 3"),
        ("3", ":", "0", "0", "write b"),
    ]
    log.write_text("\n".join(lines)[:-4])
    assert await bench.run(*commands, resume=Resume.UNFINISHED) == {3: 0}
    assert log.read_text().splitlines()[:3] == lines[:3]
    log.write_text("something else\n")
    with pytest.raises(BoincvmError, match="not the log of a sweep"):
        await bench.run(*commands, resume=Resume.UNFINISHED)


async def test_what_has_a_number_for_a_name_is_not_removed(bench: Bench) -> None:
    """It may be an input, or anything else, unless an earlier sweep has left it."""
    mine = bench.directory / "results/2/mine"
    mine.parent.mkdir(parents=True)
    mine.touch()
    for resume in (Resume.NONE, Resume.UNFINISHED):
        with pytest.raises(UsageError, match="the results of input 2 would replace"):
            await bench.run("write a", "write b", resume=resume)
    assert mine.exists()
    assert await bench.run("write a") == {1: 0}


async def test_a_job_log_in_which_nothing_was_written(bench: Bench) -> None:
    log = bench.directory / "results" / JOB_LOG
    log.parent.mkdir()
    log.touch()
    assert await bench.run("write a", resume=Resume.UNFINISHED) == {1: 0}


async def test_two_sweeps_do_not_share_a_directory(bench: Bench) -> None:
    with ExitStack() as stack:
        bench.open(stack, "write a")
        with pytest.raises(UsageError, match="another sweep writes"):
            await bench.run("write a", resume=Resume.UNFINISHED)


class Lost:
    """A worker whose machine is lost while it runs an item that says so."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_lost = False

    def check(self, job: Job[MachineTask], results: Path, /) -> None: ...

    async def prepare(self) -> None:
        if self.is_lost:
            raise WorkerLostError(HypervisorError("it is off"))

    async def run(self, job: Job[MachineTask], end: ItemEnd, /) -> ItemEnd:
        await asyncio.sleep(0)  # the other one takes an item, too
        if (job.tasks[0].argv[0] == "first" and self.number == 1) or job.tasks[0].argv[0] == "any":
            self.is_lost = True
            cause = HypervisorError("its host is off")
            raise WorkerLostError(cause, failed(end, cause))
        return end

    def signal_program(self, _number: int, /) -> bool:
        return False

    async def close(self) -> None: ...


async def lost(bench: Bench, workers: int, *commands: str) -> dict[int, int]:
    """Run the commands by workers that may be lost; return the exit codes."""
    with ExitStack() as stack:
        bench.open(stack, *commands)
        items = [Item(i, tuple(words.split())) for i, words in enumerate(commands, 1)]
        results = SweepResults(bench.directory / "results", str)
        await Sweep(items, bench.job, Lost, results, bench.report).run(workers)
    return {end.item.number: end.exit_code for end in bench.report.ends}


async def test_an_item_whose_machine_is_lost_runs_in_another_one(bench: Bench) -> None:
    assert await lost(bench, 2, "first x", "write b", "write c") == {1: 0, 2: 0, 3: 0}
    assert bench.report.notes == ["a machine was lost: its host is off"]


async def test_an_item_that_loses_two_machines_has_failed(bench: Bench) -> None:
    assert await lost(bench, 3, "any x", "write b", "write c") == {1: 215, 2: 0, 3: 0}


async def test_when_the_last_machine_is_lost_the_sweep_ends(bench: Bench) -> None:
    with pytest.raises(HypervisorError, match="its host is off"):
        await lost(bench, 1, "any x", "write b")
