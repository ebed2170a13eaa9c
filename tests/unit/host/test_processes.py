"""Child processes: awaited without polling, killed with their parent."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from boincvm.host.process_tree import children
from boincvm.host.processes import (
    ChildProcess,
    DeathGuard,
    die_with_parent,
    exit_status,
    open_process,
    process_exists,
)
from boincvm.host.programs import run_quickly
from support.exit_statuses import TELLS_EXITS
from support.killed_on_failure import killed_on_failure

LIMIT = 20.0


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -9 $$", -9), ("true", 0)])
async def test_the_status_of_a_child(tmp_path: Path, script: str, status: int) -> None:
    process = ChildProcess(["sh", "-c", script], directory=tmp_path)
    async with asyncio.timeout(LIMIT):
        assert await process.wait() == status
        assert await process.wait() == status
    assert not process.is_running


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -9 $$", -9), ("true", 0)])
def test_the_status_of_any_process(script: str, status: int) -> None:
    """It is known once the process was reaped, and that can be waited for."""
    process = subprocess.Popen(["sh", "-c", f"read line; {script}"], stdin=subprocess.PIPE)
    handle = open_process(process.pid)
    assert handle is not None
    try:
        assert exit_status(handle) is None
        assert process.stdin is not None
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert exit_status(handle) is None
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(exit_status, handle, LIMIT)
            process.wait(LIMIT)
            expected = status if TELLS_EXITS else None
            assert waiting.result() == expected
        assert exit_status(handle) == expected
    finally:
        os.close(handle)


async def test_two_may_wait_and_one_may_give_up(tmp_path: Path) -> None:
    process = ChildProcess(["sleep", "100"], directory=tmp_path)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(process.wait(), 0.05)
    assert process.is_running
    first, second = asyncio.ensure_future(process.wait()), asyncio.ensure_future(process.wait())
    process.kill()
    process.kill()
    async with asyncio.timeout(LIMIT):
        assert list(await asyncio.gather(first, second)) == [-9, -9]
    process.kill()


async def test_a_stopped_child_is_killed_too(tmp_path: Path) -> None:
    process = ChildProcess(["sh", "-c", "kill -STOP $$"], directory=tmp_path)
    await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED)
    process.kill()
    async with asyncio.timeout(LIMIT):
        assert await process.wait() == -9


async def test_a_child_gets_its_descriptors_and_none_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    reader, writer = os.pipe()
    command = ["sh", "-c", f"(env; pwd) >/dev/fd/{writer}"]
    process = ChildProcess(command, directory=tmp_path, descriptors=[writer])
    os.close(writer)
    async with asyncio.timeout(LIMIT):
        assert await process.wait() == 0
    text = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert "LD_LIBRARY_PATH" not in text
    assert text.endswith(f"{tmp_path}\n")


def test_a_child_whose_parent_died_before_it_could_ask_for_its_death(tmp_path: Path) -> None:
    """It stops before the check, and continues when its parent has ended."""
    program = (
        "import subprocess, sys, os\n"
        "from boincvm.host.processes import die_with_parent\n"
        "guard = die_with_parent(['sh', '-c', 'echo lived >lived'])\n"
        "stop = 'kill -STOP $$; exec \"$@\"'\n"
        "child = subprocess.Popen(['sh', '-c', stop, '--', *guard], stdout=2)\n"
        "os.waitid(os.P_PID, child.pid, os.WSTOPPED)\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    parent = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, check=False
    )
    child = os.pidfd_open(int(parent.stdout))
    signal.pidfd_send_signal(child, signal.SIGCONT)
    assert select.select([child], [], [], LIMIT)[0]
    os.close(child)
    assert not (tmp_path / "lived").exists()


def test_the_guard_lets_a_childs_arguments_and_status_pass() -> None:
    words = ["a b", "$0", "", "'\"\\"]
    command = die_with_parent(["/bin/sh", "-c", 'printf "%s|" "$@"; exit 7', "name", *words])
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout.split("|")[:-1]) == (7, words)


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, signal\n"
        "from pathlib import Path\n"
        "from boincvm.host.processes import ChildProcess\n"
        "script = 'echo ready >ready; exec sleep 1000'\n"
        "child = ChildProcess(['sh', '-c', script], directory=Path())\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    os.mkfifo(tmp_path / "ready")
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        (tmp_path / "ready").read_text()  # the child has come past what asks for its death
        parent.kill()
    try:
        assert select.select([child], [], [], LIMIT)[0]
    finally:
        os.close(child)


def test_a_quick_helper() -> None:
    assert run_quickly(["echo", "a"]) == "a\n"
    with pytest.raises(subprocess.CalledProcessError) as failure:
        run_quickly(["sh", "-c", "echo why >&2; exit 1"])
    assert failure.value.stderr == "why\n"
    with pytest.raises(subprocess.TimeoutExpired):
        run_quickly(["sleep", "100"], timeout=0.05)


def test_whether_a_process_exists():
    process = subprocess.Popen(["sleep", "60"])
    try:
        assert process_exists(process.pid)
        assert process_exists(1)
    finally:
        process.kill()
        process.wait(20)
    assert not process_exists(process.pid)


GUARDED = """
import subprocess, sys, time
from boincvm.host.processes import DeathGuard
child = subprocess.Popen(["/bin/sleep", "1000.25"])
guard = DeathGuard(child.pid, sys.argv[1])
print(child.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize(("word", "is_killed"), [("1000.25", True), ("another", False)])
def test_a_guard_kills_what_it_guards_and_nothing_else(word: str, is_killed: bool) -> None:
    command = [sys.executable, "-c", GUARDED, word]
    with killed_on_failure(subprocess.Popen(command, stdout=subprocess.PIPE)) as maker:
        assert maker.stdout is not None
        process = int(maker.stdout.readline())
        handle = os.pidfd_open(process)
        (guard,) = [pid for pid in children(maker.pid) if pid != process]
        guard_handle = os.pidfd_open(guard)
        maker.kill()
    try:
        assert select.select([guard_handle], [], [], 20.0)[0] == [guard_handle]
        assert bool(select.select([handle], [], [], 20.0 if is_killed else 0.0)[0]) is is_killed
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
        os.close(guard_handle)


def test_a_guard_that_is_no_longer_needed() -> None:
    with killed_on_failure(subprocess.Popen(["/bin/sleep", "1000.25"])) as child:
        guard = DeathGuard(child.pid, "1000.25")
        guard.end()
        guard.end()
        assert child.poll() is None
        child.kill()
