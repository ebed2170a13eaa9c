"""What guests say of themselves on the bus, told to the registry.

A guest sends to `/topic/host.ID`, and hears what is sent to `/topic/guest.ID`. A body is a word,
and for some a space and a JSON object:

    HELLO {"name": "…", "host": "…", "labels": {"site": "cern"}, "capabilities": ["run"]}
    STILL_ALIVE        every BEAT seconds
    BYE
    HELLO_WANTED       to a guest: we have heard you, and do not know you
"""

import json
from collections import Counter
from collections.abc import Awaitable, Callable

from boincvm.bus.transport import Bus, Message
from boincvm.controller.registry import Guest, Registry
from boincvm.errors import GuestProtocolError

HOST, GUEST = "/topic/host.", "/topic/guest."
LONGEST = 64 << 10
"""Bytes of a description."""


class PresenceWords:
    """`counts`: what was heard, and what was not believed, by name. Words that it does not know
    are somebody else's."""

    def __init__(self, bus: Bus, registry: Registry) -> None:
        self._bus = bus
        self._registry = registry
        self._end: Callable[[], Awaitable[None]] | None = None
        self.counts: Counter[str] = Counter()

    async def open(self) -> None:
        """From now on the registry knows who is there. Raises BusError."""
        self._end = await self._bus.subscribe(f"{HOST}**", self._take)

    async def close(self) -> None:
        """Nothing is heard any more; again is harmless."""
        end, self._end = self._end, None
        if end is not None:
            await end()

    def _take(self, message: Message) -> None:
        guest_id = message.destination.removeprefix(HOST)
        if message.sender not in ("", guest_id):
            self.counts["lied about its id"] += 1
            return
        word, _, text = message.body.partition(b" ")
        try:
            if word == b"HELLO":
                self._registry.hello(described(guest_id, text))
            elif word == b"STILL_ALIVE":
                if not self._registry.still_alive(guest_id):
                    self._bus.post(GUEST + guest_id, {}, b"HELLO_WANTED")
            elif word == b"BYE":
                self._registry.bye(guest_id)
            else:
                return
        except GuestProtocolError:
            self.counts["made no sense"] += 1
        else:
            self.counts[word.decode()] += 1


def described(guest_id: str, text: bytes) -> Guest:
    """The guest that the JSON object describes. Raises GuestProtocolError."""
    try:
        table = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        raise GuestProtocolError(
            "a guest describes itself with something that is no JSON"
        ) from None
    if not isinstance(table, dict):
        raise GuestProtocolError("a guest describes itself with something that is no table")
    name, host = table.get("name", guest_id), table.get("host", "")
    labels, capabilities = table.get("labels", {}), table.get("capabilities", [])
    is_good = (
        isinstance(name, str)
        and isinstance(host, str)
        and isinstance(labels, dict)
        and all(isinstance(value, str) for value in labels.values())
        and isinstance(capabilities, list)
        and all(isinstance(one, str) for one in capabilities)
    )
    if not is_good:
        raise GuestProtocolError("a guest describes itself with words of another kind")
    return Guest(guest_id, name, host, labels, frozenset(capabilities))
