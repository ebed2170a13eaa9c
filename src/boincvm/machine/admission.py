"""How many machines of this user may run on this host at once, and how many may boot.

Each machine has a seat: a file in `machines/` of the cache directory, locked by the process that
runs it. The kernel releases the lock when that process ends, however it ends, so a seat that is not
locked belongs to nobody, and the next machine removes it.

    machines/lock             held briefly while the seats are counted
    machines/MEMORY-…         a seat: the guest's memory in bytes, and a random word
    machines/boot-N           held by a machine that boots
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from boincvm.errors import UsageError, host_error
from boincvm.host.locks import exclusive, open_lock, remove_locked_file, try_lock
from boincvm.host.resources import processors, total_memory
from boincvm.hypervisor.preferences import read_preferences
from boincvm.machine.errors import NotEnoughRoomError
from boincvm.paths import cache_directory
from boincvm.sizes import format_size

_MUTEX = "lock"
_BOOT = "boot-"


class Admission:
    """The right to run one machine; it ends with `end`, or with this process."""

    def __init__(self, memory: int) -> None:
        """Take a seat for a machine of `memory` bytes.

        Raises NotEnoughRoomError if there are as many machines as may be, HostDiskFullError,
        HostError.
        """
        self._descriptor = self._turn = -1
        self._directory = _directory()
        try:
            self._sit_down(memory)
        except OSError as error:
            raise host_error("the machine cannot be recorded as running", error) from error

    def _sit_down(self, memory: int) -> None:
        preferences = read_preferences()
        with exclusive(self._directory / _MUTEX):
            used = _used(self._directory)
            _check(memory, used, preferences.machines, preferences.memory or total_memory())
            self._seat = self._directory / f"{memory}-{os.urandom(8).hex()}"
            self._descriptor = open_lock(self._seat)
            try_lock(self._descriptor)  # nobody else knows its name

    def end(self) -> None:
        """Give the seat, and the turn to boot, back. Idempotent."""
        self.end_boot()
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with suppress(OSError):  # the next machine removes it
                remove_locked_file(self._seat, descriptor)

    def __del__(self) -> None:
        """Do `end`: a machine that nobody has closed keeps no place while this process lives on."""
        self.end()

    # A boot keeps one processor busy, so there are as many turns as processors.

    def try_boot(self) -> bool:
        """Take a turn to boot, if one is free; tell whether that was so. Raises OSError."""
        for number in range(processors()):
            turn = open_lock(self._directory / f"{_BOOT}{number}")
            if try_lock(turn):
                self._turn = turn
                return True
            os.close(turn)
        return False

    async def boot(self) -> None:
        """Wait for a turn to boot. Raises OSError."""
        if self._turn >= 0 or self.try_boot():
            return
        number = int.from_bytes(os.urandom(2)) % processors()
        from boincvm.host.lock_queue import wait_for_lock  # it imports asyncio

        self._turn = await wait_for_lock(self._directory / f"{_BOOT}{number}")

    def end_boot(self) -> None:
        """Give the turn back. Idempotent."""
        if self._turn >= 0:
            os.close(self._turn)
            self._turn = -1


def most_machines(memory: int) -> int:
    """Return how many machines of `memory` bytes the preferences allow at once; at least 1.

    Raises HostError.
    """
    preferences = read_preferences()
    by_memory = (preferences.memory or total_memory()) // memory
    return max(min(by_memory, preferences.machines or by_memory), 1)


def check_fits_host(memory: int, cpus: int) -> None:
    """Check that this host could run such a machine if it ran no other.

    Raises NotEnoughRoomError, UsageError, PreferencesError.
    """
    _check_memory(memory, read_preferences().memory or total_memory())
    check_processors(cpus)


def check_processors(cpus: int) -> None:
    """Check that a machine has no more processors than the host: it would be slow, not faster.

    An emulated one would boot for minutes. Raises UsageError.
    """
    if cpus > processors():
        raise UsageError(
            f"the machine asks for {cpus} processors, and this host has {processors()}",
            hint=f"give it at most {processors()}: --cpus, or cpus in a job file",
        )


def remove_stale_seats() -> int:
    """Remove the seats of processes that have died; return how many. Raises HostError, OSError."""
    directory = _directory()
    if not directory.is_dir():
        return 0
    with exclusive(directory / _MUTEX):
        before = len(list(_seats(directory)))
        return before - len(_used(directory))


def _directory() -> Path:
    return cache_directory() / "machines"


def _seats(directory: Path) -> list[Path]:
    names = os.listdir(directory)  # noqa: PTH208 - a start waits for this
    return [directory / name for name in names if name != _MUTEX and not name.startswith(_BOOT)]


def _used(directory: Path) -> list[int]:
    """Return the memory of each machine that runs, and remove seats that belong to nobody."""
    used = []
    for seat in _seats(directory):
        descriptor = open_lock(seat)
        if try_lock(descriptor):
            remove_locked_file(seat, descriptor)
        else:
            os.close(descriptor)
            size = seat.name.partition("-")[0]
            used.append(int(size) if size.isdecimal() else 0)
    return used


def _check(memory: int, used: list[int], most: int | None, most_memory: int) -> None:
    """Raise NotEnoughRoomError if one more machine would be too much."""
    if most is not None and len(used) >= most:
        raise NotEnoughRoomError(
            f"your preferences allow no more machines on this host (machines = {most})",
            hint="wait until one ends, or raise `machines` in preferences.toml",
        )
    _check_memory(memory, most_memory)
    if sum(used) + memory > most_memory:
        raise NotEnoughRoomError(
            f"the machine asks for {format_size(memory)} of memory, your other machines have"
            f" {format_size(sum(used))}, and together they may have {format_size(most_memory)}",
            hint="wait until one ends, or give it less memory;"
            " preferences.toml may set another limit",
        )


def _check_memory(memory: int, most_memory: int) -> None:
    if memory > most_memory:
        raise NotEnoughRoomError(
            f"the machine asks for {format_size(memory)} of memory, and all machines on this host"
            f" together may have {format_size(most_memory)}",
            hint="give it less: --memory, or memory in a job file; preferences.toml may set"
            " another limit",
        )
