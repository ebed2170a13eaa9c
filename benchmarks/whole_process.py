"""How long a process takes, from fork to exit."""

import subprocess
from collections.abc import Mapping, Sequence
from threading import Timer
from time import perf_counter


def seconds_of(argv: Sequence[str], environment: Mapping[str, str], limit: float) -> float:
    """Killed after `limit` seconds. Raises subprocess.CalledProcessError.

    Not by the limit of `subprocess`, which looks at growing intervals, of 50 ms at last, whether
    the process has ended: what takes 73 ms would seem to take 114.
    """
    begin = perf_counter()
    with subprocess.Popen(
        argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        alarm = Timer(limit, process.kill)
        alarm.start()
        try:
            code = process.wait()
            seconds = perf_counter() - begin
        finally:
            alarm.cancel()
            process.kill()
    if code != 0:
        raise subprocess.CalledProcessError(code, argv)
    return seconds
