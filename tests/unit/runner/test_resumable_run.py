"""Jobs that can be resumed, on the fake driver: when what is kept of them is removed."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import cast

import pytest

from boincvm.errors import BoincvmError, HostDiskFullError
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.fake.driver import FakeDriver
from boincvm.hypervisor.fake.guest import FakeCall, FakeFile, FakeGuest
from boincvm.image.store import Image, ImageStore
from boincvm.job.model import Job, MachineTask, OutputFile
from boincvm.machine import checkpoint_schedule
from boincvm.machine.checkpoint_turn import CheckpointTurn, turn_lock
from boincvm.machine.checkpointing import write_checkpoint
from boincvm.machine.saved_machine import manifests
from boincvm.runner import resumable_run
from boincvm.runner.resumable_jobs import JobRecord, ResumableJob, new_job
from support.file_locks import until_waited_for
from support.packed_images import publish

pytestmark = pytest.mark.timeout(30)

OUT = PurePosixPath("out")


class Bench:
    """A job whose program waits until it may end, and its directory."""

    def __init__(self, directory: Path, stored: ResumableJob) -> None:
        self.directory = directory
        self.stored = stored
        self.driver = FakeDriver({"prog": self._program})
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.writes = True
        self.digest = "d"
        self.outputs = (OutputFile(OUT, OUT),)

    async def _program(self, guest: FakeGuest, _: FakeCall) -> int:
        self.has_begun.set()
        await self.may_end.wait()
        if self.writes:
            guest.files[b"out"] = FakeFile("file", 0o644, b"result")
        return 0

    def run(
        self, *, is_json: bool = False, period: float = 1000.0, show_progress: bool = False
    ) -> resumable_run._ResumableRun:
        task = MachineTask(("prog",), stdin=Path(os.devnull))
        job = Job((task,), self.directory, outputs=self.outputs)
        image = SimpleNamespace(
            name="base",
            digest=self.digest,
            directory=self.directory,
            golden=self.directory / "none/golden",
        )
        options = resumable_run.ResumableOptions(
            "fake", period, is_json, show_progress=show_progress, is_verbose=False
        )
        return resumable_run._ResumableRun(self.stored, job, cast(Image, image), options)

    async def save(self) -> None:
        """Begin the job and interrupt it."""
        work = asyncio.ensure_future(self.run().run())
        async with asyncio.timeout(10):
            await self.has_begun.wait()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(BoincvmError, match="the job is kept on disk"):
            await work


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    here = tmp_path / "here"
    here.mkdir()
    nowhere = tmp_path / "none"

    def spec(_shape: object, _image: object, directory: Path) -> MachineSpec:
        return MachineSpec(directory, nowhere, nowhere, nowhere, memory=1 << 20, cpus=1)

    monkeypatch.setattr(resumable_run, "machine_spec", spec)
    with new_job(None, "prog", JobRecord({}, str(here), 0.0)) as stored:
        made = Bench(here, stored)

        async def open_driver_for(*_: object) -> tuple[None, FakeDriver]:
            return None, made.driver

        monkeypatch.setattr(resumable_run, "open_driver_for", open_driver_for)
        yield made


async def test_an_output_in_whose_place_something_is_does_not_end_a_job(bench: Bench) -> None:
    await bench.save()
    (bench.directory / "out").mkdir()
    (bench.directory / "out/file").touch()
    with pytest.raises(BoincvmError, match="not empty; the job is kept on disk") as failure:
        await bench.run().run()
    assert "boincvm run --resume prog" in failure.value.hint
    assert bench.stored.has_checkpoint


@pytest.mark.parametrize("is_json", [False, True])
async def test_what_fails_without_a_checkpoint_is_not_kept(
    bench: Bench, is_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.may_end.set()
    bench.writes = False
    run = bench.run(is_json=is_json)
    if is_json:
        assert await run.run() == ExitCode.OUTPUT_FILE
        assert "nothing of the job is kept" in capsys.readouterr().out
    else:
        with pytest.raises(BoincvmError, match="nothing of the job is kept"):
            await run.run()
    assert not bench.stored.directory.exists()


async def test_a_signal_while_a_checkpoint_is_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint is made after that one, which removes no file of it."""
    made = list[bool]()
    busy = 0

    async def write(*arguments: object, last: bool) -> None:
        nonlocal busy
        busy += 1
        assert busy == 1
        if not last:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.05)
        await write_checkpoint(*arguments, last=last)  # type: ignore[arg-type]
        made.append(last)
        busy -= 1

    monkeypatch.setattr(resumable_run, "write_checkpoint", write)
    monkeypatch.setattr(checkpoint_schedule, "LEAST_PERIOD", 0.01)
    monkeypatch.setattr(resumable_run, "check_checkpoint_room", lambda *_: None)
    with pytest.raises(BoincvmError, match="the job is kept on disk"):
        await bench.run(period=0.01).run()
    assert made == [False, True]
    assert [number for number, _ in manifests(bench.stored.machine)] == [2, 1]


