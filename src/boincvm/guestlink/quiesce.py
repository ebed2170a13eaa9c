"""Where a link stands between `quiesce` and `attach`: who may speak, and what is awaited."""

import asyncio
from enum import Enum, auto
from typing import NamedTuple

from boincvm.bus.stomp import Frame, StompError
from boincvm.guestlink.headers import number


class Phase(Enum):
    TALKING = auto()
    QUIESCING = auto()
    """The guest was asked to fall quiet, and may finish what it has to say."""
    QUIET = auto()
    """It has said that it is, and may say nothing."""
    ATTACHING = auto()
    """It was asked to go on."""


_ANSWERS = {"quiet": Phase.QUIESCING, "attached": Phase.ATTACHING}


class HeldWord(NamedTuple):
    """A word of ours that waits until the guest takes words again."""

    word: str
    call: str
    headers: dict[str, str]
    body: bytes


class Quiet:
    """One link's phase. `held` is None while nothing is to be held back."""

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.held: list[HeldWord] | None = None if phase is Phase.TALKING else []
        self._answer: asyncio.Future[frozenset[int]] | None = None

    def ask(self, phase: Phase) -> asyncio.Future[frozenset[int]]:
        """The guest is asked to enter what comes after `phase`. The future is its answer: the
        calls that it has, if it was asked to go on."""
        self.phase = phase
        self.held = [] if phase is Phase.QUIESCING else None
        self._answer = asyncio.get_running_loop().create_future()
        return self._answer

    def check(self) -> None:
        """The guest speaks. Raises StompError where it may not."""
        if self.phase is Phase.QUIET:
            raise StompError("it spoke when it had to be quiet")

    def take(self, word: str, frame: Frame) -> None:
        """A word that belongs to no call. Raises StompError."""
        if word == "quiet" and self.phase is Phase.ATTACHING:
            return  # it came too late, and the host has changed its mind
        if _ANSWERS.get(word) is not self.phase or self._answer is None:
            raise StompError("there is no call 0")
        calls: frozenset[int] = frozenset()
        if word == "attached":
            texts = frame.headers["calls"].split()
            calls = frozenset(number({"calls": text}, "calls") for text in texts)
        self.phase = Phase.QUIET if word == "quiet" else Phase.TALKING
        if not self._answer.done():
            self._answer.set_result(calls)
