"""Where a life of a machine begins: at a boot, a golden snapshot, or where it was saved."""

from pathlib import Path

from boincvm.controller.keeper.place import Definition
from boincvm.guestlink.host_name import host_name
from boincvm.hypervisor.contract import Driver, Feature, MachineSpec
from boincvm.image.store import Image
from boincvm.job.model import Limits
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.golden.snapshots import Golden, find_golden
from boincvm.machine.golden.switch import is_wanted
from boincvm.machine.managed import TaskMachine
from boincvm.machine.saved_machine import SavedMachine
from boincvm.machine.spec import machine_spec

_LIMITS = Limits(boot=300.0, silence=120.0, stop=20.0)


def spec_of(definition: Definition, image: Image, directory: Path) -> MachineSpec:
    """Of that machine, its files in `directory`."""
    spec = machine_spec(definition.shape, image, directory)
    return spec._replace(display=definition.display, host_name=host_name(definition.id))


def may_be_copy(driver: Driver, spec: MachineSpec) -> bool:
    """Whether it can begin as a copy of a golden snapshot. One with a disk of its own, or a
    screen, has to boot."""
    can = is_wanted() and Feature.GOLDEN in driver.features
    return can and not spec.layers and not spec.display


def find_source(driver: Driver, spec: MachineSpec, image: Image) -> Golden | None:
    """The golden snapshot that it may be a copy of, if there is one."""
    if not may_be_copy(driver, spec):
        return None
    return find_golden(image, spec, driver.identity())[0]


def copy_of(golden: Golden, driver: Driver, spec: MachineSpec) -> TaskMachine:
    """A copy of that golden snapshot."""
    return TaskMachine(driver.clone(spec, golden.directory), _LIMITS, None, golden)


def new_machine(driver: Driver, spec: MachineSpec) -> TaskMachine:
    """It boots."""
    return TaskMachine(driver.machine(spec), _LIMITS, None)


def former_machine(driver: Driver, spec: MachineSpec, saved: SavedMachine) -> TaskMachine:
    """It goes on where it was saved. Raises SavedMachineError."""
    if saved.driver != driver.name:
        raise SavedMachineError(f"it was saved by the driver {saved.driver}")
    return TaskMachine(driver.saved_machine(spec, saved.checkpoint), _LIMITS, saved)
