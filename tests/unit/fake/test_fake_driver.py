"""Jobs on the fake driver: the whole wrapper without a virtual machine."""

import asyncio
import signal
import stat
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

from boincvm.errors import (
    GuestNeverBootedError,
    GuestPanickedError,
    GuestPoweredOffError,
    HostDiskFullError,
    HypervisorError,
    LimitError,
    OutputFileError,
    ProgramStartError,
)
from boincvm.hypervisor.channel import SocketChannel
from boincvm.hypervisor.contract import (
    EndCause,
    MachineSpec,
    MachineState,
    RemoteDesktopAccess,
)
from boincvm.hypervisor.fake.driver import FakeDriver, FakeMachine
from boincvm.hypervisor.fake.guest import FakeCall, FakeFile, FakeGuest
from boincvm.job.model import InputFile, Job, Limits, MachineTask, OutputFile
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.settings import Settings
from boincvm.machine.start_source import Boot
from boincvm.runner import job_run as job_run_module
from boincvm.runner.job_run import JobRun, Observer
from boincvm.runner.streams import RunStreams


async def upper(guest: FakeGuest, call: FakeCall) -> int:
    """Write standard input in upper case, and a file."""
    await call.stdin_ended.wait()
    call.write("stdout", bytes(call.stdin).upper())
    guest.files[b"result"] = FakeFile("file", 0o640, b"done\n")
    return 0


async def wait_for_signal(_: FakeGuest, call: FakeCall) -> int:
    return -(await call.signals.get())


async def fail(_: FakeGuest, call: FakeCall) -> int:
    call.write("stderr", b"no luck\n")
    return 3


PROGRAMS = {"upper": upper, "wait": wait_for_signal, "fail": fail}


def spec(directory: Path) -> MachineSpec:
    nowhere = directory / "none"
    return MachineSpec(directory, nowhere, nowhere, nowhere, memory=1 << 28, cpus=1)


def job(
    directory: Path, *programs: str, time_limit: float | None = None, **rest: object
) -> Job[MachineTask]:
    tasks = tuple(
        MachineTask((name,), stdin=Path("in"), time_limit=time_limit) for name in programs
    )
    (directory / "in").write_bytes(b"hello")
    return Job(tasks=tasks, directory=directory, **rest)  # type: ignore[arg-type]


def outputs(*names: str) -> tuple[OutputFile, ...]:
    return tuple(OutputFile(PurePosixPath(name), PurePosixPath(name)) for name in names)


def machine(driver: FakeDriver, work: Job[MachineTask]) -> ManagedMachine:
    return ManagedMachine(driver, spec(work.directory), Settings(work.limits))


async def run(driver: FakeDriver, work: Job[MachineTask]) -> tuple[JobRun, RunStreams]:
    streams = RunStreams(work.directory, capture=True)
    job_run = JobRun(work, streams, Observer())
    async with asyncio.timeout(10):
        await job_run.run(machine(driver, work), [Boot()])
    return job_run, streams


