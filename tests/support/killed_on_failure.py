"""Child processes that a failed test does not wait for."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import AnyStr


@contextmanager
def killed_on_failure(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """Do as `with process`, which waits for its end, but kill it first if the block fails.

    A failed test would otherwise wait for a process that has no reason to end, until the test's
    time is over, and then report only that.
    """
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
