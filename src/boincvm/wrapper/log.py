"""The lines that a volunteer and a project find in stderr.txt."""

import os
import time

from boincvm.byte_text import one_line
from boincvm.redaction import redact
from boincvm.standard_error import show

_LONGEST_LINE = 1000
"""Characters; a command line may be far longer, and the client sends 63 KiB of all lines."""


def log(text: str) -> None:
    """One line on standard error: time of day, process id, `text`; as BOINC's programs do.

    Of a long text the beginning. Never raises.
    """
    text = redact(text)
    said = one_line(text[:_LONGEST_LINE])
    if len(text) > _LONGEST_LINE:
        said += " …"
    line = f"{time.strftime('%H:%M:%S')} ({os.getpid()}): boincvm: {said}\n"
    show(line)  # a full disk, on which stderr.txt lies too, does not keep us from ending properly
