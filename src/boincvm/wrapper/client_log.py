"""The lines that a volunteer and a project find in stderr.txt."""

import os
import time
from contextlib import suppress

_STANDARD_ERROR = 2
_LONGEST_LINE = 1000
"""Characters; a command line may be far longer, and the client sends 63 KiB of all lines."""


def log(text: str) -> None:
    """One line on standard error: time of day, process id, `text`; as BOINC's programs do.

    Of a long text the beginning. Never raises.
    """
    said = "".join(c if c.isprintable() else " " for c in text[:_LONGEST_LINE])
    if len(text) > _LONGEST_LINE:
        said += " …"
    line = f"{time.strftime('%H:%M:%S')} ({os.getpid()}): boincvm: {said}\n"
    # Past sys.stderr: what that could not write it would keep, and make the exit status 120 of
    # it. A full disk, on which stderr.txt lies too, must not keep us from ending properly.
    with suppress(OSError):
        os.write(_STANDARD_ERROR, line.encode(errors="backslashreplace"))
