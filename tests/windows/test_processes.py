"""Child processes on Windows: a job holds them, suspends them, and ends them with us."""

import _winapi
import asyncio
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from boincvm.boinc import client_liveness
from boincvm.boinc.client_liveness import ClientLiveness
from boincvm.host import patience
from boincvm.host import win32_windows as win32
from boincvm.host.job_objects_windows import JobObject
from boincvm.host.process_tree import CONTINUE, KILL, STOP, children, descendants, own_usage, send
from boincvm.host.processes import (
    ChildProcess,
    DeathGuard,
    lower_priority,
    process_exists,
    spawn_detached,
)

assert sys.platform == "win32"

LIMIT = 30.0
SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]
COUNT = "import itertools\nfor number in itertools.count(): print(number, flush=True)"
FAMILY = (
    "import subprocess, sys\n"
    f"child = subprocess.Popen({SLEEP!r})\n"
    "print(child.pid, flush=True)\n"
    "child.wait()\n"
)


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def gone(pid: int) -> bool:
    """Wait for the end of a process."""
    try:
        with win32.process_handle(pid, win32.SYNCHRONIZE) as process:
            return win32.has_ended(process, int(LIMIT * 1000))
    except OSError as error:
        if error.winerror != win32.INVALID_PARAMETER:
            raise
        return True  # its id is nobody's any more


@pytest.mark.parametrize("status", [0, 3])
async def test_the_status_of_a_child(tmp_path: Path, status: int) -> None:
    process = ChildProcess(python(f"raise SystemExit({status})"), directory=tmp_path)
    async with asyncio.timeout(LIMIT):
        assert await process.wait() == status
        assert await process.wait() == status
    assert not process.is_running
    process.end()


def test_an_error_names_the_program_that_cannot_be_started(tmp_path: Path) -> None:
    program = tmp_path / "program.exe"
    program.write_text("none")
    with pytest.raises(OSError, match=r"program\.exe"):
        ChildProcess([str(program)], directory=tmp_path)


async def test_a_program_that_is_scanned_starts_when_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.exe"
    shutil.copyfile(os.environ["COMSPEC"], program)
    nobody_else = 0
    scanner = _winapi.CreateFile(
        str(program), _winapi.GENERIC_READ, nobody_else, 0, _winapi.OPEN_EXISTING, 0, 0
    )

    class ScannerEnds:
        def wait(self, _seconds: float) -> None:
            _winapi.CloseHandle(scanner)

    monkeypatch.setattr(patience, "Event", ScannerEnds)
    process = ChildProcess(["program", "/c", "exit 3"], program=program, directory=tmp_path)
    async with asyncio.timeout(LIMIT):
        assert await process.wait() == 3
    process.end()


async def test_two_may_wait_and_one_may_give_up(tmp_path: Path) -> None:
    process = ChildProcess(SLEEP, directory=tmp_path)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.wait(), 0.05)
    assert process.is_running
    first, second = asyncio.ensure_future(process.wait()), asyncio.ensure_future(process.wait())
    await asyncio.sleep(0)
    process.kill()
    process.kill()
    async with asyncio.timeout(LIMIT):
        assert list(await asyncio.gather(first, second)) == [-9, -9]
    process.end()


async def test_a_wait_that_was_given_up_leaves_no_thread(tmp_path: Path) -> None:
    process = ChildProcess(SLEEP, directory=tmp_path)
    before = set(threading.enumerate())
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.wait(), 0.05)
    for thread in set(threading.enumerate()) - before:
        thread.join(LIMIT)
        assert not thread.is_alive()
    process.end()


async def test_the_end_of_a_client_is_noticed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a look at its id, which may be another process's by then."""
    monkeypatch.setattr(client_liveness, "_CHECK_PERIOD", 1e6)
    gone = asyncio.Event()
    client = ChildProcess(SLEEP, directory=tmp_path)
    liveness = ClientLiveness(client.pid, gone.set)
    client.kill()
    async with asyncio.timeout(LIMIT):
        await gone.wait()
    liveness.close()
    client.end()


