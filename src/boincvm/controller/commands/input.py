"""Give a running command more standard input: the controller's end."""

import asyncio
from collections.abc import Callable

from boincvm.controller.commands.command import Answer, Command
from boincvm.controller.protocol.commands import WINDOW, GiveInput, InputTaken
from boincvm.controller.protocol.output_log import OutputLog
from boincvm.errors import GuestProtocolError, UsageError


class InputFeed:
    """The input of one command for all its guests, kept until the slowest has received it."""

    def __init__(self, begin: int) -> None:
        """Start after the first `begin` bytes, which are part of the request itself."""
        self._log = OutputLog(WINDOW)
        self._log.skip(begin)
        self._begin = begin
        self.has_end = False
        self.turn = asyncio.Lock()
        """Held while input is given, so that the data of one call stays together."""

    async def give(
        self, command: Command, data: bytes, send: Callable[[Answer], None], ends: bool
    ) -> None:
        """Give `data` to all guests, waiting for room. Raises UsageError.

        `send` sends a guest the input that it does not have yet.
        """
        if self.has_end:
            raise UsageError(f"the input of the command {command.id!r} has ended")
        left = memoryview(data)
        while wanting := [answer for answer in command.answers.values() if answer.wants_input]:
            slowest = min(answer.input_taken for answer in wanting)
            piece = left[: max(slowest + WINDOW - self._log.end, 0)]
            left = left[len(piece) :]
            self._log.append(piece)
            self.has_end = ends and not left
            if piece or self.has_end:
                for answer in wanting:
                    send(answer)
            if not left:
                return
            await command.changed()

    def message(self, command_id: str, answer: Answer) -> GiveInput:
        """Return what the guest seems to lack; without data the message asks how much it has."""
        offset, data = self._log.read(max(answer.input_confirmed, self._begin), WINDOW)
        return GiveInput(command_id, offset, self.has_end, data)

    def is_whole(self, answer: Answer) -> bool:
        """Tell whether a guest's program has all the input given so far."""
        return answer.input_taken == self._log.end and answer.input_ends == self.has_end

    def handle(self, answer: Answer, message: InputTaken) -> None:
        """Record how much input a guest has taken. Raises GuestProtocolError."""
        if message.received > self._log.end or (message.ends and not self.has_end):
            raise GuestProtocolError("a guest acknowledged input that was not sent")
        # Messages may arrive out of order.
        answer.input_confirmed = max(answer.input_confirmed, message.received)
        answer.input_taken = max(answer.input_taken, message.taken)
        answer.input_ends = answer.input_ends or message.ends
