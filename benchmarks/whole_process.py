"""The time that a process takes, from fork to exit."""

import subprocess
from collections.abc import Mapping, Sequence
from threading import Timer
from time import perf_counter


def seconds_of(argv: Sequence[str], environment: Mapping[str, str], limit: float) -> float:
    """Return the seconds that a process took; kill it after `limit` seconds.

    Raises subprocess.CalledProcessError. The limit is not that of `subprocess`, which polls for the
    end at growing intervals of up to 50 ms: a run of 73 ms would seem to take 114.
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
