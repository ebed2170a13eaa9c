"""The configurations of our guest kernels: `make tinyconfig`, a fragment laid over it, changes."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from boincvm.image.kernels.changes import CHANGES, Change
from boincvm.image.kernels.store import SMALL, UML

_FRAGMENTS = Path(__file__).parent / "fragments"


@dataclass(frozen=True, slots=True)
class Configuration:
    """How one of the kernels is configured and made."""

    name: str
    architecture: str
    """For `make ARCH=`."""
    target: str
    """What `make` is to make: an ELF file of that name."""
    changes: tuple[Change, ...] = ()
    """Of the sources."""

    @property
    def fragment(self) -> str:
        """Return the lines that are laid over `tinyconfig`."""
        names = ("common", self.name)
        return "".join((_FRAGMENTS / f"{name}.fragment").read_text("utf-8") for name in names)

    @property
    def digest(self) -> str:
        """Return the SHA-256 over all of it."""
        edits = [part for change in self.changes for edit in change.edits for part in edit]
        return hashlib.sha256("\0".join((self.fragment, *edits)).encode()).hexdigest()


CONFIGURATIONS = {
    SMALL: Configuration(SMALL, "x86_64", "vmlinux"),
    UML: Configuration(UML, "um", "linux", CHANGES),
}


def unmet(fragment: str, configured: str) -> list[str]:
    """Return the lines of a fragment that a kernel's .config does not have.

    An option that is wanted `n` may be missing there, for what it depends on is off.
    """
    has = set(configured.splitlines())
    missing = []
    for line in fragment.splitlines():
        name, _, value = line.partition("=")
        if not name.startswith("CONFIG_"):
            continue
        is_met = f"{name}=y" not in has if value == "n" else line in has
        if not is_met:
            missing.append(line)
    return missing
