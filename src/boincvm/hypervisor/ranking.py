"""Ranks drivers for a machine by what is known of them on this host; see verdict.py.

The order of what counts:

1. A driver that cannot do what is needed is refused, and so is one that keeps a hostile guest from
   nothing, unless the guest's programs are trusted, and one that nobody has seen work, unless it is
   asked for by name.
2. Where checkpoints are wanted, a driver that makes them goes before one that does not.
3. The faster one, then the better isolated one, then the one with golden snapshots.
4. boincvm's own order.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from boincvm.hypervisor.needs import Needs
from boincvm.hypervisor.verdict import Ability, Isolation, Speed, Verdict
from boincvm.job.model import CheckpointNeed


class Ranked(NamedTuple):
    """A driver's place among the others."""

    name: str
    verdict: Verdict
    refused: str
    """Why it cannot be used for this machine, one line; empty if it can."""

    @property
    def reason(self) -> str:
        """Say in one line what speaks for it and against it."""
        if self.refused:
            return self.refused
        verdict = self.verdict
        can = verdict.abilities.of_machines
        points = [_SPEEDS[verdict.speed], _ISOLATIONS[verdict.isolation]]
        points.append("checkpoints" if Ability.CHECKPOINT in can else "no checkpoints")
        if Ability.GOLDEN in can:
            points.append("starts at once from golden snapshots")
        return ", ".join(points)


_SPEEDS = {
    Speed.NATIVE: "the host's own speed",
    Speed.EMULATED: "emulation, 15 to 23 times slower than the host",
    Speed.INTERPRETED: "an interpreter, a hundred times slower than the host or more",
}
_ISOLATIONS = {
    Isolation.NONE: "no isolation of hostile programs",
    Isolation.SANDBOX: "isolated by a sandbox",
    Isolation.HARDWARE: "isolated by the processor",
}
_WANTED = (
    ("network", Ability.NETWORK, "its machines have no network"),
    (
        "port_forwarding",
        Ability.PORT_FORWARDING,
        "it cannot forward ports of the host to its machines",
    ),
    ("display", Ability.DISPLAY, "its machines have no screen"),
    ("remote_desktop", Ability.REMOTE_DESKTOP, "its machines have no remote desktop"),
    ("firmware", Ability.FIRMWARE, "its machines have no firmware to boot a disk"),
    ("on_demand", Ability.ON_DEMAND, "its machines cannot read their disk on demand"),
    ("gpu", Ability.GPU, "its machines cannot have a graphics card of the host"),
)


def rank(verdicts: Mapping[str, Verdict], needs: Needs) -> list[Ranked]:
    """Return all drivers, the best one first and those that cannot be used last.

    `verdicts` are in boincvm's own order.
    """
    ranked = [Ranked(name, verdict, _refusal(verdict, needs)) for name, verdict in verdicts.items()]
    return sorted(ranked, key=lambda driver: _worth(driver, needs), reverse=True)


def best(ranked: Iterable[Ranked]) -> Ranked | None:
    """Return the first one that can be used, if any."""
    return next((driver for driver in ranked if not driver.refused), None)


def _refusal(verdict: Verdict, needs: Needs) -> str:
    if verdict.trouble:
        return verdict.trouble
    can, most_cpus, architectures = verdict.abilities
    if needs.architecture not in architectures:
        return f"it runs no images for {needs.architecture.value}"
    if needs.checkpoint is CheckpointNeed.REQUIRED and Ability.CHECKPOINT not in can:
        return "it makes no checkpoints, and the job requires them"
    for need, ability, refusal in _WANTED:
        if getattr(needs, need) and ability not in can:
            return refusal
    if most_cpus is not None and needs.cpus > most_cpus:
        return (
            f"its machines have at most {most_cpus} processors, and the job asks for {needs.cpus}"
        )
    if verdict.isolation is Isolation.NONE and not needs.is_trusted:
        return "it does not isolate hostile programs, so it is used only if asked for by name"
    if not verdict.is_proved and not needs.is_named:
        return "its machines have never been tested, so it is used only if asked for by name"
    return ""


def _worth(ranked: Ranked, needs: Needs) -> tuple[bool, bool, bool, Speed, Isolation, bool]:
    verdict = ranked.verdict
    can = verdict.abilities.of_machines
    is_checkpointed = needs.checkpoint is not CheckpointNeed.NONE and Ability.CHECKPOINT in can
    return (
        not ranked.refused,
        verdict.is_usable,
        is_checkpointed,
        verdict.speed,
        verdict.isolation,
        Ability.GOLDEN in can,
    )
