"""What follows of a running command's standard input, the controller's side.

    CMD_INPUT {"cmd-id", "offset", "ends"}      and bytes of it, from `offset` on: to the guest
    CMD_INPUT_TAKEN {"cmd-id", "offset", "heard", "ends", "again"}
            from it: the program has taken what is before `offset`, the guest has what is before
            `heard`, `ends`: and the end of it; with `again`: say what follows once more

Offsets count from the beginning, with what came with CMD_RUN. Bytes that a guest has already are
dropped there, and none are passed over, so the program gets each once and in order.
"""

import asyncio
from collections.abc import Callable

from boincvm.controller.commands.command import Answer, Command
from boincvm.controller.protocol.commands import WINDOW
from boincvm.controller.protocol.messages import Word, encode_word
from boincvm.controller.protocol.output_log import OutputLog
from boincvm.errors import GuestProtocolError, UsageError


class CommandInput:
    """Of one command, to all its guests; kept until the slowest has it. `turn`: whoever gives
    input holds it, so that what was given at once stays together."""

    def __init__(self, begin: int) -> None:
        """`begin`: bytes that come with the request itself."""
        self._log = OutputLog(WINDOW)
        self._log.skip(begin)
        self._begin = begin
        self.has_end = False
        self.turn = asyncio.Lock()

    async def give(
        self, command: Command, data: bytes, say: Callable[[Answer], None], ends: bool
    ) -> None:
        """`say` tells a guest what it has not; waits for room. Raises UsageError."""
        if self.has_end:
            raise UsageError(f"the input of the command {command.id!r} has ended")
        left = memoryview(data)
        while wanting := [one for one in command.answers.values() if one.wants_input]:
            slowest = min(answer.input_taken for answer in wanting)
            piece = left[: max(slowest + WINDOW - self._log.end, 0)]
            left = left[len(piece) :]
            self._log.append(piece)
            self.has_end = ends and not left
            if piece or self.has_end:
                for answer in wanting:
                    say(answer)
            if not left:
                return
            await command.changed()

    def word(self, command_id: str, answer: Answer) -> bytes:
        """What the guest seems not to have; at least a question how far it is."""
        offset, data = self._log.read(max(answer.input_heard, self._begin), WINDOW)
        table = {"cmd-id": command_id, "offset": offset, "ends": self.has_end}
        return encode_word("CMD_INPUT", table, data)

    def is_whole(self, answer: Answer) -> bool:
        """Whether its program has all that was given so far."""
        return answer.input_taken == self._log.end and answer.input_ends == self.has_end

    def take(self, answer: Answer, word: Word) -> None:
        """A CMD_INPUT_TAKEN. Raises GuestProtocolError."""
        heard = word.whole("heard")
        taken = word.whole("offset", heard)
        if heard > self._log.end or (word.table.get("ends") is True and not self.has_end):
            raise GuestProtocolError("a guest has taken input that was not given")
        # An older word may come after a newer one.
        answer.input_heard = max(answer.input_heard, heard)
        answer.input_taken = max(answer.input_taken, taken)
        answer.input_ends = answer.input_ends or word.table.get("ends") is True
