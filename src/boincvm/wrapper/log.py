"""The log lines that a volunteer and a project find in stderr.txt."""

import os
import time

from boincvm.byte_text import one_line
from boincvm.redaction import redact
from boincvm.standard_error import show

_LONGEST_LINE = 1000
"""Characters; a command line may be far longer, and the client sends only 63 KiB of the log."""


def log(text: str) -> None:
    """Write one line to standard error: time of day, process id, `text`, as BOINC's programs do.

    A long text is cut off. Never raises.
    """
    text = redact(text)
    line = one_line(text[:_LONGEST_LINE])
    if len(text) > _LONGEST_LINE:
        line += " …"
    line = f"{time.strftime('%H:%M:%S')} ({os.getpid()}): boincvm: {line}\n"
    show(line)  # a full disk, which stderr.txt shares, does not keep us from ending properly
