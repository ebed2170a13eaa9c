"""What the run of a job knows of a task that runs, be it on the host or in a machine."""

from typing import NamedTuple, Protocol


class WorkerEnd(NamedTuple):
    """How a task ended: its exit code, or the signal that killed it; the other is None."""

    code: int | None
    signal: int | None


class Worker(Protocol):
    """One task that runs."""

    async def wait(self) -> WorkerEnd:
        """Until it has ended and nothing of it is left. Any number may wait, and give up."""

    async def suspend(self) -> None:
        """Nothing of it computes when this returns; again is harmless."""

    async def resume(self) -> None:
        """It goes on; again is harmless."""

    async def kill(self) -> None:
        """Nothing of it is left when this returns, suspended or not; again is harmless. A
        program of the host has GRACE seconds (supervised.py) to end by itself. Raises HostError if
        the system cannot end it."""

    def cpu_time(self) -> float:
        """Seconds, user and system, of all that belongs or belonged to it; never goes down."""

    def resident(self) -> int:
        """Bytes of memory that it occupies now."""

    @property
    def process_id(self) -> int | None:
        """The process that the client is told of as `<other_pid>`."""
