"""The phase of a link between `quiesce` and `attach`: who may speak, and what is awaited."""

import asyncio
from enum import Enum, auto
from typing import NamedTuple

from boincvm.bus.stomp import Frame, StompError
from boincvm.guestlink.headers import number


class Phase(Enum):
    TALKING = auto()
    QUIESCING = auto()
    """The guest was asked to become quiet, and may finish what it is sending."""
    QUIET = auto()
    """The guest has become quiet, and may not send anything."""
    ATTACHING = auto()
    """The guest was asked to continue."""


_ANSWERS = {"quiesced": Phase.QUIESCING, "attached": Phase.ATTACHING}


class HeldMessage(NamedTuple):
    """A message of ours that is held back until the guest accepts messages again."""

    kind: str
    call: str
    headers: dict[str, str]
    body: bytes


class Quiescence:
    """The phase of one link. `held` is None while nothing is held back."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.held: list[HeldMessage] | None = None if phase is Phase.TALKING else []
        self._answer: asyncio.Future[frozenset[int]] | None = None

    def ask(self, phase: Phase) -> asyncio.Future[frozenset[int]]:
        """Enter `phase`; return the future of the guest's answer.

        For `ATTACHING`, the answer is the calls that the guest has.
        """
        self.phase = phase
        self.held = [] if phase is Phase.QUIESCING else None
        self._answer = asyncio.get_running_loop().create_future()
        return self._answer

    def check(self) -> None:
        """Check that the guest may speak now. Raises StompError."""
        if self.phase is Phase.QUIET:
            raise StompError("it sent something while it had to be quiet")

    def handle(self, kind: str, frame: Frame) -> None:
        """Handle a message that belongs to no call. Raises StompError."""
        if kind == "quiesced" and self.phase is Phase.ATTACHING:
            return  # it came too late: the host has already asked the guest to continue
        if _ANSWERS.get(kind) is not self.phase or self._answer is None:
            raise StompError("there is no call 0")
        calls: frozenset[int] = frozenset()
        if kind == "attached":
            texts = frame.headers["calls"].split()
            calls = frozenset(number({"calls": text}, "calls") for text in texts)
        self.phase = Phase.QUIET if kind == "quiesced" else Phase.TALKING
        if not self._answer.done():
            self._answer.set_result(calls)
