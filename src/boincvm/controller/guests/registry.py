"""The guests that have announced themselves, and whether they are still there.

A guest says HELLO, then STILL_ALIVE every BEAT seconds, at last BYE. One that falls silent is
marked, then dropped; when it is heard again it is there again. What guests say is checked.
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
"""As many machines as a controller has at most."""


class Presence(Enum):
    PRESENT = auto()
    SILENT = auto()


class Change(Enum):
    """What has happened to a guest."""

    FOUND = auto()
    CHANGED = auto()
    """It said HELLO once more, and described itself differently."""
    SILENT = auto()
    HEARD_AGAIN = auto()
    DROPPED = auto()
    LEFT = auto()
    ASLEEP = auto()
    """It has left, to come back in the same life."""


class _Entry:
    __slots__ = ("account", "guest", "heard", "presence")

    def __init__(self, guest: Guest, heard: float, account: str = "") -> None:
        self.guest = guest
        self.account = account
        self.heard = heard
        self.presence = Presence.PRESENT


class Registry:
    """The guests that are known. However many there are, there is one timer, and a beat
    costs the same."""

    def __init__(
        self,
        tell: Callable[[Guest, Change], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: seconds that never go back."""
        self._tell = tell
        self._clock = clock
        # Both in the order in which they were last heard.
        self._present: OrderedDict[str, _Entry] = OrderedDict()
        self._silent: OrderedDict[str, _Entry] = OrderedDict()
        self._of_account: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._found = asyncio.Event()

    def __len__(self) -> int:
        return len(self._present) + len(self._silent)

    def get(self, guest_id: str) -> Guest | None:
        """Return the guest with that id, silent or not; None where it is not known."""
        entry = self._entry(guest_id)
        return entry.guest if entry else None

    def presence(self, guest_id: str) -> Presence | None:
        """Return whether that guest is present or silent; None where it is not known."""
        entry = self._entry(guest_id)
        return entry.presence if entry else None

    def _entry(self, guest_id: str) -> _Entry | None:
        return self._present.get(guest_id) or self._silent.get(guest_id)

    async def wait_for(self, guest_id: str) -> Guest:
        """Wait for the guest with that id, and return it."""
        while True:
            guest = self.get(guest_id)
            if guest is not None:
                return guest
            await self._found.wait()

    def load(self, guests: Iterable[Guest]) -> None:
        """Take up those that a former life knew: silent until they are heard."""
        for guest in guests:
            entry = _Entry(guest, self._clock())
            entry.presence = Presence.SILENT
            self._silent[guest.id] = entry

    def find(self, selector: Selector) -> list[Guest]:
        """Return all that a selector matches, those that are silent too."""
        if selector.only is not None:
            guest = self.get(selector.only)
            return [guest] if guest else []
        entries = (*self._present.values(), *self._silent.values())
        return [entry.guest for entry in entries if selector.matches(entry.guest)]

    # What guests say.

    def hello(self, guest: Guest, account: str = "") -> None:
        """Again is harmless. `account`: that it shares with others, if the broker tells. Raises
        GuestProtocolError."""
        check_guest(guest)
        entry = self._hear(guest.id)
        if entry is None:
            if len(self) >= MOST_GUESTS:
                raise GuestProtocolError(f"there are {MOST_GUESTS} guests, and no room for more")
            if account:
                if self._of_account[account] >= MOST_OF_ACCOUNT:
                    raise GuestProtocolError(f"{account} has {MOST_OF_ACCOUNT} guests already")
                self._of_account[account] += 1
            self._present[guest.id] = _Entry(guest, self._clock(), account)
            self._found.set()
            self._found = asyncio.Event()
            self._tell(guest, Change.FOUND)
        elif entry.guest != guest:
            entry.guest = guest
            self._tell(guest, Change.CHANGED)

    def still_alive(self, guest_id: str) -> bool:
        """Notice a beat; tell whether the guest is known: else it is to be asked for its HELLO."""
        return self._hear(guest_id) is not None

    def bye(self, guest_id: str, *, comes_back: bool = False) -> None:
        """Forget a guest that leaves. `comes_back`: the same life goes on later."""
        entry = self._present.pop(guest_id, None) or self._silent.pop(guest_id, None)
        if entry is not None:
            self._forget(entry)
            self._tell(entry.guest, Change.ASLEEP if comes_back else Change.LEFT)

    def _forget(self, entry: _Entry) -> None:
        if entry.account:
            self._of_account[entry.account] -= 1

    def _hear(self, guest_id: str) -> _Entry | None:
        entry = self._present.get(guest_id)
        if entry is not None:
            entry.heard = self._clock()
            self._present.move_to_end(guest_id)
            return entry
        entry = self._silent.pop(guest_id, None)
        if entry is not None:
            entry.heard, entry.presence = self._clock(), Presence.PRESENT
            self._present[guest_id] = entry
            self._tell(entry.guest, Change.HEARD_AGAIN)
        return entry

    # The passing of time.

    def look(self) -> None:
        """Mark and drop those for which it is time."""
        now = self._clock()
        for entry in _older(self._present, now - SILENT_AFTER):
            entry.presence = Presence.SILENT
            self._silent[entry.guest.id] = entry
            self._tell(entry.guest, Change.SILENT)
        for entry in _older(self._silent, now - DROPPED_AFTER):
            self._forget(entry)
            self._tell(entry.guest, Change.DROPPED)

    def watch(self) -> None:
        """Call `look` from now on when it is time, until `close`."""
        self.look()
        self._timer = asyncio.get_running_loop().call_later(BEAT / 2, self.watch)

    def close(self) -> None:
        """Stop the timer; again is harmless."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _older(entries: OrderedDict[str, _Entry], than: float) -> list[_Entry]:
    """Take out those that were heard before, and return them."""
    found = []
    while entries:
        first = next(iter(entries.values()))
        if first.heard > than:
            break
        del entries[first.guest.id]
        found.append(first)
    return found
