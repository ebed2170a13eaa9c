"""One step of a job under the client: a worker, and what the client wants to hear of it."""

from typing import Protocol

from boincvm.wrapper.cpu_seconds import CpuSeconds
from boincvm.wrapper.worker import Worker


class Step(Worker, Protocol):
    """A task of a job.xml that runs, on the host or in a machine."""

    @property
    def fraction_done(self) -> float:
        """From 0 to 1, as far as the program has said."""

    def seconds(self) -> CpuSeconds:
        """What it has used since it was started or woken in this process."""

    def has_checkpointed(self) -> bool:
        """Whether the program has saved its own state since the last call."""

    async def reach(self, seconds: float) -> None:
        """Until it has run for so long; time in which it is suspended does not count."""

    async def expire(self) -> None:
        """Its time limit is reached: the program ends, and what it has made counts."""
