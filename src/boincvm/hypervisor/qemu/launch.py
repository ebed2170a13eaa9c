"""With what a QEMU process begins: which memory, which disks, which state."""

from enum import Enum, auto
from typing import NamedTuple


class Memory(Enum):
    """Where the guest's memory lies."""

    OWN = auto()
    """The process's own."""
    CLONE = auto()
    """A file of which the process has a private, copy-on-write mapping."""
    SHARED = auto()
    """A file, and what the guest writes is written there."""


class Launch(NamedTuple):
    """layers: files in the machine's directory (or absolute), the root disk's parts above the
    image's, the lowest first; the last one is written to. memory_file: for CLONE and SHARED.
    incoming: whence the machine's state is read, "fd:N" or "defer" (QMP will say), empty if it
    boots; has_memory: whether that state has the memory too; has_configuration: whether it begins
    with the machine type's name, as what this process will save then does too. machine: the name
    of QEMU's machine type, with its version where a state depends on it. cpu: the guest's, as
    `-cpu` takes it, where a state depends on it, and empty for the accelerator's usual one.
    stands_still: until QMP says `cont`.
    """

    layers: tuple[str, ...]
    memory: Memory = Memory.OWN
    memory_file: str = ""
    incoming: str = ""
    has_memory: bool = True
    has_configuration: bool = True
    machine: str = "q35"
    cpu: str = ""
    stands_still: bool = False