async def test_a_job_goes_in_runs_and_comes_out(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(b"x" * 300_000)
    (tmp_path / "tree" / "link").symlink_to("a")
    work = job(
        tmp_path,
        "upper",
        inputs=(InputFile(Path("tree"), PurePosixPath("t/tree")),),
        outputs=(
            OutputFile(PurePosixPath("result"), PurePosixPath("out/result")),
            OutputFile(PurePosixPath("t/tree"), PurePosixPath("copy")),
        ),
    )
    driver = FakeDriver(PROGRAMS)
    job_run, streams = await run(driver, work)
    assert job_run.outcome.exit_code == 0
    assert bytes(streams.captured["stdout"].data) == b"HELLO"
    result = tmp_path / "out" / "result"
    assert result.read_bytes() == b"done\n"
    assert stat.S_IMODE(result.stat().st_mode) == 0o640
    assert (tmp_path / "copy" / "a").read_bytes() == b"x" * 300_000
    assert (tmp_path / "copy" / "link").readlink() == Path("a")
    assert driver.machines[0].state is MachineState.DESTROYED


async def test_a_task_has_files_of_its_own(tmp_path: Path) -> None:
    """They are copied in before it and out after it, even if it fails."""
    (tmp_path / "own").write_bytes(b"of the task")
    seen: list[bytes] = []

    async def writes_and_fails(guest: FakeGuest, _: FakeCall) -> int:
        seen.append(guest.files[b"d/own"].data)
        guest.files[b"half"] = FakeFile("file", 0o644, b"half\n")
        return 3

    task = MachineTask(
        ("fails",),
        inputs=(InputFile(Path("own"), PurePosixPath("d/own")),),
        outputs=outputs("half", "whole"),
    )
    job_run, _ = await run(FakeDriver({"fails": writes_and_fails}), Job((task,), tmp_path))
    assert seen == [b"of the task"]
    assert (tmp_path / "half").read_bytes() == b"half\n"
    assert job_run.outcome.exit_code == 3
    assert "output whole: " in job_run.outcome.note


async def test_the_first_task_that_fails_ends_the_job(tmp_path: Path) -> None:
    job_run, streams = await run(FakeDriver(PROGRAMS), job(tmp_path, "fail", "upper"))
    assert job_run.outcome.exit_code == 3
    assert len(job_run.outcome.ends) == 1
    assert bytes(streams.captured["stderr"].data) == b"no luck\n"


async def test_no_such_program(tmp_path: Path) -> None:
    with pytest.raises(ProgramStartError, match="nothing"):
        await run(FakeDriver(PROGRAMS), job(tmp_path, "nothing"))


@pytest.mark.parametrize("heeds", [True, False])
async def test_the_time_limit_ends_the_program(tmp_path: Path, heeds: bool) -> None:
    """It is asked first, and killed if it does not end. Its output up to then, and its messages,
    are kept; a missing output is named."""

    async def writes_and_waits(guest: FakeGuest, call: FakeCall) -> int:
        guest.files[b"result"] = FakeFile("file", 0o644, b"half\n")
        call.write("stdout", b"said")
        first = await call.signals.get()
        assert first == signal.SIGTERM
        return -(first if heeds else await call.signals.get())

    limits = Limits(stop=60.0 if heeds else 0.1)
    wanted = outputs("none", "result")
    work = job(tmp_path, "slow", time_limit=0.2, limits=limits, outputs=wanted)
    streams = RunStreams(tmp_path, capture=True)
    job_run = JobRun(work, streams, Observer())
    with pytest.raises(LimitError, match=r"0\.2 s; output none: "):
        async with asyncio.timeout(10):
            await job_run.run(machine(FakeDriver({"slow": writes_and_waits}), work), [Boot()])
    assert (tmp_path / "result").read_bytes() == b"half\n"
    assert bytes(streams.captured["stdout"].data) == b"said"
    assert [end.signal for end in job_run.outcome.ends] == [15 if heeds else 9]


class Desktop(NamedTuple):
    access: RemoteDesktopAccess | None


async def test_a_remote_desktop_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    access = RemoteDesktopAccess("RDP", "127.0.0.1", 33890, "boincvm", "secret")
    monkeypatch.setattr(FakeMachine, "remote_desktop", Desktop(access))
    await run(FakeDriver(PROGRAMS), job(tmp_path, "fail"))
    line = "boincvm: remote desktop: RDP at 127.0.0.1:33890, user boincvm, password secret\n"
    assert line in capfd.readouterr().err
    monkeypatch.setattr(FakeMachine, "remote_desktop", None)
    await run(FakeDriver(PROGRAMS), job(tmp_path, "fail"))
    assert "remote desktop" not in capfd.readouterr().err


async def test_a_killed_program_that_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def waits(_: FakeGuest, call: FakeCall) -> int:
        await call.signals.get()
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(job_run_module, "_KILL_LIMIT", 0.1)
    work = job(tmp_path, "slow", time_limit=0.2, limits=Limits(stop=0.1))
    with pytest.raises(LimitError, match=r"0\.2 s"):
        await run(FakeDriver({"slow": waits}), work)


@pytest.mark.parametrize("is_sent", [True, False])
async def test_a_program_without_its_directory(tmp_path: Path, is_sent: bool) -> None:
    """The user's file may have been meant, whether it is beside the user or was sent."""
    with pytest.raises(ProgramStartError) as caught:
        await run(FakeDriver(PROGRAMS), job(tmp_path, "plain.py"))
    assert "image build" in caught.value.hint
    path = tmp_path / "elsewhere" / "plain.py" if is_sent else tmp_path / "plain.py"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"#!/usr/bin/python3\n")
    inputs = (InputFile(path, PurePosixPath("plain.py")),) if is_sent else ()
    with pytest.raises(ProgramStartError) as caught:
        await run(FakeDriver(PROGRAMS), job(tmp_path, "plain.py", inputs=inputs))
    assert "there is './plain.py', did you mean that?" in caught.value.hint


