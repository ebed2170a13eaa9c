"""The computing time of a job, measured in three ways, one of which the client is told."""

from typing import NamedTuple

from boincvm.job.boinc_settings import CpuTimeSource


class CpuSeconds(NamedTuple):
    """The time that a job has used, in seconds, measured in three ways."""

    guest: float = 0.0
    """User and system time of the programs themselves, as their kernel counts it; for a host task
    that is the host's kernel."""
    host: float = 0.0
    """CPU time of the host's processes that did the work, including the hypervisor."""
    wall: float = 0.0
    """Wall-clock time during which the job was not suspended."""

    def plus(self, other: "CpuSeconds") -> "CpuSeconds":
        """Return the sum of both."""
        return CpuSeconds(self.guest + other.guest, self.host + other.host, self.wall + other.wall)

    def reported(self, source: CpuTimeSource, scale: float) -> float:
        """Return the CPU time that the client is told."""
        return (
            scale
            * {
                CpuTimeSource.GUEST: self.guest,
                CpuTimeSource.HOST: self.host,
                CpuTimeSource.WALL: self.wall,
            }[source]
        )
