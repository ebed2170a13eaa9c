"""The contract of a hypervisor driver.

A driver makes machines; a machine goes through create, start, pause, resume, stop and destroy. Each
verb is idempotent: it succeeds on a machine that is already where it leads. `start` returns when
boot begins; when the guest is ready its agent says so on the channel.

Anything else that a driver or a machine can do is an object that it hands out, or None if it cannot
do that; callers have to check. docs/drivers.md tells how to write a driver.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from boincvm.hypervisor.machine_spec import DISPLAY_SOCKET as DISPLAY_SOCKET
from boincvm.hypervisor.machine_spec import MachineSpec as MachineSpec

if TYPE_CHECKING:
    from boincvm.hypervisor.channel import Channel
    from boincvm.hypervisor.doctor import CheckFunction, FindKernel
    from boincvm.hypervisor.verdict import Abilities, Verdict
    from boincvm.job.model import PortForward

CONTRACT_VERSION = 4
"""The version of this contract. It grows when a driver that was right becomes wrong, and the
registry refuses drivers that were written for another one (`DriverPackage.contract_version`)."""


class MachineState(Enum):
    """The state of a machine in its life cycle."""

    DEFINED = auto()
    CREATED = auto()
    RUNNING = auto()
    PAUSED = auto()
    SAVED = auto()
    STOPPED = auto()
    DESTROYED = auto()

    @property
    def is_active(self) -> bool:
        """Whether the machine has a hypervisor's process: it runs, or is paused."""
        return self in (MachineState.RUNNING, MachineState.PAUSED)


class EndCause(Enum):
    """Why a machine ended."""

    ASKED = auto()
    """It was told to stop, save or destroy."""
    POWERED_OFF = auto()
    """The guest turned itself off, or rebooted."""
    PANICKED = auto()
    """The guest's kernel panicked; the detail is its last words."""
    KILLED = auto()
    """A signal that somebody else sent ended the hypervisor."""
    FAILED = auto()
    """The hypervisor failed; a signal such as SIGSEGV, which it caused itself, is a failure."""
    HOST_DISK_FULL = auto()

    # No driver reports these; the engine detects them on the guest link (machine/end.py).
    NEVER_BOOTED = auto()
    """The guest's agent was never heard from."""
    HUNG = auto()
    """The guest was silent for too long."""
    LINK_LOST = auto()
    """The guest's agent is gone, but the machine still runs."""
    PROTOCOL_BROKEN = auto()
    """The guest sent what it may not send."""


class MachineEnd(NamedTuple):
    """How a machine ended."""

    cause: EndCause
    detail: str
    """One line for people; may be empty."""
    hint: str = ""
    """What to do about it; empty means the usual advice for that cause."""


class GuestMemory(NamedTuple):
    """What a guest reports about its memory."""

    size: int
    """Bytes that it has now."""
    available: int
    """Bytes of them that it could do without."""
    at: float
    """When it reported this, in seconds since 1970."""


class FileSeal(NamedTuple):
    """The size and digest that a file must have."""

    size: int
    """Bytes."""
    digest: str
    """256-bit BLAKE2b, in hexadecimal."""


class Checkpoint(NamedTuple):
    """A saved state from which a machine can resume."""

    number: int
    files: Mapping[str, FileSeal]
    """Files in the machine's directory, synced to the disk and never changed again; one may belong
    to several checkpoints. They are named `memory-NUMBER` or `disk-NUMBER`, six digits or more,
    also with `.qcow2`; or in any way with a suffix of VirtualBox's or VMware's: `.sav`, `.vdi`,
    `.vmss`, `.vmsn`, `.vmem`, `.vmdk`."""
    machine: Mapping[str, object]
    """What the driver must know of it, as a JSON object."""
    pause: float = 0.0
    """Seconds that the guest was paused for it."""
    written: int = 0
    """Bytes written to the disk."""


class Usage(NamedTuple):
    """The host resources that a machine uses."""

    cpu_seconds: float
    """User and system time of all that is or was this machine, in its current run."""
    resident: int
    """Bytes of memory."""


# Optional abilities of a machine.


