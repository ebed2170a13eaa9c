"""Locks between processes, released when their holder ends."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boincvm.host import locks
from boincvm.host.lock_queue import wait_for_lock
from support.bench import until

HOLDER = """
import sys
from pathlib import Path
from boincvm.host import locks
path, how = Path(sys.argv[1]), sys.argv[2]
if how == "slot":
    held = locks.lock_slot_file(path) is not None
elif how == "directory":
    held = locks.try_lock(locks.open_lockable_directory(path))
else:
    held = locks.try_lock(locks.open_lock(path), shared=how == "shared")
print(held, flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path, how: str) -> Iterator[bool]:
    """Have another process hold it in the block; or (False) it was refused."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    try:
        yield holder.stdout.readline() == "True\n"
    finally:
        holder.kill()
        holder.wait(20)
        holder.stdin.close()
        holder.stdout.close()


def is_free(path: Path, *, shared: bool = False) -> bool:
    descriptor = locks.open_lock(path)
    try:
        return locks.try_lock(descriptor, shared=shared)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("first", "second", "is_had"),
    [("exclusive", False, False), ("exclusive", True, False), ("shared", False, False),
     ("shared", True, True)],
)  # fmt: skip
def test_who_may_have_it_too(tmp_path: Path, first: str, second: bool, is_had: bool) -> None:
    path = tmp_path / "lock"
    with held(path, first) as is_held:
        assert is_held
        assert is_free(path, shared=second) is is_had
    assert is_free(path)  # its holder was killed


def test_one_block_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "new directory" / "lock"
    with locks.exclusive(path):
        assert not is_free(path)
        with locks.try_exclusive(path) as is_ours:
            assert not is_ours
    with locks.try_exclusive(path) as is_ours:
        assert is_ours
        assert not is_free(path)
    assert is_free(path)


def test_a_directory_can_be_locked(tmp_path: Path) -> None:
    with held(tmp_path, "directory") as is_held:
        assert is_held
        descriptor = locks.open_lockable_directory(tmp_path)
        assert not locks.try_lock(descriptor)
        os.close(descriptor)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        locks.open_lockable_directory(tmp_path / "file")


def test_a_slot_has_one_app(tmp_path: Path) -> None:
    path = tmp_path / "boinc_lockfile"
    with held(path, "slot") as is_held:
        assert is_held
        assert locks.lock_slot_file(path) is None
    descriptor = locks.lock_slot_file(path)
    assert descriptor is not None
    with held(path, "slot") as is_held:
        assert not is_held
    os.close(descriptor)


def test_a_slot_s_lock_is_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=r"regular|symbolic|No such device"):
            locks.lock_slot_file(tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()


def test_who_waits_for_a_lock_is_told_once(tmp_path: Path) -> None:
    reported: list[str] = []
    with locks.exclusive(tmp_path / "lock", lambda: reported.append("waits")):
        waiter = threading.Thread(target=wait_for, args=(tmp_path / "lock", reported))
        waiter.start()
        until(lambda: reported == ["waits"])
    waiter.join(20)
    assert reported == ["waits", "has it"]


def wait_for(path: Path, reported: list[str]) -> None:
    with locks.exclusive(path, lambda: reported.append("waits")):
        reported.append("has it")


async def test_a_cancelled_wait_keeps_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.exclusive(path):
        waits = asyncio.ensure_future(wait_for_lock(path))
        await asyncio.sleep(0)
        waits.cancel()
        await asyncio.wait((waits,))
    until(lambda: is_free(path))


async def test_a_wait_that_is_cancelled_when_it_has_the_lock_keeps_none(tmp_path: Path) -> None:
    """Its thread has the lock then, and the event loop does not know yet."""
    path = tmp_path / "lock"
    with locks.exclusive(path):
        waits = asyncio.ensure_future(wait_for_lock(path))
        await asyncio.sleep(0)
    until(lambda: not is_free(path))
    waits.cancel()
    await asyncio.wait((waits,))
    assert waits.cancelled()
    until(lambda: is_free(path))
    os.close(await wait_for_lock(path))


async def test_a_wait_that_was_given_up_is_taken_over(tmp_path: Path) -> None:
    """Otherwise each would have the lock later for an instant, and others find it held."""
    path = tmp_path / "lock"
    before = set(threading.enumerate())  # one of an earlier test may be about to end
    with locks.exclusive(path):
        for _ in range(3):
            waits = asyncio.ensure_future(wait_for_lock(path))
            await asyncio.sleep(0)
            waits.cancel()
            await asyncio.wait((waits,))
        waits = asyncio.ensure_future(wait_for_lock(path))
        await asyncio.sleep(0)
        waiters = [one for one in threading.enumerate() if one.name == "boincvm-lock"]
        assert len(set(waiters) - before) == 1
    os.close(await waits)
    assert is_free(path)


def test_several_wait_for_a_shared_lock_and_have_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    waiting = [locks.open_lock(path) for _ in range(2)]
    with held(path, "exclusive") as is_held:
        assert is_held
        threads = [
            threading.Thread(target=locks.lock, args=[one], kwargs={"shared": True})
            for one in waiting
        ]
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join(60)
    assert not is_free(path)
    assert is_free(path, shared=True)
    for one in waiting:
        os.close(one)
    assert is_free(path)
