"""A requester and its guests, with a bus between them that loses, doubles and reorders."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from boincvm.controller.guests.requests import Requester
from boincvm.controller.protocol.envelope import unpack
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.messages import read_from_guest, read_to_guest
from boincvm.node.responder import Responder, Verb

LIMIT = 30.0


class AskNet:
    """A lossy bus between a requester and its guests.

    `loses`, `doubles`: the shares of all messages; `late`: the most turns of the event loop that
    one takes. `sent`: how many messages of each kind were sent.
    """

    def __init__(
        self, verbs: Mapping[str, Mapping[str, Verb]], tasks: asyncio.TaskGroup, seed: int = 0
    ) -> None:
        self.loses = self.doubles = 0.0
        self.late = 0
        self.sent: Counter[str] = Counter()
        self._news = asyncio.Event()
        self._random = random.Random(seed)
        self._tasks = tasks
        self._verbs = verbs
        self.requester = Requester(self._to_guest)
        self.guests = {name: Guest(name, name, instance="1") for name in verbs}
        self.ends = {name: self._begin(name, "1") for name in verbs}

    def _begin(self, name: str, instance: str) -> Responder:
        def send(body: bytes) -> None:
            self._send(body, lambda: self.requester.handle(name, read_from_guest(body)))

        return Responder(instance, self._verbs[name], send, self._tasks)

    def restart(self, name: str) -> Guest:
        """Restart the guest, announce it, and return it."""
        self.ends[name] = self._begin(name, "2")
        self.guests[name] = self.guests[name]._replace(instance="2")
        self.requester.handle_hello(self.guests[name])
        return self.guests[name]

    def _to_guest(self, name: str, body: bytes) -> None:
        self._send(body, lambda: self.ends[name].handle(read_to_guest(body)))

    def _send(self, body: bytes, take) -> None:  # type: ignore[no-untyped-def]
        self.sent[unpack(body).name] += 1
        self._news.set()
        for _ in range(2 if self._random.random() < self.doubles else 1):
            if self._random.random() >= self.loses:
                self._later(take, self._random.randint(0, self.late))

    def _later(self, take, turns: int) -> None:  # type: ignore[no-untyped-def]
        loop = asyncio.get_running_loop()
        loop.call_soon(take if turns == 0 else lambda: self._later(take, turns - 1))

    async def until_sent(self, name: str, count: int) -> None:
        while self.sent[name] < count:
            self._news.clear()
            await self._news.wait()

    async def beat(self) -> None:
        """Send a heartbeat of every guest and wait for all that follows."""
        for name, end in self.ends.items():
            end.beat()
            self.requester.handle_beat(name)
        await run_loop()

    async def beat_until(self, *tasks: asyncio.Future[object], lossy: int = 30) -> None:
        """Send heartbeats until all `tasks` are done; after `lossy` heartbeats nothing is lost."""
        for beat in range(10_000):
            if all(task.done() for task in tasks):
                return
            if beat >= lossy:
                self.loses = 0.0
            await self.beat()
        raise AssertionError("there is no end to it")


async def run_loop(turns: int = 50) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


@asynccontextmanager
async def ask_net(
    verbs: Mapping[str, Verb] | Mapping[str, Mapping[str, Verb]], seed: int = 0
) -> AsyncIterator[AskNet]:
    """Run the bus within the block; `verbs`: of the guest "g1", or of each guest by its name."""
    by_guest = verbs if all(isinstance(one, Mapping) for one in verbs.values()) else {"g1": verbs}
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        made = AskNet(by_guest, tasks, seed)  # type: ignore[arg-type]
        try:
            yield made
        finally:
            made.requester.close()
