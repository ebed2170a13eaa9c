"""The identity of QEMU and the processor, which a machine's state depends on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.errors import HypervisorError
from boincvm.host.programs import run_quickly
from boincvm.host.resources import processor_name
from boincvm.hypervisor.qemu import command as qemu_command
from boincvm.hypervisor.qemu.target import X86_64, Target

if TYPE_CHECKING:
    from boincvm.hypervisor.qemu.saved import SavedState


def identity(accelerator: str, target: Target = X86_64) -> dict[str, str]:
    """Return the identity for a golden snapshot, which needs the same QEMU and processor.

    Raises HypervisorMissingError, OSError.
    """
    program = Path(qemu_command.find_program(target.program))
    status = program.stat()
    has_hpet = target.has_hpet(accelerator, cpus=1)
    options = target.machine_options(has_hpet=has_hpet)
    machine = [
        *qemu_command.base_options(accelerator, options=options, target=target),
        *target.arguments(has_hpet=has_hpet),
    ]
    return {
        "driver": "qemu",
        "qemu": f"{program} {status.st_size} {status.st_mtime_ns}",
        "machine": " ".join(machine),
        "state": "begins with the machine type",  # that of an older boincvm does not
        "accelerator": accelerator,
        "processor": processor_name(),
    }


def check_identity(state: SavedState, accelerator: str, target: Target) -> str:
    """Return the accelerator under which a machine in that state can resume here.

    `accelerator` is what works here, `target` that of the machine's image. A newer QEMU accepts the
    state of an older one: it keeps the older machine types. Raises HypervisorError.
    """
    if state.target is not target:
        raise HypervisorError(
            f"the machine was saved with a processor for {state.target.architecture.value}, and its"
            f" image is for {target.architecture.value}",
            hint="the image must be the one that the machine was made of",
        )
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


def known_machine_types(target: Target) -> set[str]:
    """Return the names of the machine types that the installed QEMU supports.

    Raises HypervisorMissingError, OSError.
    """
    known = run_quickly([qemu_command.find_program(target.program), "-machine", "help"])
    return {line.split()[0] for line in known.splitlines() if line}
