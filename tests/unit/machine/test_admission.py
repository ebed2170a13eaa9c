"""How many machines there may be, in this process and in others, and which may boot."""

import asyncio
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from boincvm.errors import HostDiskFullError, UsageError
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.preferences import preferences_file
from boincvm.machine import admission
from boincvm.machine.admission import Admission, check_fits_host, remove_stale_seats
from boincvm.machine.errors import NotEnoughRoomError

MIB = 1 << 20
OTHER = """
import sys
from boincvm.machine.admission import Admission
seat = Admission(int(sys.argv[1]))
boots = seat.try_boot()
print("in", boots, flush=True)
sys.stdin.read()
"""
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path))
    monkeypatch.setattr(admission, "total_memory", lambda: 1024 * MIB)
    monkeypatch.setattr(admission, "processors", lambda: 1)
    return tmp_path


def prefer(text: str) -> None:
    preferences_file().parent.mkdir(mode=0o700, exist_ok=True)
    preferences_file().write_text(text)
    preferences_file().chmod(0o600)


def other(memory: int) -> subprocess.Popen[str]:
    """Start another process with a machine, which it has until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(memory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("in ")
    return process


def seats(home: Path) -> list[str]:
    names = os.listdir(home / "cache/machines")
    return [name for name in names if name != "lock" and not name.startswith("boot-")]


def test_together_they_may_have_the_hosts_memory(home: Path) -> None:
    first = Admission(600 * MIB)
    with pytest.raises(NotEnoughRoomError) as caught:
        Admission(600 * MIB)
    assert "asks for 600.0 MiB of memory, your other machines have 600.0 MiB" in str(caught.value)
    assert caught.value.exit_code is ExitCode.HOST
    second = Admission(424 * MIB)
    first.end()
    first.end()
    third = Admission(600 * MIB)
    assert len(seats(home)) == 2
    second.end()
    third.end()
    assert seats(home) == []


def test_what_this_host_could_never_run() -> None:
    check_fits_host(1024 * MIB, 1)
    for refused in (partial(check_fits_host, 1025 * MIB, 1), partial(Admission, 1025 * MIB)):
        with pytest.raises(NotEnoughRoomError) as caught:
            refused()
        assert "together may have 1.0 GiB" in caught.value.message
        assert "wait" not in caught.value.hint  # no other machine is in its way
    with pytest.raises(UsageError, match="asks for 2 processors, and this host has 1") as few:
        check_fits_host(MIB, 2)
    assert "--cpus" in few.value.hint
    prefer("memory = '300M'\n")
    with pytest.raises(NotEnoughRoomError, match="together may have 300"):
        check_fits_host(301 * MIB, 1)


def test_a_volunteer_allows_less() -> None:
    prefer("machines = 2\nmemory = '300M'\n")
    both = [Admission(100 * MIB), Admission(100 * MIB)]
    with pytest.raises(NotEnoughRoomError, match="your preferences allow no more machines"):
        Admission(1)
    both.pop().end()
    with pytest.raises(NotEnoughRoomError, match=r"together they may have 300\.0 MiB"):
        Admission(201 * MIB)
    both.pop().end()


def test_the_machines_of_other_processes_count_until_these_die(home: Path) -> None:
    with other(1000 * MIB) as process:
        try:
            with pytest.raises(NotEnoughRoomError):
                Admission(100 * MIB)
        finally:
            process.kill()  # which removes nothing
            process.wait()
    assert len(seats(home)) == 1
    Admission(100 * MIB).end()
    assert seats(home) == []


def test_a_machine_that_is_forgotten_keeps_no_place(home: Path) -> None:
    forgotten = Admission(600 * MIB)
    assert len(seats(home)) == 1
    del forgotten
    assert seats(home) == []


def test_seats_of_the_dead_are_removed(home: Path) -> None:
    assert remove_stale_seats() == 0
    mine = Admission(1)
    with other(1) as process:
        process.kill()
        process.wait()
    assert remove_stale_seats() == 1
    assert len(seats(home)) == 1
    mine.end()


async def test_who_may_not_boot_waits_for_who_does() -> None:
    first, second = Admission(1), Admission(1)
    assert first.try_boot()
    assert not second.try_boot()
    waiting = asyncio.ensure_future(second.boot())
    done, _ = await asyncio.wait((waiting,), timeout=0.2)
    assert not done
    first.end_boot()
    await asyncio.wait_for(waiting, 10)
    assert not first.try_boot()
    await second.boot()  # it has its turn already
    second.end()
    assert first.try_boot()
    first.end()


async def test_a_turn_of_another_process_ends_with_it() -> None:
    mine = Admission(1)
    with other(1) as process:
        assert not mine.try_boot()
        waiting = asyncio.ensure_future(mine.boot())
        process.kill()
        await asyncio.wait_for(waiting, 10)
    mine.end()


async def test_who_gives_up_waiting_keeps_no_turn() -> None:
    first, second, third = (Admission(1) for _ in range(3))
    await first.boot()
    waiting = asyncio.ensure_future(second.boot())
    await asyncio.wait((waiting,), timeout=0.1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    first.end_boot()
    await asyncio.wait_for(third.boot(), 10)
    for one in (first, second, third):
        one.end()


def test_a_full_disk_is_reported_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(admission, "open_lock", full)
    with pytest.raises(HostDiskFullError):
        Admission(1)
