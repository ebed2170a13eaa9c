"""What a machine needs of its driver."""

from typing import NamedTuple

from boincvm.hypervisor.architecture import Architecture
from boincvm.job.model import CheckpointNeed


class Needs(NamedTuple):
    """What a machine needs of its driver."""

    checkpoint: CheckpointNeed = CheckpointNeed.WANTED
    cpus: int = 1
    network: bool = False
    port_forwarding: bool = False
    display: bool = False
    remote_desktop: bool = False
    firmware: bool = False
    """Whether it boots a disk of its own, without a kernel of ours."""
    on_demand: bool = False
    """Whether its root disk is read on demand."""
    gpu: bool = False
    """Whether it gets a graphics card of the host."""
    is_trusted: bool = False
    """Whether its programs might as well run on the host, without a machine around them."""
    is_named: bool = False
    """Whether the driver is asked for by name, so that it may be one that nobody has seen work."""
    architecture: Architecture = Architecture.X86_64
    """The image's."""
