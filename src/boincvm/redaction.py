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

_ON_WINDOWS = sys.platform == "win32"
_SYSTEM = (
    (os.path.normcase(os.environ.get("SYSTEMROOT", "C:\\Windows")) + "\\",)
    if _ON_WINDOWS
    else ("/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/", "/etc/", "/dev/", "/proc/", "/sys/")
)
"""Directories that are the same on all computers."""
_SEPARATORS = "\\/" if _ON_WINDOWS else "/"
_VARIABLES = (
    "BOINCVM_HOME",
    *(("APPDATA", "LOCALAPPDATA", "TEMP", "TMP") if _ON_WINDOWS else ()),
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
    if not os.path.isabs(path):  # noqa: PTH117 - a text
        return
    global _pattern
    _pattern = None
    for spelling in (path, os.path.realpath(path)):
        spelling = spelling.rstrip(_SEPARATORS)
        is_root = not os.path.splitdrive(spelling)[1]
        if is_root or os.path.normcase(f"{spelling}{os.sep}").startswith(_SYSTEM):
            continue
        # Messages may contain it literally, or as `repr` and `ascii` write it.
        for form in (spelling, repr(spelling)[1:-1], ascii(spelling)[1:-1]):
            _hidden[_key(form)] = shown
        if _ON_WINDOWS:
            _hidden[_key(spelling.replace("\\", "/"))] = shown


def _key(path: str) -> str:
    """Return a path as it is looked up: Windows does not tell `A` from `a`."""
    return path.lower() if _ON_WINDOWS else path


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
    if not _hidden or not any(separator in text for separator in _SEPARATORS):
        return text
    if _pattern is None:
        longest_first = sorted(_hidden, key=len, reverse=True)
        paths = "|".join(map(re.escape, longest_first))
        separators = f"[{re.escape(_SEPARATORS)}]+"
        flags = re.IGNORECASE if _ON_WINDOWS else re.NOFLAG
        _pattern = re.compile(f"({paths})({separators}|{_END})", flags)
    return _pattern.sub(_shown, text)


def redact_output(data: bytes) -> str:
    """Return as text what a program has printed, redacted; no byte makes it fail.

    On Windows programs print UTF-8, or what the code page of this computer makes of a text.
    """
    if sys.platform == "win32":
        # Line by line: one with odd bytes, or cut at its beginning, says nothing about the others.
        text = "\n".join(map(_line_of_windows, data.split(b"\n")))
    else:
        text = os.fsdecode(data)  # as `hide` gets a directory's name that is no text
    return redact(text)


def _line_of_windows(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("mbcs", "replace")


def _shown(match: re.Match[str]) -> str:
    # Some letters of Windows' file names have no single one in lower case: then nothing is shown.
    shown, separators = _hidden.get(_key(match[1]), ""), match[2]
    if separators:
        return f"{shown}{separators[0]}" if shown else ""
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
