"""What a hypervisor driver is.

A driver makes machines; a machine goes through create, start, pause, resume, save, stop and
destroy. Each verb is idempotent: it succeeds on a machine that is already where it leads.
What a driver can do is data (`features`) that others read, never an `isinstance`.
`start` returns when boot begins; when the guest is ready its agent says so on the channel.
"""

from collections.abc import Mapping
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple, Protocol

from boincvm.hypervisor.channel import Channel


class Feature(Enum):
    """What a driver may be able to do; ask `feature in driver.features`."""

    PAUSE = auto()
    CHECKPOINT = auto()
    """A machine can be put on disk, while it runs or when it ends, and go on from there."""
    GOLDEN = auto()
    """Machines can start as copies of one that has booted."""
    NETWORK = auto()
    TRANSFER_DISK = auto()
    """The machine has a disk through which host and guest hand each other bulk data."""
    BALLOON = auto()
    """A running machine can be made to give memory back to the host."""
    DISK = auto()
    """A machine's disk can outlive it: it boots from what an earlier life has left."""
    DISPLAY = auto()


class MachineState(Enum):
    DEFINED = auto()
    CREATED = auto()
    RUNNING = auto()
    PAUSED = auto()
    SAVED = auto()
    STOPPED = auto()
    DESTROYED = auto()


class MachineSpec(NamedTuple):
    """A machine to be made.

    directory: exists, mode 0700, the machine's own; all that the machine writes lies here.
    root: the image's read-only disk (qcow2); the machine gets an overlay over it.
    disk_size: the overlay's size in bytes; None is the root's own.
    memory: bytes.
    ephemeral: the machine will never be saved, so its files are taken out of the directory as
    soon as the hypervisor has them open: nothing is left, even if we are killed.
    balloon: the guest gives the host what memory it does not use, and heeds `set_memory`; its
    boot takes a little longer.
    layers: names of files in the directory that are the machine's disk already, as
    `Machine.disk_layers` told them; it boots from that disk. Empty: it gets a new one.
    display: it has a screen and a keyboard, which `DISPLAY_SOCKET` in the directory serves by
    the RFB protocol (RFC 6143) while it runs.
    host_name: what its guest is to call itself, a label of RFC 1123; empty: the image's own.
    """

    directory: Path
    kernel: Path
    initrd: Path
    root: Path
    memory: int
    cpus: int
    disk_size: int | None = None
    network: bool = False
    ephemeral: bool = False
    kernel_arguments: tuple[str, ...] = ()
    balloon: bool = False
    layers: tuple[str, ...] = ()
    display: bool = False
    host_name: str = ""


DISPLAY_SOCKET = "display.sock"


class EndCause(Enum):
    ASKED = auto()
    """stop, save or destroy."""
    POWERED_OFF = auto()
    """The guest turned itself off, or rebooted."""
    PANICKED = auto()
    """The guest's kernel gave up; the detail is its last words."""
    KILLED = auto()
    """A signal from outside ended the hypervisor."""
    FAILED = auto()
    """The hypervisor gave up."""
    HOST_DISK_FULL = auto()

    # What follows no driver tells: the engine finds it out by the guest link (machine/end.py).
    NEVER_BOOTED = auto()
    """The guest's agent was never heard."""
    HUNG = auto()
    """The guest said nothing for too long."""
    LINK_LOST = auto()
    """The guest's agent is gone, and the machine runs on."""
    PROTOCOL_BROKEN = auto()
    """The guest sent what it may not send."""


class GuestMemory(NamedTuple):
    """size: bytes that the guest has now; available: bytes of them that it could do without,
    as it said at `at`, in seconds since 1970."""

    size: int
    available: int
    at: float


class FileSeal(NamedTuple):
    """What a file must be: bytes, and the BLAKE2b digest of 256 bits, in hexadecimal."""

    size: int
    digest: str


class Checkpoint(NamedTuple):
    """From what a machine can go on.

    files: in its directory, safely on the disk, and never changed again; one may belong to
    several checkpoints. machine: what the driver must know of it, fit for JSON. pause: seconds
    that the guest stood still for it. written: bytes.
    """

    number: int
    files: Mapping[str, FileSeal]
    machine: Mapping[str, object]
    pause: float = 0.0
    written: int = 0


class MachineEnd(NamedTuple):
    """How a machine ended."""

    cause: EndCause
    detail: str
    """One line for people; may be empty."""
    hint: str = ""
    """What to do about it; empty: what is said of that cause anyway."""


