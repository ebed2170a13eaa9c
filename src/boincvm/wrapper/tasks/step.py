"""One task of a job that runs, on the host or in a machine, as the client's wishes need it."""

from typing import NamedTuple, Protocol

from boincvm.wrapper.cpu_seconds import CpuSeconds


class TaskEnd(NamedTuple):
    """How a task ended."""

    code: int | None
    """Its exit code; None: a signal killed it."""
    signal: int | None
    """The signal that killed it; None: it ended by itself."""


class Step(Protocol):
    """A task that runs."""

    async def wait(self) -> TaskEnd:
        """Wait until it has ended and nothing of it is left. Any number may wait, and give up."""

    async def suspend(self) -> None:
        """Suspend it: nothing of it computes when this returns; again is harmless."""

    async def resume(self) -> None:
        """Let it go on; again is harmless."""

    async def reach(self, seconds: float) -> None:
        """Wait until it has run for so long; time in which it is suspended does not count."""

    async def expire(self) -> None:
        """End the program because its time limit is reached: what it has made counts."""

    async def kill(self) -> None:
        """End it, suspended or not: nothing of it is left when this returns; again is harmless. A
        program of the host has GRACE seconds (supervised.py) to end by itself. Raises HostError if
        the system cannot end it."""

    def has_checkpointed(self) -> bool:
        """Tell whether the program has saved its own state since the last call."""

    def seconds(self) -> CpuSeconds:
        """Tell what it has used since it was started or woken in this process."""

    def resident(self) -> int:
        """Tell how many bytes of memory it occupies now."""

    @property
    def fraction_done(self) -> float:
        """From 0 to 1, as far as the program has said."""

    @property
    def process_id(self) -> int | None:
        """The process that the client is told of as `<other_pid>`."""
