"""A slot of a fake BOINC client on Windows, in which tests run the wrapper."""

import subprocess
import sys

from boincvm.boinc.testing import FakeClient
from boincvm.host import win32_windows as win32

assert sys.platform == "win32"

LIMIT = 60.0
"""Seconds that a test waits for anything, at most."""
_CACHED = ("-X", "pycache_prefix=C:\\pycache")
"""Where Python keeps what it has compiled: each of some ten wrappers would do it again."""
_MAIN = "from boincvm.cli.boinc_wrapper import main; sys.exit(main())"


class Slot(FakeClient):
    """A slot with a job.xml."""

    limit = LIMIT

    def write_job(self, *tasks: str, more: str = "") -> None:
        """Write job.xml."""
        inside = "".join(f"<task>{task}</task>" for task in tasks)
        (self.slot.path / "job.xml").write_text(
            f"<job_desc>{more}{inside}</job_desc>", encoding="utf-8"
        )

    async def begin(self) -> None:
        """Start the wrapper."""
        await self.start(
            [sys.executable, *_CACHED, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {_MAIN}"]
        )

    def text(self, name: str) -> str:
        """Return the text of a file of the slot; empty if it does not exist."""
        path = self.slot.path / name
        return path.read_text(encoding="utf-8") if path.exists() else ""

    async def grows(self, name: str) -> None:
        """Wait until a file of the slot is longer than now."""
        size = len(self.text(name))
        await self.until(lambda: len(self.text(name)) > size or not self.is_running, self.limit)
        assert self.is_running, self.stderr


def stands_still(slot: Slot, name: str) -> bool:
    """Tell whether a file of the slot has grown by nothing while we ran a program of our own."""
    size = len(slot.text(name))
    subprocess.run([sys.executable, "-I", "-S", "-c", "import time; time.sleep(0.5)"], check=True)
    return len(slot.text(name)) == size


def gone(pid: int) -> bool:
    """Wait for the end of a process."""
    try:
        with win32.process_handle(pid, win32.SYNCHRONIZE) as process:
            return win32.has_ended(process, int(LIMIT * 1000))
    except OSError as error:
        if error.winerror != win32.INVALID_PARAMETER:
            raise
        return True  # its id is nobody's any more