RecordLayers = Callable[[tuple[str, ...]], Awaitable[None]]
"""Records durably which files are a machine's disk: see `Checkpointing.checkpoint`."""


class Checkpointing(Protocol):
    """Saves a machine to disk. All methods may raise HypervisorError, HostDiskFullError."""

    async def checkpoint(
        self, number: int, record_layers: RecordLayers | None = None
    ) -> Checkpoint:
        """Save memory and disk as of one moment from now on, while the guest keeps running.

        `number` is greater than that of any checkpoint in the directory. No other machine of this
        host is being checkpointed meanwhile: the caller waits for that. What an earlier checkpoint
        needs stays; the caller removes files that no checkpoint needs, except those in
        `Machine.files_in_use`.

        A checkpoint may put a new layer over the disk, to which the guest writes from then on.
        Before that, `record_layers` is awaited with the names of the layers, including the new one,
        which is on the disk by then, and empty: the list is right before and after the guest writes
        to it. A machine that is killed at any moment boots from the layers that were recorded last,
        with all that its guest had synced. If `record_layers` raises, the attempt ends with that
        exception and the machine keeps running as before. So it does if this is cancelled, perhaps
        with a new layer in `Machine.disk_layers`.
        """

    async def save(self, number: int, record_layers: RecordLayers | None = None) -> Checkpoint:
        """Make a last checkpoint without delay, and end; the machine is then SAVED and can start.

        `record_layers`: as above, because the guest keeps running if this fails.
        """


class Freezing(Protocol):
    """Makes a machine a golden snapshot."""

    async def freeze(self) -> None:
        """Make the machine, whose guest is quiesced, a golden snapshot, and end it.

        Raises HypervisorError.
        """


class Balloon(Protocol):
    """Takes memory back from a running guest. All methods may raise HypervisorError."""

    async def set_memory(self, size: int) -> None:
        """Limit the guest to `size` bytes of memory, at most what it was made with.

        It gives the rest back to the host as soon as it can. If that leaves its programs too
        little, none is killed, but all get slow: see `memory`. Repeat the call for a machine that
        was saved.
        """

    async def memory(self) -> GuestMemory | None:
        """Return the guest's latest report on its memory, None if there is no recent one.

        After the first call the guest reports every few seconds, until `set_memory` gives back all.
        """


class NetworkCard(Protocol):
    """The machine's network card."""

    @property
    def forwards(self) -> tuple[PortForward, ...]:
        """The spec's forwarded ports, which are open while the machine runs; () if it has none."""

    async def connect(self, *, connected: bool) -> None:
        """Plug the cable in, or unplug it, even before the machine runs. Raises HypervisorError."""


class Display(Protocol):
    """The machine's screen and keyboard."""

    @property
    def socket(self) -> Path:
        """The UNIX socket that serves the display by the RFB protocol while the machine runs."""


class Screenshots(Protocol):
    """Takes pictures of the screen of a running machine."""

    async def take_screenshot(self, target: Path) -> None:
        """Write what the screen shows to the new file `target`, as PNG. Raises HypervisorError."""


class RemoteDesktopAccess(NamedTuple):
    """How to reach a machine's remote desktop."""

    protocol: str
    """As people name it, like RDP."""
    address: str
    port: int
    user: str
    password: str


class RemoteDesktop(Protocol):
    """A server on this host that shows the screen to anyone who knows a password."""

    @property
    def access(self) -> RemoteDesktopAccess | None:
        """How to reach it while the machine runs, None at other times. Only this host can."""


class TransferDisk(Protocol):
    """A disk through which host and guest pass bulk data to each other (docs/under-the-hood.md)."""

    @property
    def descriptor(self) -> int:
        """The disk's file, open for reading and writing while the machine runs."""


class DiskReader(Protocol):
    """The root disk of a running machine, open for the host to read."""

    def copy(self, at: int, length: int, target: int, offset: int) -> None:
        """Copy `length` bytes at `at` on the disk to `offset` in the file `target`.

        It finds what the guest has flushed before; what it writes meanwhile may be missing. Zeros
        may be left out, for `target` has a hole there. Raises DiskRangeError, OSError.
        """

    def close(self) -> None:
        """Close the disk's files. Idempotent."""


