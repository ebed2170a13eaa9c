"""What a machine's state depends on: the QEMU program and the processor."""

from collections.abc import Mapping
from pathlib import Path

from boincvm.errors import HypervisorError
from boincvm.hypervisor import qemu_command

_CPU_INFO = Path("/proc/cpuinfo")


def processor() -> str:
    """The host's processor, as its kernel names it; empty where it does not."""
    with _CPU_INFO.open("rb") as file:
        for line in file.read(4096).splitlines():
            if line.startswith((b"model name", b"Model")):
                return line.partition(b":")[2].strip().decode(errors="replace")
    return ""


def identity(accelerator: str) -> dict[str, str]:
    """For a golden snapshot, which is worth nothing with another QEMU or processor.

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
        "processor": processor(),
    }


def check_identity(table: Mapping[str, object], accelerator: str) -> str:
    """The accelerator under which a checkpoint with that table can go on here.

    A newer QEMU takes the state of an older one: it keeps the older one's machine types.
    Raises HypervisorError.
    """
    needed = table.get("accelerator")
    if needed == "tcg":
        return "tcg"
    if needed != accelerator:
        raise HypervisorError(f"the machine was saved under {needed}, which does not work here")
    if table.get("processor") != processor():
        raise HypervisorError(
            f"the machine was saved on another processor ({table.get('processor')})"
        )
    return accelerator
