"""A table of commands and guests, with a bus between them that loses messages as told."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from boincvm.controller.commands.command import OUTPUT_CAPACITY, Answer, Command
from boincvm.controller.commands.table import CommandTable
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.messages import read_from_guest, read_to_guest
from boincvm.controller.protocol.program import Request
from boincvm.errors import ProgramStartError
from boincvm.guestlink.program import ProgramEnd
from boincvm.node.command import Listener
from boincvm.node.commands import NodeCommands

LIMIT = 20.0


class FakeProgram:
    """A program that writes its arguments in pieces, as far as it has credit.

    Then it ends or waits; as "cat" it continues with its standard input until that ends. `untaken`:
    bytes of the input that it has not taken.
    """

    def __init__(self, request: Request, listener: Listener, credit: int = 1000) -> None:
        self._end: asyncio.Future[ProgramEnd] = asyncio.get_running_loop().create_future()
        self._listener = listener
        self._credit = credit
        self._input_ends = not request.keep_input
        self.untaken = 0
        self.most_untaken = 0
        self.granted = 0
        self.was_granted = asyncio.Event()
        self._left = b"".join(map(str.encode, request.argv[1:])) + request.stdin
        self._stays = request.argv[0] == "wait"
        self._echoes = request.argv[0] == "cat"
        if request.argv[0] == "missing":
            raise ProgramStartError("there is no such program")
        self._go_on()

    def _go_on(self) -> None:
        while self._left and self._credit > 0:
            piece, self._left = self._left[: self._credit], self._left[self._credit :]
            self._credit -= len(piece)
            self._listener.output("stdout", piece)
            if self._echoes and self.untaken:
                self.untaken -= len(piece)
                self._listener.input_taken(len(piece))
        if not self._left and not self._stays and self._input_ends:
            self._finish(3, None)

    def feed(self, data: bytes) -> None:
        self.untaken += len(data)
        self.most_untaken = max(self.untaken, self.most_untaken)
        if self._echoes:
            self._left += data
            asyncio.get_running_loop().call_soon(self._go_on)

    def end_input(self) -> None:
        self._input_ends = True
        asyncio.get_running_loop().call_soon(self._go_on)

    def _finish(self, code: int | None, number: int | None) -> None:
        if not self._end.done():
            self._end.set_result(ProgramEnd(code, number, 0.5, 0.25, 4096, 0, 1))

    def grant(self, count: int) -> None:
        self.granted += count
        self.was_granted.set()
        self._credit += count
        self._go_on()

    def signal(self, number: int) -> None:
        self._finish(None, number)

    async def wait(self) -> ProgramEnd:
        return await self._end


class Net:
    """A lossy bus between a table of commands and its guests.

    `loses`, `doubles`, `delays`: the shares of all messages; a delayed one arrives after later
    ones. `runs`: how often each guest has started a program.
    """

    def __init__(self, names: list[str], tasks: asyncio.TaskGroup, seed: int = 0) -> None:
        self.loses = self.doubles = self.delays = 0.0
        self.runs = dict.fromkeys(names, 0)
        self.programs: list[FakeProgram] = []
        self._random = random.Random(seed)
        self.now = 0.0
        self.table = CommandTable(self._to_guest, lambda: self.now)
        self._tasks = tasks
        self.guests = {name: Guest(name, name, instance="1") for name in names}
        self.ends: Mapping[str, NodeCommands] = {name: self.begin(name, "1") for name in names}

    def begin(self, name: str, instance: str) -> NodeCommands:
        def start(request: Request, listener: Listener) -> FakeProgram:
            self.runs[name] += 1
            self.programs.append(FakeProgram(request, listener))
            return self.programs[-1]

        return NodeCommands(instance, start, lambda body: self._to_host(name, body), self._tasks)

    def restart(self, name: str) -> None:
        """Restart the guest and announce it."""
        self.ends = {**self.ends, name: self.begin(name, "2")}
        self.guests[name] = self.guests[name]._replace(instance="2")
        self.table.handle_hello(self.guests[name])

    def _to_guest(self, name: str, body: bytes) -> None:
        self._carry(lambda: self.ends[name].handle(read_to_guest(body)))

    def _to_host(self, name: str, body: bytes) -> None:
        self._carry(lambda: self.table.handle(name, read_from_guest(body)))

    def _carry(self, deliver: Callable[[], None]) -> None:
        if self._random.random() < self.loses:
            return
        for _ in range(1 + (self._random.random() < self.doubles)):
            self._deliver(deliver, 5 if self._random.random() < self.delays else 0)

    def _deliver(self, deliver: Callable[[], None], turns: int) -> None:
        loop = asyncio.get_running_loop()
        if turns:
            loop.call_soon(self._deliver, deliver, turns - 1)
        else:
            loop.call_soon(deliver)

    async def beat(self) -> None:
        """Send a heartbeat of every guest and wait for all that follows."""
        for name, end in self.ends.items():
            end.beat()
            self.table.handle_beat(name)
        await self.run_until_idle()

    async def run_until_idle(self) -> None:
        """Wait until no message is left to be delivered."""
        for _ in range(500):
            await asyncio.sleep(0)


@asynccontextmanager
async def net(*names: str, seed: int = 0) -> AsyncIterator[Net]:
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        made = Net(list(names or ("g1",)), tasks, seed)
        try:
            yield made
        finally:
            await made.run_until_idle()
            for program in made.programs:
                program.signal(9)
            made.table.close()


def stdout(answer: Answer) -> bytes:
    return answer.outputs["stdout"].read(0, OUTPUT_CAPACITY)[1]


def states(command: Command) -> dict[str, str]:
    return {name: answer.state.name for name, answer in command.answers.items()}