async def test_an_output_with_another_name_here(tmp_path: Path) -> None:
    """A BOINC client knows it by a physical name, which tells a user nothing."""
    wanted = (OutputFile(PurePosixPath("out.dat"), PurePosixPath(tmp_path / "output_3")),)
    with pytest.raises(OutputFileError, match=r"output out\.dat, here output_3: the guest"):
        await run(FakeDriver(PROGRAMS), job(tmp_path, "upper", outputs=wanted))


async def test_outputs_that_are_missing(tmp_path: Path) -> None:
    """Existing outputs are copied back all the same, and each missing one is named."""
    wanted = outputs("nowhere", "result", "neither")
    with pytest.raises(OutputFileError, match=r"output nowhere: .*; output neither: "):
        await run(FakeDriver(PROGRAMS), job(tmp_path, "upper", outputs=wanted))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "result"]
    job_run, _ = await run(FakeDriver(PROGRAMS), job(tmp_path, "fail", outputs=wanted))
    assert "output nowhere: " in job_run.outcome.note
    assert "output neither: " in job_run.outcome.note
    assert job_run.outcome.exit_code == 3


async def test_a_guest_that_never_speaks(tmp_path: Path) -> None:
    with pytest.raises(GuestNeverBootedError):
        await run(FakeDriver(boots=False), job(tmp_path, "upper", limits=Limits(boot=0.2)))


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (EndCause.KILLED, HypervisorError),
        (EndCause.FAILED, HypervisorError),
        (EndCause.POWERED_OFF, GuestPoweredOffError),
        (EndCause.PANICKED, GuestPanickedError),
        (EndCause.HOST_DISK_FULL, HostDiskFullError),
    ],
)
async def test_why_a_machine_ended(
    tmp_path: Path, cause: EndCause, expected: type[Exception]
) -> None:
    driver = FakeDriver()

    async def end(guest: FakeGuest, call: FakeCall) -> int:
        driver.machines[0].end(cause, "as the test says")
        return await wait_for_signal(guest, call)

    driver.programs["end"] = end
    with pytest.raises(expected):
        await run(driver, job(tmp_path, "end"))


async def test_every_verb_of_the_lifecycle_twice(tmp_path: Path) -> None:
    machine = FakeDriver().machine(spec(tmp_path))
    for verb, state in (
        (machine.create, MachineState.CREATED),
        (machine.start, MachineState.RUNNING),
        (machine.pause, MachineState.PAUSED),
        (machine.resume, MachineState.RUNNING),
        (partial(machine.save, 1), MachineState.SAVED),
        (machine.start, MachineState.PAUSED),
        (machine.resume, MachineState.RUNNING),
        (machine.stop, MachineState.STOPPED),
        (machine.destroy, MachineState.DESTROYED),
    ):
        channel = await verb()
        if isinstance(channel, SocketChannel):
            channel.close()
        else:
            await verb()
        assert machine.state is state


async def test_a_missing_output_says_what_to_look_at(tmp_path: Path) -> None:
    work = job(tmp_path, "upper", outputs=outputs("result", "nothing"))
    with pytest.raises(OutputFileError, match="output nothing: the guest cannot send") as failure:
        await run(FakeDriver(PROGRAMS), work)
    assert "the program did not make such a file" in failure.value.hint
