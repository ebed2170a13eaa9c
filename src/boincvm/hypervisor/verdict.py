"""What is known of a driver on this host: what its machines can do, how fast, how well kept apart.

The advisor (advisor.py) collects the verdicts, and ranking.py compares them.
"""

from enum import Enum, IntEnum
from typing import NamedTuple

from boincvm.hypervisor.architecture import Architecture


class Ability(Enum):
    """What machines of a driver can do beyond running a program."""

    CHECKPOINT = "checkpoint"
    """They can be saved, and go on from there: `Driver.saved_machines`."""
    GOLDEN = "golden"
    """They can start as copies of a booted one: `Driver.golden_snapshots`."""
    NETWORK = "network"
    PORT_FORWARDING = "port forwarding"
    """Ports of the host can lead into them: `NetworkCard.forwards`."""
    DISPLAY = "display"
    SCREENSHOT = "screenshot"
    """Pictures can be taken of their screens."""
    REMOTE_DESKTOP = "remote desktop"
    """Their screens can be seen by clients of a remote desktop's server, with a password."""
    BALLOON = "balloon"
    """They can give memory back while they run."""
    TRANSFER_DISK = "transfer disk"
    FIRMWARE = "firmware"
    """They can boot any disk as a computer does: `Driver.has_firmware`."""
    ON_DEMAND = "disk on demand"
    """They can read their root disk from `MachineSpec.root_source`."""
    GPU = "graphics card"
    """They can have a graphics card of the host: `MachineSpec.gpu`."""


class Abilities(NamedTuple):
    """What a driver's machines can do."""

    of_machines: frozenset[Ability]
    most_cpus: int | None = None
    """The most processors of one machine; None means as many as the host."""
    architectures: frozenset[Architecture] = frozenset((Architecture.X86_64,))
    """What machines can be. Where it is not this host's own, or needs a program that is not here,
    the driver's `open` tells."""


class Speed(IntEnum):
    """How fast a guest's programs compute; a faster one is greater."""

    INTERPRETED = 1
    """Each instruction is interpreted: a hundred times slower than the host, or more."""
    EMULATED = 2
    """The guest's code is translated: 15 to 23 times slower than the host."""
    NATIVE = 3
    """The processor runs the guest's code: as fast as the host."""


class Isolation(IntEnum):
    """What keeps a hostile guest from the host; a better one is greater."""

    NONE = 1
    """Nothing that counts: a program that breaks out of its machine is the user's own program."""
    SANDBOX = 2
    """A program that breaks out is in a process that may do little more than compute."""
    HARDWARE = 3
    """The processor keeps the guest from the host."""


class Verdict(NamedTuple):
    """Whether and how well a driver works on this host."""

    version: str = ""
    """The hypervisor's version; empty if there is none, or it does not tell."""
    trouble: str = ""
    """Why no machine can be made, one line; empty if machines can be made."""
    remedy: str = ""
    """What to type or do about the trouble, or about being slow."""
    acceleration: str = ""
    """What runs the guest's code and why, one line."""
    speed: Speed = Speed.NATIVE
    isolation: Isolation = Isolation.NONE
    isolated_by: str = ""
    """What keeps the guest from the host, one line."""
    abilities: Abilities = Abilities(frozenset())
    is_proved: bool = True
    """False if nobody has seen its machines run: it is taken only if asked for by name."""
    is_final: bool = True
    """False if something could not be tried yet, so that the verdict must not be kept."""
    valid_until: float = 0.0
    """Until when it is kept, in seconds since 1970; 0 if only a change of the host ends it."""

    @property
    def is_usable(self) -> bool:
        return not self.trouble

    def table(self) -> dict[str, object]:
        """Return it as a JSON object."""
        can, most_cpus, architectures = self.abilities
        return {
            **self._asdict(),
            "speed": self.speed.name.lower(),
            "isolation": self.isolation.name.lower(),
            "abilities": sorted(ability.value for ability in can),
            "most_cpus": most_cpus,
            "architectures": sorted(architecture.value for architecture in architectures),
        }


def unusable(trouble: str, remedy: str = "", version: str = "") -> Verdict:
    """Return the verdict on a driver that makes no machines here."""
    return Verdict(version=version, trouble=trouble, remedy=remedy)
