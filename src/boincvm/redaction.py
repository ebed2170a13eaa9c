"""Redaction of private paths from everything that leaves this computer.

A project shows a task's standard error and its last message to everybody, and the folder names on a
volunteer's computer reveal who they are. `redact` is the one function that makes a text fit to be
seen; all output (the log, the finish file, Python's tracebacks) passes through it.
"""

import io
import os
import re
import sys
from contextlib import suppress

from boincvm.byte_text import encoded
from boincvm.host.users import home_directory

_SYSTEM = ("/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/", "/etc/", "/dev/", "/proc/", "/sys/")
"""Directories that are the same on all computers."""
_VARIABLES = (
    "BOINCVM_HOME",
    "TMPDIR",
    "VIRTUAL_ENV",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
)
_END = r"(?![^\W_]|[-_])"
"""Prevents a path from matching up to the middle of a name."""
_STANDARD_ERROR = 2

_hidden: dict[str, str] = {}
_pattern: re.Pattern[str] | None = None


def hide(path: str, shown: str) -> None:
    """Have `redact` show the directory `path` as `shown` from now on.

    With "" what is in it is shown by its path beneath it. The last call for a path counts. A system
    directory is never hidden.
    """
    if not path.startswith("/"):
        return
    global _pattern
    _pattern = None
    for spelling in (path, os.path.realpath(path)):
        spelling = spelling.rstrip("/")
        if not spelling or f"{spelling}/".startswith(_SYSTEM):
            continue
        # Messages may contain it literally, or as `repr` and `ascii` write it.
        for form in (spelling, repr(spelling)[1:-1], ascii(spelling)[1:-1]):
            _hidden[form] = shown


def hide_this_user() -> None:
    """Hide what every process knows: home directories, and where Python and boincvm are."""
    for entry in (*sys.path, sys.prefix, sys.exec_prefix, sys.base_prefix):
        hide(entry, "")
    for name in _VARIABLES:
        hide(os.environ.get(name, ""), f"${name}")
    for directory in os.get_exec_path():
        hide(directory, "")
    hide(os.environ.get("HOME", ""), "~")
    hide(home_directory(), "~")


def redact(text: str) -> str:
    """Replace the hidden directories in `text` by what is to be shown for them."""
    global _pattern
    if "/" not in text or not _hidden:
        return text
    if _pattern is None:
        longest_first = sorted(_hidden, key=len, reverse=True)
        _pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})(/+|{_END})")
    return _pattern.sub(_shown, text)


def _shown(match: re.Match[str]) -> str:
    shown, slash = _hidden[match[1]], match[2]
    if slash:
        return f"{shown}/" if shown else ""
    return shown or "."


class RedactedErrors(io.TextIOBase):
    """A replacement for sys.stderr that redacts Python's tracebacks and warnings."""

    def __init__(self) -> None:
        self._line = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # it is settable there
        return "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Write each line when it is complete, so that no path is split in two."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._send(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        line, self._line = self._line, ""
        self._send(line)

    def _send(self, line: str) -> None:
        # What cannot be written is dropped: reporting an error must not raise another.
        with suppress(OSError):
            os.write(_STANDARD_ERROR, encoded(redact(line)))
