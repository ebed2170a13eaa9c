"""`reaper.py COMMAND ...`: runs a command, and reaps what it leaves behind as soon as that ends.

It takes the place of a host's process 1 for the processes that a daemon starts and does not wait
for. Process 1 of some containers and small virtual machines takes seconds for that, and a
program that waits until such a process has gone waits as long.
"""

import ctypes
import os
import signal
import subprocess
import sys

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main(command: list[str]) -> int:
    """Run the command to its end; pass SIGTERM on to it. Return its exit code."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    # Nothing is done between its start and the handler that could take long.
    child = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
