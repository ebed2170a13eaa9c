"""What is kept of one start of a golden snapshot's copy, for the next one (early_qemu.py)."""

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.hypervisor import early_qemu
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.qemu_command import machine_command
from boincvm.hypervisor.qemu_origin import GOLDEN_STATE, clone_launch
from boincvm.hypervisor.qemu_process import WINDOW_SIZE, empty_layer, environment
from boincvm.processes import guarded

if TYPE_CHECKING:
    from boincvm.hypervisor.early_qemu import Plan


def clone_plan(spec: MachineSpec, accelerator: str, golden: Path) -> "Plan":
    """For a copy of `golden` that is a machine like `spec`, ephemeral and without a balloon.

    Raises HypervisorError, HypervisorMissingError, HostDiskFullError, UsageError.
    """
    launch = clone_launch(golden, early_qemu.STATE)
    command = machine_command(
        spec._replace(directory=Path(early_qemu.DIRECTORY)),
        accelerator,
        launch,
        qmp=early_qemu.QMP,
        link=early_qemu.LINK,
        console=early_qemu.CONSOLE,
    )
    below, layer = launch.layers
    files = [(layer, *empty_layer(spec, Path(below))), (early_qemu.WINDOW, WINDOW_SIZE, [])]
    return guarded(command, early_qemu.PARENT), environment(spec), files, str(golden / GOLDEN_STATE)
