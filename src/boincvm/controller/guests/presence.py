"""What guests say of themselves on the bus, told to the registry.

A guest sends to `/topic/host.ID`, and hears what is sent to `/topic/guest.ID`:

    HELLO {"name": "…", "host": "…", "labels": {"site": "cern"}, "capabilities": ["run"],
           "instance": "…"}
    STILL_ALIVE        every BEAT seconds
    BYE                or BYE {"comes-back": true}: the same life goes on later
    HELLO_WANTED       to a guest: we have heard you, and do not know you
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from boincvm.bus.transport import Bus, Message
from boincvm.controller.guests.registry import Registry
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.messages import GUEST, HOST, Word, belongs, decode_word
from boincvm.errors import GuestProtocolError

Others = Callable[[str, Word], None]
"""Takes a guest's id and a word; may raise GuestProtocolError."""


class PresenceWords:
    """`counts`: what was heard, and what was not believed, by name. `others` hears all words, once
    the registry knows them."""

    def __init__(
        self,
        bus: Bus,
        registry: Registry,
        others: Others = lambda _guest, _word: None,
        part: str = "",
    ) -> None:
        """`part`: only guests whose ids begin with it and a dot are heard."""
        self._bus = bus
        self._pattern = f"{HOST}{part}.**" if part else f"{HOST}**"
        self._others = others
        self._registry = registry
        self._end: Callable[[], Awaitable[None]] | None = None
        self.counts: Counter[str] = Counter()

    async def open(self) -> None:
        """From now on the registry knows who is there. Raises BusError."""
        self._end = await self._bus.subscribe(self._pattern, self._take)

    async def close(self) -> None:
        """Nothing is heard any more; again is harmless."""
        end, self._end = self._end, None
        if end is not None:
            await end()

    def _take(self, message: Message) -> None:
        guest_id = message.destination.removeprefix(HOST)
        # A host that was invited speaks for all of its machines.
        if message.sender and not belongs(guest_id, message.sender):
            self.counts["lied about its id"] += 1
            return
        try:
            word = decode_word(message.body)
            account = message.sender if message.sender != guest_id else ""
            is_known = self._hear(guest_id, word, account)
            self.counts[word.name if is_known else "other words"] += 1
            self._others(guest_id, word)
        except GuestProtocolError:
            self.counts["made no sense"] += 1

    def _hear(self, guest_id: str, word: Word, account: str) -> bool:
        """Whether it was about presence. Raises GuestProtocolError."""
        if word.name == "HELLO":
            self._registry.hello(described(guest_id, word.table), account)
        elif word.name == "STILL_ALIVE":
            if not self._registry.still_alive(guest_id):
                self._bus.post(GUEST + guest_id, {}, b"HELLO_WANTED")
        elif word.name == "BYE":
            self._registry.bye(guest_id, comes_back=word.table.get("comes-back") is True)
        else:
            return False
        return True


def described(guest_id: str, table: Mapping[str, object]) -> Guest:
    """The guest that a HELLO describes. Raises GuestProtocolError."""
    labels, capabilities = table.get("labels", {}), table.get("capabilities", [])
    if not isinstance(labels, dict) or not isinstance(capabilities, list):
        raise _nonsense()
    return Guest(
        guest_id,
        name=_text(table.get("name", guest_id)),
        host=_text(table.get("host", "")),
        labels={_text(name): _text(value) for name, value in labels.items()},
        capabilities=frozenset(map(_text, capabilities)),
        instance=_text(table.get("instance", "")),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _nonsense()
    return value


def _nonsense() -> GuestProtocolError:
    return GuestProtocolError("a guest describes itself with words of another kind")
