"""From the machine that a job asks for to what a driver is told."""

from pathlib import Path

from boincvm.errors import UsageError
from boincvm.guestlink.clone_identity import CloneIdentity, clone_identity
from boincvm.hypervisor.contract import MachineSpec
from boincvm.image.store import Image
from boincvm.job.model import MachineShape
from boincvm.sizes import format_size

ENOUGH_MEMORY = 256 << 20
"""Bytes with which a machine of any image boots (image/least_memory.py), so that the manifest,
which takes time to read, need not be asked."""


def check_memory(memory: int, image: Image) -> None:
    """Check that a machine with `memory` bytes can boot `image`. Raises UsageError."""
    if memory >= ENOUGH_MEMORY:
        return
    least = image.manifest.least_memory
    if least is not None and memory < least:
        raise UsageError(
            f"a machine of the image {image.name} needs {format_size(least)} of memory, "
            f"and was to have {format_size(memory)}",
            hint=f"give it more: --memory {least >> 20}M, or memory_mb in a job file",
        )


def machine_spec(shape: MachineShape, image: Image, directory: Path) -> MachineSpec:
    """Return what a driver is told of a machine of that shape, whose files lie in `directory`.

    Raises UsageError: too little memory.
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
    )


def clone_identity_for(spec: MachineSpec) -> CloneIdentity:
    """Return what a machine like `spec` gets when it goes on from what is on disk."""
    return clone_identity(network=spec.network, host_name=spec.host_name)
