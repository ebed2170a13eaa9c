"""A guest on the bus: announces itself, beats, and runs what it is told to."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from boincvm.bus.client import StompBus
from boincvm.bus.transport import Message
from boincvm.controller.protocol.guest import BEAT, Guest
from boincvm.controller.protocol.messages import GUEST, HOST, decode_word, encode_word
from boincvm.errors import GuestProtocolError
from boincvm.node.command import Start
from boincvm.node.commands import GuestCommands
from boincvm.node.responder import Answerer, Verb


class BusGuest:
    """`commands`: those that it was given. `counts`: what was heard and made no sense."""

    def __init__(
        self,
        bus: StompBus,
        guest: Guest,
        start: Start,
        group: asyncio.TaskGroup,
        beat: float = BEAT,
        verbs: Mapping[str, Verb] | None = None,
        report: Callable[[], Mapping[str, object]] | None = None,
    ) -> None:
        """`guest.instance` is another one in each life. Programs are started by `start`, and
        awaited in `group`, as are `verbs`, which answer what is asked by name. `beat`: seconds.
        `report`: what is told of its state (report.py) with each beat."""
        self._bus = bus
        self._guest = guest
        self._report = report
        self._beat_interval = beat
        self.commands = GuestCommands(guest.instance, start, self._say, group)
        self._answerer = Answerer(guest.instance, verbs or {}, self._say, group)
        self._timer: asyncio.TimerHandle | None = None
        self._end: Callable[[], Awaitable[None]] | None = None
        self.counts: Counter[str] = Counter()

    async def open(self) -> None:
        """From now on it is there, and says so again on each connection. Raises BusError."""
        self._end = await self._bus.subscribe(GUEST + self._guest.id, self._take)
        self._bus.on_connected = self._say_hello
        self._say_hello()
        self._beat()

    async def close(self, *, comes_back: bool = False) -> None:
        """Says BYE, if anybody can hear it; again is harmless. What runs, runs on. `comes_back`:
        the same life goes on later, and its commands with it."""
        if self._timer is not None:
            self._timer.cancel()
        self._bus.on_connected = lambda: None
        end, self._end = self._end, None
        if end is not None:
            await end()
            self._say(encode_word("BYE", {"comes-back": True} if comes_back else None))

    def _say(self, body: bytes) -> None:
        self._bus.post(HOST + self._guest.id, {}, body)

    def _say_hello(self) -> None:
        guest = self._guest
        table: dict[str, object] = {
            "name": guest.name,
            "host": guest.host,
            "labels": dict(guest.labels),
            "capabilities": sorted(guest.capabilities),
            "instance": guest.instance,
        }
        self._say(encode_word("HELLO", table))
        self.say_state()

    def say_state(self) -> None:
        """At once: it is another one now."""
        if self._report is not None:
            self._say(encode_word("STATE", self._report()))

    def _beat(self) -> None:
        self._say(encode_word("STILL_ALIVE"))
        self.say_state()
        self.commands.beat()
        self._answerer.beat()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._beat_interval, self._beat)

    def _take(self, message: Message) -> None:
        try:
            word = decode_word(message.body)
            if word.name == "HELLO_WANTED":
                self._say_hello()
            elif word.name == "PING":
                self._say(encode_word("PONG", word.table))
            elif word.name.startswith("CMD_"):
                self.commands.take(word)
            elif word.name == "ASK":
                self._answerer.take(word)
            else:
                self._say(encode_word("AINT", {"word": word.name}))
        except GuestProtocolError:
            self.counts["made no sense"] += 1
