"""What a hypervisor driver is.

A driver makes machines; a machine goes through create, start, pause, resume, stop and destroy. Each
verb is idempotent: it succeeds on a machine that is already where it leads. `start` returns when
boot begins; when the guest is ready its agent says so on the channel.

What a driver or a machine can do beyond that it hands out as an object; None stands for what it
cannot do, and whoever wants it has to ask. docs/drivers.md tells how to write a driver.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from boincvm.hypervisor.channel import Channel
    from boincvm.hypervisor.doctor import LookUp


class MachineState(Enum):
    """Where a machine is in its life."""

    DEFINED = auto()
    CREATED = auto()
    RUNNING = auto()
    PAUSED = auto()
    SAVED = auto()
    STOPPED = auto()
    DESTROYED = auto()


class MachineSpec(NamedTuple):
    """A machine to be made."""

    directory: Path
    """Exists, mode 0700, the machine's own; all that the machine writes lies here."""
    kernel: Path | None
    """The image's; a driver may have a kernel of its own. None, and no initrd: the machine's
    firmware boots what is on the root disk, with or without an agent in it (`Driver.has_firmware`).
    """
    initrd: Path | None
    """The image's, which mounts the root disk and starts the agent."""
    root: Path
    """The image's read-only disk, of which the machine gets a copy that it may change."""
    memory: int
    """Bytes."""
    cpus: int
    disk_size: int | None = None
    """Of the machine's own disk, in bytes; None is the root's own."""
    network: bool = False
    """It has a network card, where the driver has any: see `Machine.network`."""
    ephemeral: bool = False
    """The machine will never be saved, so its files are taken out of the directory as soon as the
    hypervisor has them open: nothing is left, even if we are killed."""
    kernel_arguments: tuple[str, ...] = ()
    balloon: bool = False
    """The guest gives the host what memory it does not use, and heeds `Machine.balloon`, where the
    driver has any; its boot takes a little longer."""
    layers: tuple[str, ...] = ()
    """Names of files in the directory that are the machine's disk already, as
    `Machine.disk_layers` told them; it boots from that disk. Empty: it gets a new one."""
    display: bool = False
    """It has a screen and a keyboard, where the driver has any: see `Machine.display`."""
    root_format: Literal["qcow2", "raw"] = "qcow2"
    """Of `root`. Others may name further files of the host, so nothing of theirs is opened."""
    host_name: str = ""
    """What its guest is to call itself, a label of RFC 1123; empty: the image's own."""
    durable: bool = False
    """What the guest has synced outlives a power cut of the host, as on a real disk. Without it the
    guest may wait for no disk, and only what belongs to a checkpoint outlives a power cut."""


DISPLAY_SOCKET = "display.sock"
"""In the machine's directory while one with a screen runs: serves it by the RFB protocol (RFC
6143)."""


class EndCause(Enum):
    """Why a machine ended."""

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


class MachineEnd(NamedTuple):
    """How a machine ended."""

    cause: EndCause
    detail: str
    """One line for people; may be empty."""
    hint: str = ""
    """What to do about it; empty: what is said of that cause anyway."""


class GuestMemory(NamedTuple):
    """What a guest says of its memory."""

    size: int
    """Bytes that it has now."""
    available: int
    """Bytes of them that it could do without."""
    at: float
    """When it said so, in seconds since 1970."""


class FileSeal(NamedTuple):
    """What a file must be."""

    size: int
    """Bytes."""
    digest: str
    """BLAKE2b of 256 bits, in hexadecimal."""


class Checkpoint(NamedTuple):
    """From what a machine can go on."""

    number: int
    files: Mapping[str, FileSeal]
    """In the machine's directory, safely on the disk, and never changed again; one may belong to
    several checkpoints."""
    machine: Mapping[str, object]
    """What the driver must know of it, fit for JSON."""
    pause: float = 0.0
    """Seconds that the guest stood still for it."""
    written: int = 0
    """Bytes."""


class Usage(NamedTuple):
    """What a machine takes of the host."""

    cpu_seconds: float
    """User and system time of all that is or was this machine, in its present run."""
    resident: int
    """Bytes of memory."""


# What a machine may be able to do.


RecordLayers = Callable[[tuple[str, ...]], Awaitable[None]]
"""Writes down, on the disk, which files are a machine's disk: see `Checkpointing.checkpoint`."""