def test_a_grandchild_ends_with_the_child(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = ChildProcess(python(FAMILY), directory=tmp_path, stdout=file)
    while not (text := output.read_text()).endswith("\n"):
        assert process.is_running
    grandchild = int(text)
    assert process_exists(grandchild)
    assert grandchild in children(process.pid)
    assert grandchild in descendants(process.pid)  # beside the console's own process
    process.end()
    assert gone(grandchild)
    assert not process_exists(grandchild)


async def test_a_grandchild_ends_after_the_child(tmp_path: Path) -> None:
    """The child ends by itself, and leaves a process."""
    output = tmp_path / "output"
    program = FAMILY.replace("child.wait()", "")
    with output.open("wb") as file:
        process = ChildProcess(python(program), directory=tmp_path, stdout=file)
    async with asyncio.timeout(LIMIT):
        assert await process.wait() == 0
    assert gone(int(output.read_text()))
    process.kill()
    process.end()


def test_a_job_leaves_another_process_alone() -> None:
    job = JobObject()
    with subprocess.Popen(python(COUNT), stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        job._each(other.pid, win32.suspend)
        for _ in range(20_000):  # more than the pipe holds: it goes on
            assert other.stdout.readline()
        other.kill()
    job.close()
    job.close()
    job.terminate()


def test_a_child_and_a_grandchild_end_with_us() -> None:
    """We are terminated, as by a task manager: no line of ours runs any more."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from boincvm.host.processes import ChildProcess\n"
        f"child = ChildProcess({python(FAMILY)!r}, directory=Path('.'), stdout=sys.stdout)\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        python(program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        family = [int(parent.stdout.readline()) for _ in range(2)]
        assert all(map(process_exists, family))
        parent.kill()
    assert all(map(gone, family))


def test_what_is_suspended_does_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = ChildProcess(python(COUNT), directory=tmp_path, stdout=file)
    try:
        wait_for_growth(output, 0)
        process.suspend()
        size = size_that_stays(output)
        process.resume()
        wait_for_growth(output, size)
        process.suspend()
    finally:
        process.end()  # though it is suspended
    assert not process.is_running


def wait_for_growth(file: Path, size: int) -> None:
    """Wait until a file has more than `size` bytes; the test's own limit bounds the wait."""
    while file.stat().st_size <= size:
        pass


def size_that_stays(file: Path) -> int:
    """Wait until a file does not grow for half a second: a write in progress may still end."""
    for _ in range(int(LIMIT)):
        size = file.stat().st_size
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run(SLEEP, timeout=0.5, check=True)
        if file.stat().st_size == size:
            return size
    raise AssertionError("it is never still")


def test_a_process_is_stopped_continued_and_killed_by_its_id(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with (
        output.open("wb") as file,
        subprocess.Popen(python(COUNT), stdout=file) as process,
    ):
        wait_for_growth(output, 0)
        send(process.pid, STOP)
        size = size_that_stays(output)
        send(process.pid, CONTINUE)
        wait_for_growth(output, size)
        assert own_usage(process.pid)[1] > 1 << 20
        send(process.pid, KILL)
        assert process.wait(LIMIT) != 0
        pid = process.pid
    send(pid, KILL)
    assert own_usage(pid) == (0.0, 0)


def test_a_guard_ends_what_it_guards() -> None:
    with subprocess.Popen(SLEEP) as process:
        guard = DeathGuard(process.pid, "")
        assert process.poll() is None
        guard.end()
        guard.end()
        process.wait(LIMIT)


def test_whether_a_process_exists() -> None:
    with subprocess.Popen(SLEEP) as process:
        assert process_exists(process.pid)
        process.kill()
        process.wait(LIMIT)
        assert not process_exists(process.pid)  # though we still hold it open


def test_a_detached_process_has_our_log(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        pid = spawn_detached(python("print('started')"), log.fileno())
    assert gone(pid)
    assert (tmp_path / "log").read_bytes() == b"started\r\n"


def test_the_lowest_priority(tmp_path: Path) -> None:
    lower_priority()
