"""A slot on Windows whose job runs programs of the host."""

import os
import sys
from pathlib import Path

from support.windows.slot import Slot

assert sys.platform == "win32"

OUT = "<stdout_filename>out</stdout_filename>"
COUNT = """
import itertools, time
for number in itertools.count():
    print(number, flush=True)
    time.sleep(0.01)
"""
FAMILY = f"""
import os, subprocess, sys
counts = [sys.executable, "-c", "input()\\n" + {COUNT!r}]
child = subprocess.Popen(counts, stdin=subprocess.PIPE, stdout=sys.stdout)
with open("family", "w") as file:
    print(os.getpid(), child.pid, file=file)
child.stdin.write(b"\\n")
child.stdin.flush()
child.wait()
"""
"""The child counts once its id can be read."""


class HostSlot(Slot):
    """A slot in whose job Python programs run."""

    def install(self) -> None:
        """Make the app version's files: a Python that needs nothing else."""
        here = Path(sys.executable).parent
        for name in ("python.exe", "python312.dll", "python312.zip", "vcruntime140.dll"):
            os.link(here / name, self.slot.project / name)
        (self.slot.project / "python312._pth").write_text("python312.zip\n")

    def job(self, *programs: str, elements: str = "", more: str = "") -> None:
        """Write job.xml: each program is a task."""
        tasks = []
        for number, program in enumerate(programs):
            (self.slot.path / f"program{number}.py").write_text(program)
            tasks.append(
                "<application>$PROJECT_DIR/python.exe</application>"
                f"<command_line>program{number}.py</command_line>{elements}"
            )
        self.write_job(*tasks, more=more)


def family(slot: HostSlot) -> list[int]:
    """Return the ids of a program and of its child, which FAMILY has written."""
    found = [int(line) for line in slot.text("family").split()]
    assert len(found) == 2
    return found
