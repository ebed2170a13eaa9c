"""The host's ends of a program's streams, with real pipes and files."""

import asyncio
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from boincvm.errors import BoincvmError, HostDiskFullError, InputFileError, OutputFileError
from boincvm.job.model import MachineTask
from boincvm.machine.saved_machine import SavedTask
from boincvm.machine.streams import DescriptorSink, MemorySink, OutputClosedError, StdinFeed
from boincvm.runner.streams import RunStreams

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):  # the test may have closed it
            os.close(end)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.005)


def no_failure(error: BoincvmError) -> None:
    raise AssertionError(error)


async def test_a_sink_does_not_block_on_a_full_pipe(pipe: tuple[int, int]) -> None:
    taken: list[int] = []
    sink = DescriptorSink(pipe[1], taken.append, no_failure)
    data = os.urandom(1 << 20)
    sink.write(data[: 1 << 19])
    sink.write(data[1 << 19 :])
    await until(lambda: sum(taken) >= 1 << 16)
    assert sum(taken) < 1 << 18  # what the pipe holds, and no more
    received = bytearray()
    while len(received) < len(data):
        received += await asyncio.to_thread(os.read, pipe[0], 1 << 16)
    await sink.flush()
    assert bytes(received) == data
    assert sum(taken) == len(data)
    assert os.get_blocking(pipe[1])


async def test_a_sink_whose_reader_has_gone(pipe: tuple[int, int]) -> None:
    failures: list[BoincvmError] = []
    sink = DescriptorSink(pipe[1], lambda _: None, failures.append)
    os.close(pipe[0])
    sink.write(b"x")
    await sink.flush()
    assert [type(failure) for failure in failures] == [OutputClosedError]
    assert failures[0].exit_code == 141


async def test_a_sink_on_a_full_disk() -> None:
    failures: list[BoincvmError] = []
    descriptor = os.open("/dev/full", os.O_WRONLY)
    sink = DescriptorSink(descriptor, lambda _: None, failures.append)
    sink.write(b"x")
    await sink.flush()
    os.close(descriptor)
    assert [type(failure) for failure in failures] == [HostDiskFullError]


async def test_a_sink_that_epoll_refuses(tmp_path: Path) -> None:
    for path in (Path("/dev/null"), tmp_path / "file"):
        taken: list[int] = []
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        sink = DescriptorSink(descriptor, taken.append, no_failure)
        sink.write(b"x" * 100_000)
        await sink.flush()
        os.close(descriptor)
        assert sum(taken) == 100_000


async def test_memory_keeps_the_beginning() -> None:
    taken: list[int] = []
    sink = MemorySink(5, taken.append)
    sink.write(b"abc")
    assert not sink.truncated
    sink.write(b"defg")
    await sink.flush()
    assert (bytes(sink.data), sink.truncated, taken) == (b"abcde", True, [3, 4])


async def test_a_source_reads_no_more_than_there_is_room_for(pipe: tuple[int, int]) -> None:
    fed: list[bytes] = []
    ended: list[bool] = []
    source = StdinFeed(pipe[0], fed.append, lambda: ended.append(True), 4, no_failure)
    os.write(pipe[1], b"abcdefgh")
    await until(lambda: fed)
    await asyncio.sleep(0.02)  # nothing more may come of itself
    assert b"".join(fed) == b"abcd"
    source.add_room(100)
    await until(lambda: b"".join(fed) == b"abcdefgh")
    os.close(pipe[1])
    await until(lambda: ended)
    source.close()


async def test_a_source_that_is_closed_reads_no_more(pipe: tuple[int, int]) -> None:
    fed: list[bytes] = []
    source = StdinFeed(pipe[0], fed.append, lambda: None, 100, no_failure)
    source.close()
    source.add_room(5)
    os.write(pipe[1], b"late")
    await asyncio.sleep(0.02)  # time in which it could have read
    assert fed == []
    assert select.select([pipe[0]], [], [], 0)[0]


async def test_a_source_that_cannot_be_read(tmp_path: Path) -> None:
    failures: list[BoincvmError] = []
    descriptor = os.open(tmp_path, os.O_RDONLY)
    source = StdinFeed(descriptor, lambda _: None, lambda: None, 100, failures.append)
    os.close(descriptor)
    assert [type(failure) for failure in failures] == [InputFileError]
    source.close()


async def test_a_source_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 200_000)
    fed: list[bytes] = []
    ended: list[bool] = []
    descriptor = os.open(tmp_path / "in", os.O_RDONLY)
    source = StdinFeed(descriptor, fed.append, lambda: ended.append(True), 150_000, no_failure)
    assert sum(map(len, fed)) == 150_000
    source.add_room(100_000)
    os.close(descriptor)
    assert (sum(map(len, fed)), ended) == (200_000, [True])


async def open_streams(
    directory: Path, *, stdin: Path | None = None, stdout: Path | None = None
) -> None:
    task = MachineTask(("x",), stdin=stdin, stdout=stdout)
    streams = RunStreams(directory, capture=True)
    async with streams.open(task, lambda _: None, no_failure):
        pass


@pytest.mark.parametrize("name", ["link", "up/file"])
async def test_streams_of_a_task_follow_no_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "target").write_bytes(b"untouched")
    (tmp_path / "work").mkdir()
    (tmp_path / "work/link").symlink_to("../target")
    (tmp_path / "work/up").symlink_to("..")
    (tmp_path / "file").write_bytes(b"untouched")
    with pytest.raises(OutputFileError):
        await open_streams(tmp_path / "work", stdout=Path(name))
    with pytest.raises(InputFileError):
        await open_streams(tmp_path / "work", stdin=Path(name))
    assert (tmp_path / "target").read_bytes() == b"untouched"
    assert (tmp_path / "file").read_bytes() == b"untouched"


async def test_a_pipe_that_nobody_reads_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputFileError):
        await open_streams(tmp_path, stdout=Path("pipe"))
    await open_streams(tmp_path, stdin=Path("pipe"))


def test_closed_descriptors_are_filled() -> None:
    program = (
        "import os; from boincvm.host.inherited import fill_closed_descriptors as fill;"
        "os.close(0); os.close(1); fill();"
        "ok = all(os.fstat(n).st_rdev == os.stat('/dev/null').st_rdev for n in (0, 1));"
        "os._exit(0 if ok else 1)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)


@pytest.mark.parametrize(
    ("found", "left"), [(b"before|after", b"before"), (b"bef", b"bef"), (None, b"")]
)
async def test_output_goes_on_where_a_saved_program_was(
    tmp_path: Path, found: bytes | None, left: bytes
) -> None:
    """What is missing, because somebody has removed it, is not made up for."""
    if found is not None:
        (tmp_path / "out").write_bytes(found)
    saved = SavedTask(0, {}, stdin=0, files={"stdout": 6}, guest=0.0, wall=0.0, fraction_done=0.0)
    task = MachineTask(("prog",), stdin=Path(os.devnull), stdout=Path("out"))
    streams = RunStreams(tmp_path, capture=False)
    async with streams.open(task, lambda _: None, no_failure, saved=saved) as opened:
        opened.write("stdout", b"!")
        await opened.flush()
    assert (tmp_path / "out").read_bytes() == left + b"!"
