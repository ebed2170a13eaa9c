"""Keep track of the guests that have announced themselves, and of their presence.

A guest sends HELLO, then STILL_ALIVE every BEAT seconds, and finally BYE. A guest that falls silent
is first marked as silent, then dropped; it is present again as soon as it answers again. What
guests send is checked.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from enum import Enum, auto

from boincvm.controller.protocol.guest import BEAT, Guest, check_guest
from boincvm.controller.protocol.selector import Selector
from boincvm.errors import GuestProtocolError

SILENT_AFTER = 30.0
DROPPED_AFTER = 90.0
MOST_GUESTS = 20_000
MOST_OF_ACCOUNT = 1000
"""Guests of one account: as many machines as a controller may have."""


class Presence(Enum):
    PRESENT = auto()
    SILENT = auto()


class Change(Enum):
    """A change in a guest's presence or description."""

    FOUND = auto()
    CHANGED = auto()
    """It sent another HELLO with a different description."""
    SILENT = auto()
    RECOVERED = auto()
    DROPPED = auto()
    LEFT = auto()
    ASLEEP = auto()
    """It has left and will come back in the same life."""


class _Entry:
    __slots__ = ("account", "guest", "last_seen", "presence")

    def __init__(self, guest: Guest, last_seen: float, account: str = "") -> None:
        self.guest = guest
        self.account = account
        self.last_seen = last_seen
        self.presence = Presence.PRESENT


class Registry:
    """The known guests. However many there are, one timer serves all, and a beat costs O(1)."""

    def __init__(
        self,
        notify: Callable[[Guest, Change], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Report changes to `notify`; `clock` returns seconds that never go back."""
        self._notify = notify
        self._clock = clock
        # Both are ordered by when the guests were last heard.
        self._present: OrderedDict[str, _Entry] = OrderedDict()
        self._silent: OrderedDict[str, _Entry] = OrderedDict()
        self._of_account: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._found = asyncio.Event()

    def __len__(self) -> int:
        return len(self._present) + len(self._silent)

    def get(self, guest_id: str) -> Guest | None:
        """Return the guest with that id, silent or not, or None if it is unknown."""
        entry = self._entry(guest_id)
        return entry.guest if entry else None

    def presence(self, guest_id: str) -> Presence | None:
        """Return whether that guest is present or silent, or None if it is unknown."""
        entry = self._entry(guest_id)
        return entry.presence if entry else None

    def _entry(self, guest_id: str) -> _Entry | None:
        return self._present.get(guest_id) or self._silent.get(guest_id)

    async def wait_for(self, guest_id: str) -> Guest:
        """Wait for the guest with that id and return it."""
        while True:
            guest = self.get(guest_id)
            if guest is not None:
                return guest
            await self._found.wait()

    def load(self, guests: Iterable[Guest]) -> None:
        """Add the guests that an earlier controller knew, as silent until they are heard."""
        for guest in guests:
            entry = _Entry(guest, self._clock())
            entry.presence = Presence.SILENT
            self._silent[guest.id] = entry

    def find(self, selector: Selector) -> list[Guest]:
        """Return all guests that a selector matches, including silent ones."""
        if selector.only is not None:
            guest = self.get(selector.only)
            return [guest] if guest else []
        return [guest for guest in self.all() if selector.matches(guest)]

    def all(self) -> list[Guest]:
        """Return all guests, including silent ones."""
        return [entry.guest for entry in (*self._present.values(), *self._silent.values())]

    # Messages from guests.

    def hello(self, guest: Guest, account: str = "") -> None:
        """Register a guest that has sent HELLO; doing so again is harmless.

        `account`: the one that it shares with other guests, if the broker names it. Raises
        GuestProtocolError.
        """
        check_guest(guest)
        entry = self._mark_alive(guest.id)
        if entry is None:
            if len(self) >= MOST_GUESTS:
                raise GuestProtocolError(f"there are {MOST_GUESTS} guests, which is the maximum")
            if account:
                if self._of_account[account] >= MOST_OF_ACCOUNT:
                    raise GuestProtocolError(f"{account} has {MOST_OF_ACCOUNT} guests already")
                self._of_account[account] += 1
            self._present[guest.id] = _Entry(guest, self._clock(), account)
            self._found.set()
            self._found = asyncio.Event()
            self._notify(guest, Change.FOUND)
        elif entry.guest != guest:
            entry.guest = guest
            self._notify(guest, Change.CHANGED)

    def still_alive(self, guest_id: str) -> bool:
        """Record a beat; return False if the guest is unknown and must be asked for its HELLO."""
        return self._mark_alive(guest_id) is not None

    def bye(self, guest_id: str, *, comes_back: bool = False) -> None:
        """Remove a guest that leaves. `comes_back`: the same life goes on later."""
        entry = self._present.pop(guest_id, None) or self._silent.pop(guest_id, None)
        if entry is not None:
            self._forget(entry)
            self._notify(entry.guest, Change.ASLEEP if comes_back else Change.LEFT)

    def _forget(self, entry: _Entry) -> None:
        if entry.account:
            self._of_account[entry.account] -= 1

    def _mark_alive(self, guest_id: str) -> _Entry | None:
        entry = self._present.get(guest_id)
        if entry is not None:
            entry.last_seen = self._clock()
            self._present.move_to_end(guest_id)
            return entry
        entry = self._silent.pop(guest_id, None)
        if entry is not None:
            entry.last_seen, entry.presence = self._clock(), Presence.PRESENT
            self._present[guest_id] = entry
            self._notify(entry.guest, Change.RECOVERED)
        return entry

    # Time.

    def check_silence(self) -> None:
        """Mark guests that have fallen silent, and drop those that were silent for too long."""
        now = self._clock()
        for entry in _older(self._present, now - SILENT_AFTER):
            entry.presence = Presence.SILENT
            self._silent[entry.guest.id] = entry
            self._notify(entry.guest, Change.SILENT)
        for entry in _older(self._silent, now - DROPPED_AFTER):
            self._forget(entry)
            self._notify(entry.guest, Change.DROPPED)

    def watch(self) -> None:
        """Look now, and regularly from now on until `close`."""
        self.check_silence()
        self._timer = asyncio.get_running_loop().call_later(BEAT / 2, self.watch)

    def close(self) -> None:
        """Stop the timer; calling this again is harmless."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _older(entries: OrderedDict[str, _Entry], than: float) -> list[_Entry]:
    """Remove and return the entries that were last heard at `than` or before."""
    found = []
    while entries:
        first = next(iter(entries.values()))
        if first.last_seen > than:
            break
        del entries[first.guest.id]
        found.append(first)
    return found
