"""Deliver messages to guests reliably, over a bus that may lose them.

A parcel is a message that a guest has not dealt with yet. It is sent again when the guest has
reconnected, at the guest's beats and, where `first_wait` is set, after growing waits until the
guest has acknowledged it. A parcel for an earlier life of the guest, or for a guest that has left,
is given up, and its sender is told why.

Guests repeat nothing by this: what they send at their beats follows from the state of their
commands (node/command.py), which is saved with the machine.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

from boincvm.controller.protocol.envelope import Send
from boincvm.controller.protocol.guest import Guest

LONGEST_WAIT = 30.0
"""Seconds beyond which waits do not grow."""


class Parcel(ABC):
    """A message to one guest, in one of its lives, that is not completed yet."""

    def __init__(self, guest_id: str, instance: str, parcel_id: str) -> None:
        """Address a parcel to one life (`instance`) of a guest; its id is unique for the guest."""
        self.guest_id = guest_id
        self.instance = instance
        self.id = parcel_id
        self.wait = 0.0
        self.timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def message(self) -> bytes:
        """Return the message to the guest, as of now."""

    def overdue(self) -> Iterable[bytes]:
        """Return the messages to send again at a beat of the guest: they may have been lost."""
        return (self.message(),)

    @abstractmethod
    def give_up(self, why: str) -> None:
        """Handle that the parcel will never be completed; it has been removed already."""


AnyParcel = TypeVar("AnyParcel", bound=Parcel)


class Delivery(Generic[AnyParcel]):
    """The open parcels of one kind, for all guests."""

    def __init__(self, send: Send, first_wait: float | None = None) -> None:
        """Deliver parcels by `send`.

        `first_wait`: seconds until an unacknowledged parcel is sent again for the first time; None
        sends again at beats only, which suits parcels that go to thousands of guests at once.
        """
        self._send = send
        self._first_wait = first_wait
        self._open: dict[str, dict[str, AnyParcel]] = {}  # by guest, then by the parcel's id

    def add(self, parcel: AnyParcel) -> None:
        """Add a parcel without sending it."""
        self._open.setdefault(parcel.guest_id, {})[parcel.id] = parcel

    def send(self, parcel: AnyParcel) -> None:
        """Send a parcel that was added."""
        self._send(parcel.guest_id, parcel.message())
        if self._first_wait is not None:
            parcel.wait = min(2 * parcel.wait or self._first_wait, LONGEST_WAIT)
            loop = asyncio.get_running_loop()
            parcel.timer = loop.call_later(parcel.wait, self.send, parcel)

    def get(self, guest_id: str, parcel_id: str) -> AnyParcel | None:
        """Return an open parcel, or None if it does not exist."""
        return self._open.get(guest_id, {}).get(parcel_id)

    def count(self, guest_id: str) -> int:
        """Return how many parcels of the guest are open."""
        return len(self._open.get(guest_id, {}))

    def acknowledge(self, parcel: AnyParcel) -> None:
        """Stop sending a parcel again after waits: the guest has it."""
        if parcel.timer is not None:
            parcel.timer.cancel()
            parcel.timer = None

    def complete(self, parcel: AnyParcel) -> None:
        """Remove a parcel, for which nothing is left to do; calling this again is harmless."""
        self.acknowledge(parcel)
        parcels = self._open.get(parcel.guest_id, {})
        if parcels.get(parcel.id) is parcel:
            del parcels[parcel.id]
            if not parcels:
                del self._open[parcel.guest_id]

    # What happens to guests.

    def handle_beat(self, guest_id: str) -> None:
        """Send again what may have been lost: the guest has sent a beat."""
        for parcel in list(self._open.get(guest_id, {}).values()):
            for body in parcel.overdue():
                self._send(guest_id, body)

    def handle_hello(self, guest: Guest, why: str) -> None:
        """Send all parcels of the guest's present life again, and give up those of earlier lives.

        `why`: see `give_up`.
        """
        for parcel in list(self._open.get(guest.id, {}).values()):
            if parcel.instance == guest.instance:
                self._send(guest.id, parcel.message())
            else:
                self._give_up(parcel, why)

    def handle_loss(self, guest_id: str, why: str) -> None:
        """Give up all parcels of a guest that has left."""
        for parcel in list(self._open.get(guest_id, {}).values()):
            self._give_up(parcel, why)

    def all(self) -> list[AnyParcel]:
        """Return all open parcels."""
        return [parcel for parcels in self._open.values() for parcel in parcels.values()]

    def _give_up(self, parcel: AnyParcel, why: str) -> None:
        self.complete(parcel)
        parcel.give_up(why)