class DiskRangeError(Exception):
    """That range of the disk cannot be read from the host, or nothing was ever stored there."""


class RootDisk(Protocol):
    """Lets the host read a machine's root disk while the guest uses it."""

    def open_reader(self) -> DiskReader:
        """Open the disk's files as they are now: a checkpoint may change them.

        Raises HypervisorError, OSError.
        """


class Machine(Protocol):
    """One virtual machine. All methods may raise HypervisorError."""

    @property
    def spec(self) -> MachineSpec: ...

    @property
    def state(self) -> MachineState: ...

    @property
    def checkpointing(self) -> Checkpointing | None: ...

    @property
    def freezing(self) -> Freezing | None:
        """None unless the machine was made by `GoldenSnapshots.machine`."""

    @property
    def balloon(self) -> Balloon | None: ...

    @property
    def network(self) -> NetworkCard | None: ...

    @property
    def display(self) -> Display | None: ...

    @property
    def screenshots(self) -> Screenshots | None:
        """None if it has no screen, or nobody can take a picture of it."""

    @property
    def remote_desktop(self) -> RemoteDesktop | None:
        """None unless the spec asks for it, and the driver has any."""

    @property
    def transfer_disk(self) -> TransferDisk | None:
        """The transfer disk; valid once the machine has been started."""

    @property
    def root_disk(self) -> RootDisk | None:
        """None if the host cannot read the root disk; valid once the machine has been started."""

    async def create(self) -> None:
        """Make the disk and everything else that start needs."""

    async def start(self) -> Channel:
        """Begin to boot and return the host's end of the guest link, which the caller owns.

        Raises HypervisorKilledError if somebody else ended the hypervisor meanwhile, which does not
        count against what it was to start from.

        A machine that resumes from a checkpoint is PAUSED then, so that `GuestLink.attach` can tell
        its guest what must be renewed before anything runs there.
        """

    async def pause(self) -> None:
        """Pause everything in the machine."""

    async def resume(self) -> None:
        """Let the machine run again."""

    @property
    def disk_layers(self) -> tuple[str, ...]:
        """Names of its disk's files in the directory, for `MachineSpec.layers` of a later life.

        They hold what its guest has written out.
        """

    def files_in_use(self) -> frozenset[str]:
        """Return the names of the files in the directory that the running machine needs."""

    async def stop(self) -> None:
        """End the machine now, without the guest's help."""

    async def destroy(self) -> None:
        """Stop, and remove everything of the machine from the disk, including its checkpoints."""

    async def ended(self) -> MachineEnd:
        """Wait until nothing of the machine runs any more, and return why it ended."""

    def usage(self) -> Usage | None:
        """Return what it uses of the host, or None if that is unknown or nothing runs."""

    def process_ids(self) -> tuple[int, ...]:
        """Return the ids of the host's processes that run this machine, the most telling one first.

        It is empty if they belong to others or have gone. They need not be our children.
        """


# Optional abilities of a driver.


class Finding(NamedTuple):
    """One result of examining a saved machine."""

    is_good: bool
    """Whether this allows the machine to resume."""
    what: str
    """A line for people."""


class SavedMachines(Protocol):
    """Lets machines resume from checkpoints."""

    def restore(self, spec: MachineSpec, checkpoint: Checkpoint) -> Machine:
        """Return the machine in `spec.directory` as of that checkpoint, in state SAVED.

        Another process may have made the checkpoint. Raises HypervisorError.
        """

    def examine(self, checkpoint: Checkpoint) -> list[Finding]:
        """Check if a machine could resume here from that checkpoint, whose files need not be here.

        Raises HypervisorError, OSError.
        """


class GoldenSnapshots(Protocol):
    """Lets machines start as copies of one that has booted."""

    def identity(self) -> dict[str, str]:
        """Return what a golden snapshot depends on besides image and spec: versions, the processor.

        Raises HypervisorMissingError, OSError.
        """

    def machine(self, spec: MachineSpec) -> Machine:
        """Return a machine to boot and freeze (`Machine.freezing`).

        `spec.directory` then is a golden snapshot.
        """

    def clone(self, spec: MachineSpec, golden: Path) -> Machine:
        """Return a machine in state SAVED that starts as a private copy of a golden snapshot.

        `golden` is the snapshot's directory. It was made with the same spec except for its
        directory. The clone's guest is quiesced, and has the same memory as that of any other
        clone: `GuestLink.attach` renews it.
        """


