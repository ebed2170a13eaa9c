"""Rules for the paths and entries of a tree on their way between host and guest.

Host and guest share this file (light imports: it also starts under emulation). Paths are bytes,
relative, with `/` between components. A link within a tree travels as a link, if it cannot lead out
of the tree.
"""

from __future__ import annotations

import os

MAXIMUM_DEPTH = 64
MAXIMUM_LINK = 4096
MOST_TIME = 1 << 64
"""Nanoseconds before and after 1970: from 1385 to 2554."""
_LONGEST_TIME = 40


class UnsafePathError(ValueError):
    """A path or a file is refused; the text says which and why."""


class Entry:
    """One file, directory or link of a tree.

    path: b"" for the tree's root; kind: "file", "directory" or "link"; mode: permission bits; size:
    bytes of a file; target: of a link; modified: nanoseconds since 1970, None if unknown.
    """

    __slots__ = ("kind", "mode", "modified", "path", "size", "target")

    def __init__(
        self,
        kind: str,
        path: bytes,
        mode: int = 0,
        size: int = 0,
        target: bytes = b"",
        modified: int | None = None,
    ) -> None:
        self.kind = kind
        self.path = path
        self.mode = mode
        self.size = size
        self.target = target
        self.modified = modified

    def headers(self) -> dict[str, str]:
        """Return the headers that describe it on the guest link, without path and target."""
        headers = {"kind": self.kind, "mode": f"{self.mode:o}", "size": str(self.size)}
        if self.modified is not None:
            headers["mtime-ns"] = str(self.modified)
        return headers


def time_of(text: str | None) -> int | None:
    """Parse the header `mtime-ns` and clamp it to MOST_TIME. Raises ValueError."""
    if text is None:
        return None
    if len(text) > _LONGEST_TIME or not text.removeprefix("-").isdecimal() or not text.isascii():
        raise ValueError(f"mtime-ns is {text[:_LONGEST_TIME]!r}, not a number")
    return clamp_time(int(text))


def clamp_time(nanoseconds: int) -> int:
    """Clamp a time to what every file system call accepts; the kernel fits it to the disk."""
    return min(max(nanoseconds, -MOST_TIME), MOST_TIME)


def shown(path: bytes) -> str:
    """Format `path` for a message, on one line whatever is in it."""
    try:
        text = os.fsdecode(path)
    except UnicodeDecodeError:  # only on Windows, whose names are Unicode
        return ascii(path)
    return text if text.isprintable() and text else ascii(text)


def components(path: bytes) -> list[bytes]:
    """Split a relative path into its components. Raises UnsafePathError."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if path.startswith(b"/") or b"\0" in path or b".." in parts:
        raise UnsafePathError(f"{shown(path)} is not a path beneath a directory")
    if len(parts) > MAXIMUM_DEPTH:
        raise UnsafePathError(f"{shown(path)} is more than {MAXIMUM_DEPTH} directories deep")
    return parts


def check_link(path: bytes, target: bytes) -> None:
    """Refuse a link at `path` (in a tree) whose target could lie outside the tree.

    Allowed are some leading `..`, no more than the link's depth, and then plain names only: a `..`
    after a name could climb out through another link.

    Raises UnsafePathError.
    """
    depth = len(components(path)) - 1
    parts = [part for part in target.split(b"/") if part not in (b"", b".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == b"..":
        climbs += 1
    outside = target.startswith(b"/") or climbs > depth or b".." in parts[climbs:]
    if depth < 0 or outside or b"\0" in target or len(target) > MAXIMUM_LINK:
        raise UnsafePathError(
            f"{shown(path)} is a symbolic link to {shown(target)}, which may lead out of the tree"
        )
