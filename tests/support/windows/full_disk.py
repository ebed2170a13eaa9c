"""Run by a test on a small disk: the main program of an app version, in a Windows of its own.

    python -m support.windows.full_disk PROGRAM SLOT

The Windows is started here, so that it sees the disk. Prints the exit code and the output as JSON.
"""

import json
import sys
from pathlib import Path

from support.windows.python import windows_python

if __name__ == "__main__":
    program, slot = map(Path, sys.argv[1:])
    with windows_python() as windows:
        done = windows.run(program, ["--version"], slot)
    print(json.dumps([done.returncode, done.stdout]))
