"""What a QEMU process starts with: its memory, disks and state."""

from enum import Enum, auto
from typing import NamedTuple


class Memory(Enum):
    """Where the guest's memory is."""

    OWN = auto()
    """In the process itself."""
    CLONE = auto()
    """In a file of which the process has a private, copy-on-write mapping."""
    SHARED = auto()
    """In a file to which the guest's writes go."""


class Launch(NamedTuple):
    """The parameters with which a QEMU process starts."""

    layers: tuple[str, ...]
    """Files in the machine's directory (or absolute paths): the layers of the root disk above the
    image's, the lowest first; the last one is written to."""
    memory: Memory = Memory.OWN
    memory_file: str = ""
    """For CLONE and SHARED."""
    incoming: str = ""
    """Where the machine's state is read from: "fd:N", or "defer" (QMP will say); empty if it
    boots."""
    has_memory: bool = True
    """Whether that state includes the memory."""
    machine: str = ""
    """QEMU's machine type with its version if a state depends on it; empty for the target's."""
    cpu: str = ""
    """The guest's CPU as `-cpu` takes it if a state depends on it; empty for the accelerator's
    usual one."""
    has_hpet: bool | None = None
    """Whether the machine has an HPET if a state depends on it; None for the target's choice."""
    stands_still: bool = False
    """Whether the guest is stopped until QMP's `cont`."""
