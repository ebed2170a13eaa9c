"""A slot of a fake BOINC client in which tests run the real `boincvm-wrapper`."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

from boincvm.boinc.testing import End, FakeClient
from boincvm.paths import data_directory

WRAPPER = (sys.executable, "-m", "boincvm.cli.boinc_wrapper")
LIMIT = 90.0
"""Seconds that a test waits for anything, at most."""


class Slot(FakeClient):
    """A slot whose wrappers have the images of this user, and a cache of its own."""

    def __init__(self, directory: Path, **options: object) -> None:
        super().__init__(directory / "client", **options)  # type: ignore[arg-type]
        self.path = self.slot.path
        self.cache = directory / "cache"
        self.cache.mkdir()

    async def __aexit__(self, *details: object) -> None:
        await super().__aexit__(*details)  # type: ignore[arg-type]
        assert self.machines() == []

    def write(self, name: str, text: str, *, executable: bool = False) -> Path:
        path = self.path / name
        path.write_text(text)
        if executable:
            path.chmod(0o755)
        return path

    def script(self, name: str, text: str) -> None:
        """Write an executable shell script to the slot."""
        self.write(name, f"#!/bin/sh\n{text}\n", executable=True)

    def job(self, *tasks: str, more: str = "") -> Self:
        """Write job.xml."""
        inside = "".join(f"<task>{task}</task>" for task in tasks)
        self.write("job.xml", f"<job_desc>{more}{inside}</job_desc>")
        return self

    def machine_job(self, script: str, *elements: str, more: str = "") -> Self:
        """Write a job of one task: a shell script that runs in a machine."""
        self.script("app.sh", script)
        return self.job(
            "<application>app.sh</application><virtualmachine>vm</virtualmachine>"
            "<copy_app_to_VM>1</copy_app_to_VM><stdout_filename>out</stdout_filename>"
            + "".join(elements),
            more=more,
        )

    async def begin(self, *arguments: str, **environment: str) -> None:
        """Start the wrapper."""
        home = {"XDG_CACHE_HOME": str(self.cache), "XDG_DATA_HOME": str(data_directory().parent)}
        await self.start([*WRAPPER, *arguments], environment={**home, **environment})

    async def is_killed(self) -> None:
        """Kill the wrapper; wait until it and all that works in its slot has ended."""
        self.kill(signal.SIGKILL)
        await self.wait(LIMIT)
        await self.until(lambda: not processes_with(b"", os.fsencode(self.path)), LIMIT)

    async def run(self, *arguments: str, limit: float = LIMIT, **environment: str) -> End:
        await self.begin(*arguments, **environment)
        return await self.wait(limit)

    def text(self, name: str) -> str:
        """Return the text of a file of the slot; empty if it does not exist."""
        path = self.path / name
        return path.read_text() if path.exists() else ""

    async def wait_for_text(self, name: str, *words: str, limit: float = LIMIT) -> str:
        """Wait until a file of the slot has all `words`; return its text."""
        await self.holds(lambda: all(word in self.text(name) for word in words), limit)
        return self.text(name)

    async def holds(self, condition: Callable[[], bool], limit: float = LIMIT) -> None:
        """Wait until `condition` holds or the wrapper has ended."""
        await self.until(lambda: condition() or not self.is_running, limit)
        assert condition(), self.stderr

    def machines(self) -> list[int]:
        """Return the process ids of QEMU with a disk in this slot."""
        return processes_with(b"qemu-system", os.fsencode(self.path))


def processes_with(*words: bytes) -> list[int]:
    """Find processes whose command line has all `words`, the first in the program's name."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words[0] in command.split(b"\0")[0] and all(word in command for word in words[1:]):
            found.append(int(process.name))
    return found


def state(pid: int) -> str:
    """Return the state as in /proc/PID/stat: R, S, T, Z …; "gone" if the process does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def cpu_ticks(pid: int) -> int:
    """Return the clock ticks of CPU time that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
