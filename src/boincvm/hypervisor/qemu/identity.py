"""The identity of QEMU and the processor, which a machine's state depends on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.errors import HypervisorError
from boincvm.host.programs import run_quickly
from boincvm.host.resources import processor_name
from boincvm.hypervisor.qemu import command as qemu_command

if TYPE_CHECKING:
    from boincvm.hypervisor.qemu.saved import SavedState


def identity(accelerator: str) -> dict[str, str]:
    """Return the identity for a golden snapshot, which needs the same QEMU and processor.

    Raises HypervisorMissingError, OSError.
    """
    program = Path(qemu_command.find_program(qemu_command.PROGRAM))
    status = program.stat()
    machine = [*qemu_command.base_options(accelerator), *qemu_command.KERNEL_ARGUMENTS]
    return {
        "driver": "qemu",
        "qemu": f"{program} {status.st_size} {status.st_mtime_ns}",
        "machine": " ".join(machine),
        "accelerator": accelerator,
        "processor": processor_name(),
    }


def check_identity(state: SavedState, accelerator: str) -> str:
    """Return the accelerator under which a machine in that state can resume here.

    A newer QEMU accepts the state of an older one: it keeps the older machine types. Raises
    HypervisorError.
    """
    if state.accelerator == "tcg":
        return "tcg"
    if state.accelerator != accelerator:
        raise HypervisorError(
            f"the machine was saved under {state.accelerator}, which does not work here"
        )
    if state.processor != processor_name():
        raise HypervisorError(
            f"the machine was saved on a different processor ({ascii(state.processor)[:80]})"
        )
    return accelerator


def known_machine_types() -> set[str]:
    """Return the names of the machine types that the installed QEMU supports.

    Raises HypervisorMissingError, OSError.
    """
    known = run_quickly([qemu_command.find_program(qemu_command.PROGRAM), "-machine", "help"])
    return {line.split()[0] for line in known.splitlines() if line}