class Machine(Protocol):
    """One virtual machine. Every method may raise HypervisorError."""

    @property
    def spec(self) -> MachineSpec: ...

    @property
    def state(self) -> MachineState: ...

    @property
    def transfer_window(self) -> int | None:
        """The file behind the transfer disk, open for reading and writing while the machine
        runs; None where the driver has no such disk."""

    async def create(self) -> None:
        """Make the overlay and all else that start needs."""

    async def start(self) -> Channel:
        """Begin to boot; returns the host's end of the guest link, which the caller owns.

        A machine that goes on from a checkpoint is PAUSED then, so that its guest can be told by
        `GuestLink.attach` what must be new in it before anything runs there."""

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def connect_network(self, *, connected: bool) -> None:
        """Plug the network cable in, or pull it; nothing to do for a machine without a card."""

    async def set_memory(self, size: int) -> None:
        """Let the guest have `size` bytes of memory from now on, at most what it was made with.

        It gives the host the rest as soon as it can. Where that leaves its programs too little
        none is killed, but all get slow: see `memory`. One that was saved is to be told again.
        Nothing to do for a machine without a balloon.
        """

    async def memory(self) -> GuestMemory | None:
        """What the guest last said of its memory. Once asked for it is said anew every few
        seconds, until `set_memory` gives back all. None: nothing was said yet or of late, or
        there is no balloon."""

    async def checkpoint(self, number: int) -> Checkpoint:
        """Keep memory and disk as they are at one moment from now, while the guest runs on.

        `number` is greater than that of any checkpoint in the directory. Other
        machines' checkpoints on this host come first if they were asked for first. What an
        earlier checkpoint needs stays; files that no checkpoint needs are the caller's to
        remove, but for those in `files_in_use`.
        """

    async def save(self, number: int) -> Checkpoint:
        """A last checkpoint, at once, and the process ends."""

    @property
    def disk_layers(self) -> tuple[str, ...]:
        """Names of the files in the directory that are its disk, for `MachineSpec.layers` of a
        later life; they hold what its guest has written out."""

    def files_in_use(self) -> frozenset[str]:
        """Names of the files in the directory that the running machine needs."""

    async def freeze(self) -> None:
        """Make the machine, whose guest is quiet, a golden snapshot, and end it. Only one that
        was made by `Driver.golden_machine`."""

    async def stop(self) -> None:
        """End the machine now, without the guest's help."""

    async def destroy(self) -> None:
        """Stop, and remove all that the machine has on disk, its checkpoints too."""

    async def ended(self) -> MachineEnd:
        """Wait until the machine's process is gone."""

    def process_ids(self) -> tuple[int, ...]:
        """The host's processes that are this machine, for CPU time and memory."""


class Driver(Protocol):
    """Makes machines on one kind of hypervisor."""

    @property
    def name(self) -> str: ...

    @property
    def features(self) -> frozenset[Feature]: ...

    def machine(self, spec: MachineSpec) -> Machine:
        """A machine in state DEFINED; nothing is touched yet."""

    def saved_machine(self, spec: MachineSpec, checkpoint: Checkpoint) -> Machine:
        """The machine in `spec.directory` as it was at that checkpoint, made perhaps by another
        process: in state SAVED. Only where `features` has CHECKPOINT."""

    def identity(self) -> dict[str, str]:
        """What a golden snapshot depends on beside image and spec: versions, the processor."""

    def golden_machine(self, spec: MachineSpec) -> Machine:
        """A machine to boot and to `freeze`: then `spec.directory` is a golden snapshot. Only
        where `features` has GOLDEN."""

    def clone(self, spec: MachineSpec, golden: Path) -> Machine:
        """A machine that starts as a private copy of the golden snapshot in `golden`, which was
        made with the same spec but for its directory; it is in state SAVED. Its guest is quiet,
        and has the same memory as any other clone's: `GuestLink.attach` renews it."""


class Prestart(Protocol):
    """Begins one machine before there is an event loop, whose import takes longer than a
    hypervisor's start. The first machine that `driver` makes is the one that was begun."""

    def identity(self) -> dict[str, str]:
        """As `Driver.identity`."""

    def begin(self, spec: MachineSpec, golden: Path | None) -> None:
        """Begin a machine: a copy of the golden snapshot in that directory, else a boot. Raises
        HypervisorError, HypervisorMissingError, HostDiskFullError, OSError."""

    def say(self, data: bytes) -> None:
        """Write to the guest link's channel. Raises OSError where the machine has ended."""

    def driver(self) -> Driver:
        """The driver, which goes on with what has begun."""

    def end(self) -> None:
        """End what has begun, if nobody has; its files stay. After its end it is harmless."""
