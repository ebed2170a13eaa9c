"""Child processes that a failed test does not wait for."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import AnyStr

PATIENCE = 5.0
"""Seconds for the output of a killed process, which its own children may hold open."""


@contextmanager
def killed_on_failure(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """Do as `with process`, which waits for its end, but kill it first if the block fails.

    A failed test would otherwise wait for a process that has no reason to end, until the test's
    time is over, and then report only that. What the block has not read of the process's output,
    or has read by `communicate` with a time limit, is added to the failure.
    """
    with process:
        try:
            yield process
        except BaseException as error:
            process.kill()
            # ValueError: the block has closed the process's input.
            with suppress(ValueError, subprocess.TimeoutExpired):
                stdout, stderr = process.communicate(timeout=PATIENCE)
                if stdout or stderr:
                    error.add_note(f"the process: stdout {stdout!r}, stderr {stderr!r}")
            raise
