"""Converts the machine that a job asks for into a driver's specification."""

from pathlib import Path

from boincvm.errors import UsageError
from boincvm.guestlink.clone_identity import CloneIdentity, clone_identity
from boincvm.hypervisor.block_source import BlockSource
from boincvm.hypervisor.machine_spec import MachineSpec
from boincvm.image.store import Image
from boincvm.job.model import MachineShape
from boincvm.sizes import format_size


def check_memory(memory: int, image: Image) -> None:
    """Check that a machine with `memory` bytes has what `image` needs. Raises UsageError."""
    least = image.least_memory
    if memory < least:
        raise UsageError(
            f"a machine of the image {image.name} needs {format_size(least)} of memory, "
            f"but was given {format_size(memory)}",
            hint=f"give it more: --memory {least >> 20}M, or memory_mb in a job file",
        )


def machine_spec(
    shape: MachineShape,
    image: Image,
    directory: Path,
    root_source: BlockSource | None = None,
) -> MachineSpec:
    """Return the specification for a machine of this shape, with its files in `directory`.

    `root_source`: what the disk of a partial image is read from. Raises UsageError if it has too
    little memory.
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
        environment=image.environment,
        root_source=root_source,
    )


def clone_identity_for(spec: MachineSpec) -> CloneIdentity:
    """Return a new identity for a machine like `spec` that resumes from disk."""
    return clone_identity(network=spec.network, host_name=spec.host_name)
