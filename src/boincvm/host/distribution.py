"""Which operating system, and which distribution of Linux, this host has."""

import sys
from pathlib import Path

_RELEASE_FILES = (Path("/etc/os-release"), Path("/usr/lib/os-release"))


def distribution() -> tuple[str, ...]:
    """Return the names of this system, the most exact one first: like "ubuntu", "debian".

    See os-release(5). Systems that are no Linux have one name: "macos", "windows".
    """
    platform = str(sys.platform)
    if platform != "linux":
        return ({"darwin": "macos", "win32": "windows"}.get(platform, platform),)
    for path in _RELEASE_FILES:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue  # the next one, or a system that does not tell
        return names_of(text)
    return ()


def names_of(text: str) -> tuple[str, ...]:
    """Return the names in an os-release file."""
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    values = (found.get(key, "").strip().strip("'\"") for key in ("ID", "ID_LIKE"))
    return tuple(name for value in values for name in value.lower().split())
