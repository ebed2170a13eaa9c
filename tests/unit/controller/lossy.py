"""A table of commands and guests, with a bus between them that loses what it is told to lose."""

import asyncio
import random
from collections.abc import Callable, Mapping

from boincvm.controller.command import Request
from boincvm.controller.commands import CommandTable
from boincvm.controller.guest_commands import GuestCommands
from boincvm.controller.registry import Guest
from boincvm.controller.words import decode_word
from boincvm.errors import ProgramStartError
from boincvm.guestlink.program import ProgramEnd

LIMIT = 20.0


class FakeProgram:
    """Says what it was made with, in pieces, as far as it has credit; then it ends, or waits."""

    def __init__(
        self, request: Request, output: Callable[[str, bytes], None], credit: int = 1000
    ) -> None:
        self._end: asyncio.Future[ProgramEnd] = asyncio.get_running_loop().create_future()
        self._output = output
        self._credit = credit
        self._left = b"".join(map(str.encode, request.argv[1:])) + request.stdin
        self._stays = request.argv[0] == "wait"
        if request.argv[0] == "missing":
            raise ProgramStartError("there is no such program")
        self._go_on()

    def _go_on(self) -> None:
        while self._left and self._credit > 0:
            piece, self._left = self._left[: self._credit], self._left[self._credit :]
            self._credit -= len(piece)
            self._output("stdout", piece)
        if not self._left and not self._stays:
            self._finish(3, None)

    def _finish(self, code: int | None, number: int | None) -> None:
        if not self._end.done():
            self._end.set_result(ProgramEnd(code, number, 0.5, 0.25, 4096, 0, 1))

    def grant(self, count: int) -> None:
        self._credit += count
        self._go_on()

    def signal(self, number: int) -> None:
        self._finish(None, number)

    async def wait(self) -> ProgramEnd:
        return await self._end


class Net:
    """`loses`: which share of all messages. `runs`: how often each guest has begun a program."""

    def __init__(self, names: list[str], tasks: asyncio.TaskGroup, seed: int = 0) -> None:
        self.loses = 0.0
        self.runs = dict.fromkeys(names, 0)
        self.programs: list[FakeProgram] = []
        self._random = random.Random(seed)
        self.now = 0.0
        self.table = CommandTable(self._to_guest, lambda: self.now)
        self._tasks = tasks
        self.guests = {name: Guest(name, name, instance="1") for name in names}
        self.ends: Mapping[str, GuestCommands] = {name: self.begin(name, "1") for name in names}

    def begin(self, name: str, instance: str) -> GuestCommands:
        def start(request: Request, output: Callable[[str, bytes], None]) -> FakeProgram:
            self.runs[name] += 1
            self.programs.append(FakeProgram(request, output))
            return self.programs[-1]

        return GuestCommands(instance, start, lambda body: self._to_host(name, body), self._tasks)

    def restart(self, name: str) -> None:
        """Another life of the guest, which has announced itself."""
        self.ends = {**self.ends, name: self.begin(name, "2")}
        self.guests[name] = self.guests[name]._replace(instance="2")
        self.table.guest_says_hello(self.guests[name])

    def _is_lost(self) -> bool:
        return self._random.random() < self.loses

    def _to_guest(self, name: str, body: bytes) -> None:
        if not self._is_lost():
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: self.ends[name].take(decode_word(body)))

    def _to_host(self, name: str, body: bytes) -> None:
        if not self._is_lost():
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: self.table.take(name, decode_word(body)))

    async def beat(self) -> None:
        """One of every guest's, and all that comes of it."""
        for name, end in self.ends.items():
            end.beat()
            self.table.guest_beats(name)
        await self.settle()

    async def settle(self) -> None:
        """Until nobody has anything to say."""
        for _ in range(500):
            await asyncio.sleep(0)