class Checkpointing(Protocol):
    """Keeps a machine on disk. Everything may raise HypervisorError, HostDiskFullError."""

    async def checkpoint(
        self, number: int, record_layers: RecordLayers | None = None
    ) -> Checkpoint:
        """Keep memory and disk as they are at one moment from now, while the guest runs on.

        `number` is greater than that of any checkpoint in the directory. Other machines'
        checkpoints on this host come first if they were asked for first. What an earlier
        checkpoint needs stays; files that no checkpoint needs are the caller's to remove, but for
        those in `Machine.files_in_use`.

        A checkpoint may put a new layer over the disk, to which the guest writes from then on.
        Before it can, `record_layers` is awaited with the names of the layers, the new one among
        them: it is on the disk by then, and empty, so that the list is right before the guest
        writes to it and after. A machine that is killed at any moment boots from the layers that
        were recorded last, with all that its guest had synced. What `record_layers` raises ends
        the attempt, and the machine runs on as it was.
        """

    async def save(self, number: int, record_layers: RecordLayers | None = None) -> Checkpoint:
        """Make a last checkpoint, at once, and end; the machine is SAVED then, and can start.
        `record_layers`: as above, for the guest runs on where this fails."""


class Freezing(Protocol):
    """Makes a machine a golden snapshot."""

    async def freeze(self) -> None:
        """Make the machine, whose guest is quiet, a golden snapshot, and end it. Raises
        HypervisorError."""


class Balloon(Protocol):
    """Takes memory back from a running guest. Everything may raise HypervisorError."""

    async def set_memory(self, size: int) -> None:
        """Let the guest have `size` bytes of memory from now on, at most what it was made with.

        It gives the host the rest as soon as it can. Where that leaves its programs too little
        none is killed, but all get slow: see `memory`. One that was saved is to be told again.
        """

    async def memory(self) -> GuestMemory | None:
        """Return what the guest last said of its memory. Once asked for it is said anew every few
        seconds, until `set_memory` gives back all. None: nothing was said yet or of late."""


class NetworkCard(Protocol):
    """The machine's network card."""

    async def connect(self, *, connected: bool) -> None:
        """Plug the cable in, or pull it; also before the machine runs. Raises HypervisorError."""


class Display(Protocol):
    """The machine's screen and keyboard."""

    @property
    def socket(self) -> Path:
        """The UNIX socket that serves them by the RFB protocol while the machine runs."""


class TransferDisk(Protocol):
    """A disk through which host and guest hand each other bulk data (docs/under-the-hood.md)."""

    @property
    def descriptor(self) -> int:
        """The file behind it, open for reading and writing while the machine runs."""


class Machine(Protocol):
    """One virtual machine. Every method may raise HypervisorError."""

    @property
    def spec(self) -> MachineSpec: ...

    @property
    def state(self) -> MachineState: ...

    @property
    def checkpointing(self) -> Checkpointing | None: ...

    @property
    def freezing(self) -> Freezing | None:
        """Only of one that was made by `GoldenSnapshots.machine`."""

    @property
    def balloon(self) -> Balloon | None: ...

    @property
    def network(self) -> NetworkCard | None: ...

    @property
    def display(self) -> Display | None: ...

    @property
    def transfer_disk(self) -> TransferDisk | None:
        """To be asked once the machine has been started."""

    async def create(self) -> None:
        """Make the disk and all else that start needs."""

    async def start(self) -> Channel:
        """Begin to boot; returns the host's end of the guest link, which the caller owns.

        A machine that goes on from a checkpoint is PAUSED then, so that its guest can be told by
        `GuestLink.attach` what must be new in it before anything runs there."""

    async def pause(self) -> None:
        """Let nothing of the machine run."""

    async def resume(self) -> None:
        """Let it run again."""

    @property
    def disk_layers(self) -> tuple[str, ...]:
        """Names of the files in the directory that are its disk, for `MachineSpec.layers` of a
        later life; they hold what its guest has written out."""

    def files_in_use(self) -> frozenset[str]:
        """Return the names of the files in the directory that the running machine needs."""

    async def stop(self) -> None:
        """End the machine now, without the guest's help."""

    async def destroy(self) -> None:
        """Stop, and remove all that the machine has on disk, its checkpoints too."""

    async def ended(self) -> MachineEnd:
        """Wait until nothing of the machine runs any more, and say why."""

    def usage(self) -> Usage | None:
        """Return what it takes of the host; None where nobody can tell, or nothing runs."""

    def process_ids(self) -> tuple[int, ...]:
        """Return the host's processes that run this machine, the one to name first; none where
        they are somebody else's, or gone. They need not be our children."""


