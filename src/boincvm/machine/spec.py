"""Converts the machine that a job asks for into a driver's specification."""

from pathlib import Path

from boincvm.errors import UsageError
from boincvm.guestlink.clone_identity import CloneIdentity, clone_identity
from boincvm.hypervisor.contract import MachineSpec
from boincvm.image.store import Image
from boincvm.job.model import MachineShape
from boincvm.sizes import format_size

ENOUGH_MEMORY = 256 << 20
"""Bytes that suffice to boot any image (image/least_memory.py), so that the manifest, which is slow
to read, need not be read."""


def check_memory(memory: int, image: Image) -> None:
    """Check that a machine with `memory` bytes can boot `image`. Raises UsageError."""
    if memory >= ENOUGH_MEMORY:
        return
    least = image.manifest.least_memory
    if least is not None and memory < least:
        raise UsageError(
            f"a machine of the image {image.name} needs {format_size(least)} of memory, "
            f"but was given {format_size(memory)}",
            hint=f"give it more: --memory {least >> 20}M, or memory_mb in a job file",
        )


def machine_spec(shape: MachineShape, image: Image, directory: Path) -> MachineSpec:
    """Return the specification for a machine of this shape, with its files in `directory`.

    Raises UsageError if it has too little memory.
    """
    check_memory(shape.memory, image)
    return MachineSpec(
        directory=directory,
        kernel=image.kernel,
        initrd=image.initrd,
        root=image.root,
        memory=shape.memory,
        cpus=shape.cpus,
        disk_size=shape.disk,
        network=shape.network,
        architecture=image.architecture,
    )


def clone_identity_for(spec: MachineSpec) -> CloneIdentity:
    """Return a new identity for a machine like `spec` that resumes from disk."""
    return clone_identity(network=spec.network, host_name=spec.host_name)
