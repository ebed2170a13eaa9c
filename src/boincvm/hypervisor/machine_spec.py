"""The specification of a machine: the part of the drivers' contract that each start needs at once.

The rest, with `Machine` and `Driver`, is in contract.py; the interpreter takes 2 ms to define it,
which is left until the hypervisor has been started.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.kernel_arguments import JOURNAL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from boincvm.hypervisor.block_source import BlockSource
    from boincvm.job.model import PortForward

_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


class MachineSpec(NamedTuple):
    """The specification of a machine to be made."""

    directory: Path
    """The machine's own directory, which exists with mode 0700; all that the machine writes lies
    here."""
    kernel: Path | None
    """The image's kernel; a driver may have a kernel of its own. With neither kernel nor initrd the
    machine's firmware boots what is on the root disk, with or without an agent in it
    (`Driver.has_firmware`)."""
    initrd: Path | None
    """The image's initrd, which mounts the root disk and starts the agent."""
    root: Path
    """The image's read-only disk, of which the machine gets a copy that it may change."""
    memory: int
    """Bytes."""
    cpus: int
    disk_size: int | None = None
    """Size of the machine's own disk in bytes; None means the root's size."""
    network: bool = False
    """Whether it has a network card, if the driver has any: see `Machine.network`."""
    forwards: tuple[PortForward, ...] = ()
    """Ports of the host that lead into the guest, if it has a network card that can forward them:
    see `NetworkCard.forwards`."""
    ephemeral: bool = False
    """The machine will never be saved, so its files are unlinked from the directory as soon as the
    hypervisor has them open, if the host's system can do that: nothing is left, even if we are
    killed."""
    kernel_arguments: tuple[str, ...] = ()
    """Of the caller; a driver gives the kernel `own_arguments`."""
    balloon: bool = False
    """The guest gives unused memory back to the host and obeys `Machine.balloon`, if the driver has
    any; its boot takes a little longer."""
    layers: tuple[str, ...] = ()
    """Names of files in the directory that already are the machine's disk, as `Machine.disk_layers`
    returned them; it boots from that disk. If empty, it gets a new one."""
    display: bool = False
    """Whether it has a screen and a keyboard, if the driver has any: see `Machine.display`."""
    remote_desktop: bool = False
    """Whether its screen can be seen by a remote desktop's client, if the driver has any: see
    `Machine.remote_desktop`."""
    root_format: Literal["qcow2", "raw"] = "qcow2"
    """The format of `root`. Other formats may name further files of the host, so none of them is
    opened."""
    host_name: str = ""
    """The guest's host name, a label of RFC 1123; empty means the image's own."""
    durable: bool = False
    """What the guest has synced survives a power cut of the host, as on a real disk, and its file
    system has a journal. Otherwise the guest never waits for the disk, and only what belongs to a
    checkpoint survives the machine's sudden end."""
    architecture: Architecture = Architecture.X86_64
    """Its processor's. A driver makes machines of those that its package's abilities name."""
    environment: Mapping[str, str] = _NO_ENVIRONMENT
    """What the image adds to the environment of programs in its guest. No driver needs it."""
    root_source: BlockSource | None = None
    """What `root` is read from while the machine runs, if the driver has any way to do that; the
    file has only a part then. Such a machine is neither saved nor copied."""

    gpu: str | None = None
    """The PCI address of a graphics card of the host that becomes the machine's, if the driver can
    do that. Such a machine is neither saved nor copied, for nobody can save the card's state."""

    @property
    def own_arguments(self) -> tuple[str, ...]:
        """Return the kernel's arguments that every driver passes on."""
        return (*self.kernel_arguments, JOURNAL) if self.durable else self.kernel_arguments


DISPLAY_SOCKET = "display.sock"
"""The socket in the directory of a running machine with a screen that serves it by the RFB protocol
(RFC 6143)."""
