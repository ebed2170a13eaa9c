"""What a machine can start from: a checkpoint, a golden snapshot, or a boot."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn

from boincvm.errors import BoincvmError, UsageError
from boincvm.hypervisor.architecture import Architecture
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.golden.snapshots import Found, discard_golden, find_golden
from boincvm.machine.golden.switch import is_enabled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from boincvm.guestlink.link import GuestLink
    from boincvm.hypervisor.contract import Driver, Machine, MachineSpec
    from boincvm.image.store import Image
    from boincvm.machine.saved_machine import SavedMachine  # it imports `hashlib` and more


class Rejected(NamedTuple):
    """A source that the machine could not start from."""

    source: str
    reason: str


class UnusableSourceError(Exception):
    """The source cannot be used, and nothing was started."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """One line for people; empty if the source does not exist."""


class Boot:
    """Starts from the machine's kernel, with a new disk or an existing one."""

    link_state: Mapping[str, object] | None = None
    """The guest link's state, if the guest's agent is already running."""
    keeps_files = False
    """Whether the files in the machine's directory are kept after a failed start."""
    may_need_more_disk = False
    """Whether the next source may fit on a disk of the host on which this one does not."""

    def __init__(self, *, freezable: bool = False) -> None:
        """Choose to boot; with `freezable` the machine is to become a golden snapshot."""
        self._freezable = freezable

    def __str__(self) -> str:
        return "boot"

    def make(self, driver: Driver, spec: MachineSpec) -> Machine:
        """Return the driver's machine, not started yet.

        Raises UsageError if it lacks something that the spec asks for.
        """
        machine = _freezable(driver, spec) if self._freezable else driver.machine(spec)
        kind = "" if spec.architecture is Architecture.X86_64 else f" for {spec.architecture.value}"
        forwards = machine.network.forwards if machine.network is not None else ()
        for asked_for, capability, what in (
            (spec.network, machine.network, "network"),
            (spec.forwards, forwards or None, "port forwarding"),
            (spec.display, machine.display, "screen"),
            (spec.remote_desktop, machine.remote_desktop, "remote desktop"),
            (spec.kernel is None, driver.has_firmware or None, "firmware to boot a disk"),
        ):
            if asked_for and capability is None:
                raise UsageError(
                    f"a machine{kind} of the driver {driver.name} has no {what}",
                    hint="leave it out, or choose another driver",
                )
        if driver.most_cpus is not None and spec.cpus > driver.most_cpus:
            raise UsageError(
                f"a machine of the driver {driver.name} has at most {driver.most_cpus} processors,"
                f" but {spec.cpus} were requested",
                hint=f"ask for --cpus {driver.most_cpus}, or choose another driver",
            )
        return machine

    def reraise(self, error: BoincvmError) -> NoReturn:
        """Raise the error to report if this source failed with `error` and it was the last one."""
        raise error

    def discard(self) -> None:
        """Make sure that nobody starts from it again; a boot can always be retried."""


class Clone:
    """Starts as a private copy of the golden snapshot of `image`, if a suitable one exists."""

    keeps_files = False
    may_need_more_disk = True  # some drivers copy the snapshot's memory

    def __init__(
        self, image: Image, found: Found | None = None, *, attach_is_sent: bool = False
    ) -> None:
        """Choose to clone; `found`: the result of the search, if it has been made already.

        `attach_is_sent`: the driver has started the copy, and has sent it the link's first message.
        """
        self._image = image
        self._found = found
        self.attach_is_sent = attach_is_sent

    def __str__(self) -> str:
        return "golden snapshot"

    @property
    def link_state(self) -> Mapping[str, object] | None:
        return self._found.golden.link if self._found and self._found.golden else None

    def make(self, driver: Driver, spec: MachineSpec) -> Machine:
        """Return the copy. Raises UnusableSourceError, HypervisorMissingError, OSError."""
        golden = driver.golden_snapshots
        if golden is None or not can_be_cloned(driver, spec):
            raise UnusableSourceError("")
        if self._found is None:
            self._found = find_golden(self._image, spec, golden.identity())
        if self._found.golden is None:
            raise UnusableSourceError(self._found.why)
        return golden.clone(spec, self._found.golden.directory)

    def reraise(self, error: BoincvmError) -> NoReturn:
        raise error

    def discard(self) -> None:
        """Remove the snapshot."""
        if self._found is not None and self._found.golden is not None:
            discard_golden(self._found.golden.directory)


class Restore:
    """Resumes from a checkpoint in the machine's directory, which is kept whatever happens."""

    keeps_files = True
    may_need_more_disk = False

    def __init__(
        self, saved: SavedMachine, attach: Callable[[GuestLink], None] | None = None
    ) -> None:
        """Choose the checkpoint `saved`; `attach` attaches the guest's programs before it runs.

        None: the guest stays paused until its owner has done so and calls `ManagedMachine.wake`.
        """
        self.saved = saved
        self.attach = attach

    def __str__(self) -> str:
        return f"checkpoint {self.saved.checkpoint.number}"

    @property
    def link_state(self) -> Mapping[str, object]:
        return self.saved.link

    def make(self, driver: Driver, spec: MachineSpec) -> Machine:
        """Return the saved machine. Raises SavedMachineError, HypervisorError."""
        saved_machines = driver.saved_machines
        if self.saved.driver != driver.name or saved_machines is None:
            raise SavedMachineError(f"it was saved by the driver {self.saved.driver}")
        return saved_machines.restore(spec, self.saved.checkpoint)

    def reraise(self, error: BoincvmError) -> NoReturn:
        """Raise SavedMachineError instead of `error`."""
        if isinstance(error, SavedMachineError):
            raise error
        raise SavedMachineError(
            f"the saved machine does not resume: {error.message}", hint=error.hint
        ) from error

    def discard(self) -> None:
        """Keep the checkpoint: its owner has others, or knows how to do without."""


StartSource = Restore | Clone | Boot


def _freezable(driver: Driver, spec: MachineSpec) -> Machine:
    if driver.golden_snapshots is None:
        raise UnusableSourceError(f"the driver {driver.name} does not make golden snapshots")
    return driver.golden_snapshots.machine(spec)


def can_be_cloned(driver: Driver, spec: MachineSpec) -> bool:
    """Tell whether a machine like `spec` may start as a copy of a golden snapshot.

    It may not if it has a disk of its own already, a screen, a disk that is read on demand, or a
    graphics card of the host.
    """
    can = is_enabled() and driver.golden_snapshots is not None
    return can and not spec.layers and not spec.display and not is_bound_to_host(spec)


def is_bound_to_host(spec: MachineSpec) -> bool:
    """Tell whether a machine has what nobody can copy or save: see MachineSpec."""
    return spec.root_source is not None or spec.gpu is not None
