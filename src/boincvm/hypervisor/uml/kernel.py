"""Which User-mode Linux runs the machines: our own small kernel if it was built, else Debian's."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorMissingError
from boincvm.host.files import open_descriptor, read_at
from boincvm.host.programs import find_program
from boincvm.paths import guest_kernel

PROGRAM = "linux.uml"
"""The program of Debian's package."""
OWN = "uml"
"""The name of our own kernel among those that `boincvm image kernel build` makes."""
INSTALL_HINT = (
    "build it: boincvm image kernel build --uml; or install Debian's, which is slower: "
    "apt-get install --no-install-recommends user-mode-linux"
)
# The ELF header and its program headers (elf(5)).
_HEADER, _HEADER_SIZE = "<32xQ14xHH", 64
"""The second gives the place of the program headers, their size and number."""
_INTERPRETER = 3
_MOST_HEADERS = 64


class UmlKernel(NamedTuple):
    """A User-mode Linux on this host."""

    path: Path
    is_own: bool
    """Ours is new enough to run programs by seccomp; Debian's traces them, which takes longer."""

    def open(self) -> int:
        """Open the program for reading. Raises HypervisorMissingError."""
        try:
            return open_descriptor(self.path)
        except OSError as error:
            raise HypervisorMissingError(
                f"the User-mode Linux {self.path} cannot be read: {error}", hint=INSTALL_HINT
            ) from error


def find_kernel() -> UmlKernel:
    """Return the kernel to be used. Raises HypervisorMissingError, HostError."""
    own = guest_kernel(OWN)
    if own.is_file():
        return UmlKernel(own, is_own=True)
    path = find_program(PROGRAM)
    if path is None:
        raise HypervisorMissingError("there is no User-mode Linux here", hint=INSTALL_HINT)
    return UmlKernel(Path(path), is_own=False)


def needs_libraries(program: int) -> bool:
    """Tell whether the ELF file with this descriptor is linked dynamically. Raises OSError.

    Anything else counts as dynamic, and its start then fails.
    """
    head = read_at(program, _HEADER_SIZE, 0)
    if len(head) < _HEADER_SIZE or not head.startswith(b"\x7fELF"):
        return True
    start, size, count = struct.unpack_from(_HEADER, head)
    for number in range(min(count, _MOST_HEADERS)):
        header = read_at(program, 4, start + number * size)
        if int.from_bytes(header, "little") == _INTERPRETER:
            return True
    return False
