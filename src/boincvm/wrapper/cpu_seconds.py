"""How long a job has computed, three ways, and which of them the client is told."""

from typing import NamedTuple

from boincvm.job.boinc_settings import CpuTimeSource


class CpuSeconds(NamedTuple):
    """Seconds. `guest`: the programs' own, user and system, as their kernel counts them (for a
    host task that is the host's); `host`: of the host's processes that did the work, the
    hypervisor among them; `wall`: of the clock while the job was not suspended."""

    guest: float = 0.0
    host: float = 0.0
    wall: float = 0.0

    def plus(self, other: "CpuSeconds") -> "CpuSeconds":
        """Both together."""
        return CpuSeconds(self.guest + other.guest, self.host + other.host, self.wall + other.wall)

    def reported(self, source: CpuTimeSource, scale: float) -> float:
        """What the client is told."""
        return (
            scale
            * {
                CpuTimeSource.GUEST: self.guest,
                CpuTimeSource.HOST: self.host,
                CpuTimeSource.WALL: self.wall,
            }[source]
        )