# What a driver may be able to do.


class Finding(NamedTuple):
    """What a look at a saved machine has found."""

    is_good: bool
    """Nothing is in the way."""
    what: str
    """A line for people."""


class SavedMachines(Protocol):
    """Lets machines go on from checkpoints."""

    def restore(self, spec: MachineSpec, checkpoint: Checkpoint) -> Machine:
        """Return the machine in `spec.directory` as it was at that checkpoint, made perhaps by
        another process: in state SAVED. Raises HypervisorError."""

    def look(self, checkpoint: Checkpoint) -> list[Finding]:
        """Say whether a machine could go on here from that checkpoint, whose files need not be
        here. Raises HypervisorError, OSError."""


class GoldenSnapshots(Protocol):
    """Lets machines start as copies of one that has booted."""

    def identity(self) -> dict[str, str]:
        """Return what a golden snapshot depends on beside image and spec: versions, the processor.
        Raises HypervisorMissingError, OSError."""

    def machine(self, spec: MachineSpec) -> Machine:
        """Return a machine to boot and to freeze (`Machine.freezing`): then `spec.directory` is a
        golden snapshot."""

    def clone(self, spec: MachineSpec, golden: Path) -> Machine:
        """Return a machine that starts as a private copy of the golden snapshot in `golden`, which
        was made with the same spec but for its directory; it is in state SAVED. Its guest is
        quiet, and has the same memory as any other clone's: `GuestLink.attach` renews it."""


class Driver(Protocol):
    """Makes machines on one kind of hypervisor."""

    @property
    def name(self) -> str: ...

    @property
    def has_firmware(self) -> bool:
        """Whether its machines boot a disk as a computer does, where the spec has no kernel."""

    @property
    def most_cpus(self) -> int | None:
        """Processors that one of its machines can have; None: as many as the host."""

    @property
    def saved_machines(self) -> SavedMachines | None: ...

    @property
    def golden_snapshots(self) -> GoldenSnapshots | None: ...

    def machine(self, spec: MachineSpec) -> Machine:
        """Return a machine in state DEFINED; nothing is touched yet."""


class Prestart(Protocol):
    """Begins one machine before there is an event loop, whose import takes longer than a
    hypervisor's start. The first machine that `driver` makes is the one that was begun."""

    def identity(self) -> dict[str, str]:
        """As `GoldenSnapshots.identity`."""

    def begin(self, spec: MachineSpec, golden: Path | None) -> None:
        """Begin a machine: a copy of the golden snapshot in that directory, else a boot. Raises
        HypervisorError, HypervisorMissingError, HostDiskFullError, OSError."""

    def say(self, data: bytes) -> None:
        """Write to the guest link's channel. Raises OSError where the machine has ended."""

    def driver(self) -> Driver:
        """Return the driver, which goes on with what has begun."""

    def end(self) -> None:
        """End what has begun, if nobody has; its files stay. After its end it is harmless."""


class SavedFiles(Protocol):
    """Knows the files of checkpoints, without the hypervisor."""

    def check(self, directory: Path, checkpoint: Checkpoint, memory: int) -> None:
        """Check that a machine with `memory` bytes whose files are in `directory` could be given to
        the hypervisor as it was at that checkpoint: it says no more than one of ours does, though
        anybody may have made it. The files' digests are the caller's to check. Raises
        HypervisorError, OSError."""


class DriverPackage(Protocol):
    """What the registry finds by a driver's name: light to import, and nothing is looked for."""

    @property
    def name(self) -> str: ...

    @property
    def look_ups(self) -> tuple[tuple[str, LookUp], ...]:
        """What `boincvm doctor` is to look at, each by its name."""

    @property
    def saved_files(self) -> SavedFiles | None: ...

    async def open(self, kernel: Path | None) -> Driver:
        """Return the driver, ready for machines that boot `kernel`; None: no image is here yet.
        Raises HypervisorMissingError."""

    def prestart(self, kernel: Path) -> Prestart | None:
        """Return what begins a machine before there is an event loop; None: nothing can. Raises
        HypervisorMissingError."""
