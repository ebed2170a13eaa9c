"""The interface of a running task, on the host or in a machine, as the client needs it."""

from typing import NamedTuple, Protocol

from boincvm.wrapper.cpu_seconds import CpuSeconds


class TaskEnd(NamedTuple):
    """How a task ended."""

    code: int | None
    """The exit code; None if a signal killed it."""
    signal: int | None
    """The signal that killed it; None if it ended by itself."""


class Step(Protocol):
    """A running task."""

    async def wait(self) -> TaskEnd:
        """Wait until the task has ended and nothing of it is left.

        Any number of callers may wait, and each may be cancelled.
        """

    async def suspend(self) -> None:
        """Suspend the task: nothing of it computes when this returns.

        Calling it again is harmless.
        """

    async def resume(self) -> None:
        """Resume the task. Calling it again is harmless."""

    async def reach(self, seconds: float) -> None:
        """Wait until the task has run for `seconds`; suspended time does not count."""

    async def expire(self) -> None:
        """End the program because its time limit is reached; what it has written counts."""

    async def kill(self) -> None:
        """End the task, suspended or not: nothing of it is left when this returns.

        A program on the host has GRACE seconds (supervised.py) to end by itself. Calling it again
        is harmless. Raises HostError if the system cannot end it.
        """

    def has_checkpointed(self) -> bool:
        """Tell whether the program has saved its own state since the last call."""

    def seconds(self) -> CpuSeconds:
        """Return what the task has used since it was started or woken in this process."""

    def resident(self) -> int:
        """Return how many bytes of memory the task occupies now."""

    @property
    def fraction_done(self) -> float:
        """The fraction done, from 0 to 1, as last reported by the program."""

    @property
    def process_id(self) -> int | None:
        """The process that is reported to the client as `<other_pid>`."""