class Driver(Protocol):
    """Makes machines on one kind of hypervisor."""

    @property
    def name(self) -> str: ...

    @property
    def has_firmware(self) -> bool:
        """True if its machines boot a disk like a computer does when the spec has no kernel."""

    @property
    def most_cpus(self) -> int | None:
        """The most processors that one of its machines can have; None means as many as the host."""

    @property
    def saved_machines(self) -> SavedMachines | None: ...

    @property
    def golden_snapshots(self) -> GoldenSnapshots | None: ...

    def machine(self, spec: MachineSpec) -> Machine:
        """Return a machine in state DEFINED without touching anything yet."""


class Prestart(Protocol):
    """Begins one machine before there is an event loop.

    Importing asyncio takes longer than starting a hypervisor. The first machine that `driver` makes
    is the one that was begun.
    """

    def identity(self) -> dict[str, str] | None:
        """Return what `GoldenSnapshots.identity` returns, None if the driver has none of these."""

    def begin(self, spec: MachineSpec, golden: Path | None) -> None:
        """Begin a machine as a copy of the golden snapshot in `golden`, or boot it if that is None.

        Raises HypervisorError, HypervisorMissingError, HostDiskFullError, OSError.
        """

    def send(self, data: bytes) -> None:
        """Write to the guest link's channel. Raises OSError if the machine has ended."""

    def driver(self) -> Driver:
        """Return the driver, which takes over what has begun."""

    def end(self) -> None:
        """End what has begun if nobody has taken it over; its files stay. Idempotent."""


class SavedFiles(Protocol):
    """Checks the files of checkpoints without the hypervisor."""

    def check(self, directory: Path, checkpoint: Checkpoint, memory: int) -> None:
        """Check that a machine's files at that checkpoint are safe to give to the hypervisor.

        They are in `directory`; `memory` is the machine's, in bytes. Anybody may have made them, so
        they must say nothing that one of our own checkpoints would not. The caller checks their
        digests. Raises HypervisorError, OSError.
        """


class DriverPackage(Protocol):
    """What the registry finds by a driver's name: light to import, and looks for nothing itself."""

    @property
    def name(self) -> str: ...

    @property
    def contract_version(self) -> int:
        """The CONTRACT_VERSION that the driver was written for, as a number of its own."""

    @property
    def abilities(self) -> Abilities:
        """What its machines can do where everything that they need is there."""

    @property
    def proved_by(self) -> str:
        """With what the conformance suite has really run, for the manual; "" if it never has."""

    @property
    def depends_on(self) -> tuple[str, ...]:
        """What the verdict depends on: if none of these changes, nor does the verdict.

        Programs, by name; files, by absolute path; variables of the environment, as `$NAME`.
        """

    def assess(self, find_kernel: FindKernel) -> Verdict:
        """Find out whether and how well the driver works here, within 3 seconds.

        It is called in a thread of its own. Raises BoincvmError, OSError.
        """

    @property
    def checks(self) -> tuple[tuple[str, CheckFunction], ...]:
        """The checks that `boincvm doctor` is to make: their names and functions."""

    @property
    def saved_files(self) -> SavedFiles | None: ...

    def remove_orphans(self) -> int:
        """Remove what machines of this user have left whose processes were killed.

        Nothing of anybody else is touched, nor a machine that runs. Returns how many machines that
        were. Raises BoincvmError, OSError.
        """

    async def open(self, kernel: Path | None) -> Driver:
        """Return the driver, ready for machines that boot `kernel`, None if no image is here yet.

        Raises HypervisorMissingError.
        """

    def prestart(self, kernel: Path) -> Prestart | None:
        """Return what begins a machine before there is an event loop, or None if nothing can.

        Raises HypervisorMissingError.
        """