async def test_a_signal_while_a_checkpoint_waits_for_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint does not wait with it."""
    monkeypatch.setattr(checkpoint_schedule, "LEAST_PERIOD", 0.01)
    monkeypatch.setattr(resumable_run, "check_checkpoint_room", lambda *_: None)
    async with asyncio.timeout(10), CheckpointTurn().taken():
        work = asyncio.ensure_future(bench.run(period=0.01).run())
        await until_waited_for(turn_lock(), work)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(BoincvmError, match="the job is kept on disk"):
            await work


async def test_a_full_disk_ends_no_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def write(*_: object, last: bool) -> None:
        assert not last
        bench.may_end.set()
        raise HostDiskFullError("the disk is full")

    monkeypatch.setattr(resumable_run, "write_checkpoint", write)
    monkeypatch.setattr(resumable_run, "check_checkpoint_room", lambda *_: None)
    monkeypatch.setattr(checkpoint_schedule, "LEAST_PERIOD", 0.01)
    assert await bench.run(period=0.01).run() == 0
    assert "boincvm: no checkpoint was made: the disk is full\n" in capsys.readouterr().err
    assert (bench.directory / "out").read_text() == "result"


@pytest.mark.parametrize("signals", [1, 2])
@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_signal_while_outputs_are_copied(
    bench: Bench, goes_on: bool, signals: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first one waits for them: the program's work is not thrown away."""
    copying, may_copy = asyncio.Event(), asyncio.Event()

    async def list_matches(_: FakeGuest, call: FakeCall) -> int:
        copying.set()
        await may_copy.wait()
        call.write("stdout", b"out\0")
        return 0

    bench.driver.programs["sh"] = list_matches
    bench.outputs = (OutputFile(PurePosixPath("o*"), PurePosixPath(), is_pattern=True),)
    if goes_on:
        await bench.save()
    bench.may_end.set()
    work = asyncio.ensure_future(bench.run().run())
    async with asyncio.timeout(10):
        await copying.wait()
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.05)
        if signals == 2:
            advice = "the job is kept" if goes_on else "nothing of the job is kept"
            with pytest.raises(BoincvmError, match=advice):
                await work
        else:
            may_copy.set()
            assert await work == 0
    assert (bench.directory / "out").exists() == (signals == 1)
    assert bench.stored.has_checkpoint == (goes_on and signals == 2)
    assert "the program has ended, and its outputs are copied" in capsys.readouterr().err


async def test_an_output_that_is_missing_after_a_signal(bench: Bench) -> None:
    """The error tells that, not the signal."""

    async def list_nothing(_: FakeGuest, __: FakeCall) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)
        return 0

    bench.driver.programs["sh"] = list_nothing
    bench.outputs = (OutputFile(PurePosixPath("x*"), PurePosixPath(), is_pattern=True),)
    bench.may_end.set()
    with pytest.raises(BoincvmError, match="output x\\*: nothing matches it"):
        await bench.run().run()


async def test_a_machine_that_is_not_saved_in_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def write(*_: object, last: bool) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(resumable_run, "write_checkpoint", write)
    monkeypatch.setattr(resumable_run, "SAVE_LIMIT", 0.05)
    work = asyncio.ensure_future(bench.run().run())
    async with asyncio.timeout(10):
        await bench.has_begun.wait()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(BoincvmError, match="nothing of the job is kept"):
            await work
    assert "could not be saved within 0.05 s" in capsys.readouterr().err


async def test_a_job_goes_on_with_what_its_image_was(bench: Bench) -> None:
    """The image may be built again, or removed, while the job is off."""
    store = ImageStore()
    old = bench.digest = publish(store, content=b"old")
    await bench.save()
    assert store.owners() == {old: ["the job prog"]}
    new = publish(store, content=b"new")
    for _ in range(2):
        with resumable_run._open_image(bench.stored, "base") as image:
            assert image.digest == old
        if "base" in store.names():
            assert store.remove("base") == []
    bench.may_end.set()
    assert await bench.run().run() == 0
    assert not (store.root / "objects" / old).exists()
    assert not (store.root / "objects" / new).exists()


async def test_a_job_that_never_was_saved_begins_with_the_new_image(bench: Bench) -> None:
    store = ImageStore()
    store.keep(publish(store, content=b"old"), "base", bench.stored.directory, "the job prog")
    new = publish(store, content=b"new")
    with resumable_run._open_image(bench.stored, "base") as image:
        assert image.digest == new


async def test_the_progress_line_gives_way_to_what_is_told(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only a job that goes on has a saved machine to check."""
    work = asyncio.ensure_future(bench.run(show_progress=True).run())
    async with asyncio.timeout(10):
        await bench.has_begun.wait()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(BoincvmError, match="the job is kept on disk"):
        await work
    assert "checking the saved machine" not in capfd.readouterr().err
    bench.may_end.set()
    assert await bench.run(show_progress=True).run() == 0
    errors = capfd.readouterr().err
    assert "checking the saved machine" in errors
    assert "\r\x1b[Kboincvm: prog continues from its state of " in errors
