"""The hypervisor's word for the machine that a job asks for."""

from pathlib import Path

from boincvm.hypervisor.contract import MachineSpec
from boincvm.image.store import Image
from boincvm.job.model import MachineShape


def machine_spec(shape: MachineShape, image: Image, directory: Path) -> MachineSpec:
    """A machine of that shape, its files in `directory`."""
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
