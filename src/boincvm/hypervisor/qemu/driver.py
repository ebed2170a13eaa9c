"""The QEMU driver, which runs one process per machine."""

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.errors import HypervisorError
from boincvm.host.virtualization import HAS_MEMORY_FILES
from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.contract import Checkpoint, Finding, MachineSpec
from boincvm.hypervisor.qemu.identity import check_identity, identity, known_machine_types
from boincvm.hypervisor.qemu.machine import QemuMachine
from boincvm.hypervisor.qemu.saved import read_saved_state
from boincvm.hypervisor.qemu.start_source import Boot, Restored, copy_of
from boincvm.hypervisor.qemu.target import TARGETS, X86_64

if TYPE_CHECKING:
    from boincvm.hypervisor.qemu.prestarted import StartedProcess


class QemuDriver:
    """Makes machines on QEMU, accelerated as `accelerator` says: "kvm", "hvf", "whpx" or "tcg"."""

    name = "qemu"
    most_cpus = None

    def __init__(
        self,
        accelerator: str,
        started: "StartedProcess | None" = None,
        architecture: Architecture = Architecture.X86_64,
    ) -> None:
        """Prepare the driver; `started` is a process that already runs, for the first machine.

        The process that started it chooses the machine. `architecture`: of all its machines.
        """
        self.accelerator = accelerator
        self.target = TARGETS[architecture]
        self._started = started

    @property
    def has_firmware(self) -> bool:
        """True for x86-64: QEMU comes with firmware for these machines alone."""
        return self.target is X86_64

    @property
    def saved_machines(self) -> "QemuDriver":
        return self

    @property
    def golden_snapshots(self) -> "QemuGoldenSnapshots":
        return QemuGoldenSnapshots(self)

    def take_started(self) -> "StartedProcess | None":
        """Return the process that already runs, on the first call only."""
        started, self._started = self._started, None
        return started

    def machine(self, spec: MachineSpec) -> QemuMachine:
        self.check(spec)
        return QemuMachine(spec, self.accelerator, Boot, started=self.take_started())

    def check(self, spec: MachineSpec) -> None:
        """Raise HypervisorError unless a machine's architecture is that of the driver's kernel."""
        if spec.architecture is not self.target.architecture:
            raise HypervisorError(
                f"a machine for {spec.architecture.value} cannot boot a kernel for"
                f" {self.target.architecture.value}"
            )

    def restore(self, spec: MachineSpec, checkpoint: Checkpoint) -> QemuMachine:
        self.check(spec)
        accelerator = check_identity(read_saved_state(checkpoint), self.accelerator, self.target)
        return QemuMachine(spec, accelerator, lambda: Restored(checkpoint), checkpoint=checkpoint)

    def examine(self, checkpoint: Checkpoint) -> list[Finding]:
        state = read_saved_state(checkpoint)
        check_identity(state, self.accelerator, self.target)
        kind = state.machine_type
        if kind in known_machine_types(self.target):
            return [Finding(is_good=True, what=f"QEMU knows the machine type {kind}")]
        return [Finding(is_good=False, what=f"this QEMU does not know the machine type {kind}")]


class QemuGoldenSnapshots:
    """The `contract.GoldenSnapshots` of QEMU."""

    def __init__(self, driver: QemuDriver) -> None:
        self._driver = driver

    def identity(self) -> dict[str, str]:
        return identity(self._driver.accelerator, self._driver.target)

    def machine(self, spec: MachineSpec) -> QemuMachine:
        self._driver.check(spec)
        accelerator = self._driver.accelerator
        return QemuMachine(
            spec, accelerator, lambda: Boot(golden=HAS_MEMORY_FILES), is_freezable=True
        )

    def clone(self, spec: MachineSpec, golden: Path) -> QemuMachine:
        driver = self._driver
        driver.check(spec)
        started = driver.take_started()
        return QemuMachine(
            spec, driver.accelerator, lambda: copy_of(golden), is_clone=True, started=started
        )
