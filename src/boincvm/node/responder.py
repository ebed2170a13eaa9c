"""Answer what the controller asks a node (controller/guests/requests.py): each request once."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping

from boincvm.controller.protocol.messages import LONGEST_TABLE, Word, encode_word
from boincvm.controller.protocol.requests import LONGEST_ID, MOST_DATA, MOST_HEARD, MOST_OPEN, Reply
from boincvm.errors import (
    BoincvmError,
    GuestDiedError,
    GuestProtocolError,
    UsageError,
)

Verb = Callable[[Mapping[str, object], bytes], Awaitable[Reply]]
"""Takes a question's arguments, which may be anything, and its data. May raise BoincvmError;
anything else that it raises is a bug, and ends the guest's task group."""

MOST_ANSWERS = 1024
MOST_ANSWER_BYTES = 16 << 20
TAKEN_AFTER = 0.2
"""Seconds after which the controller hears that an answer takes longer."""
_REMEMBERED = 20_000
_OUR_SHARE = 4096
_LONGEST_ERROR = 1000


class Answerer:
    """`say` sends a message to the controller, and may lose it. The last MOST_ANSWERS answers
    are kept, MOST_ANSWER_BYTES of them at most, until the controller has heard them; of older
    ones it is known that they were given."""

    def __init__(
        self,
        instance: str,
        verbs: Mapping[str, Verb],
        say: Callable[[bytes], None],
        group: asyncio.TaskGroup,
    ) -> None:
        """`verbs` run in `group`; `instance` is another one in each life of the guest."""
        self._instance = instance
        self._verbs = verbs
        self._say = say
        self._group = group
        self._running: dict[str, asyncio.TimerHandle] = {}
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self._answer_bytes = 0
        self._forgotten: OrderedDict[str, None] = OrderedDict()

    def take(self, word: Word) -> None:
        """An ASK. Raises GuestProtocolError."""
        ask_id, verb = word.text("ask-id"), word.text("verb")
        arguments, heard = word.table.get("arguments", {}), word.table.get("heard", [])
        if (
            not isinstance(arguments, dict)
            or not isinstance(heard, list)
            or len(heard) > MOST_HEARD
            or max(len(ask_id), len(verb)) > LONGEST_ID
            or len(word.data) > MOST_DATA
        ):
            raise GuestProtocolError("a request on the bus makes no sense")
        if word.table.get("instance") != self._instance:
            self._say(_error(ask_id, GuestDiedError("the guest was started anew")))
            return
        for name in heard:
            if isinstance(name, str):
                self._forget(name)
        if ask_id in self._answers:
            self._say(self._answers[ask_id])
        elif ask_id in self._running:
            self._say_taken(ask_id)
        elif ask_id in self._forgotten:
            self._say(_error(ask_id, GuestProtocolError("the answer is not remembered any more")))
        elif verb not in self._verbs:
            self._keep(ask_id, _error(ask_id, UsageError(f"the guest knows no {verb!r}")))
        elif len(self._running) >= MOST_OPEN:
            self._keep(ask_id, _error(ask_id, UsageError("the guest has too much to answer")))
        else:
            loop = asyncio.get_running_loop()
            self._running[ask_id] = loop.call_later(TAKEN_AFTER, self._say_taken, ask_id)
            self._group.create_task(self._run(ask_id, verb, arguments, word.data))

    def beat(self) -> None:
        """Says which requests still run. Lost answers are asked for by the controller."""
        for ask_id in self._running:
            self._say_taken(ask_id)

    async def _run(
        self, ask_id: str, verb: str, arguments: Mapping[str, object], data: bytes
    ) -> None:
        try:
            try:
                answer = _answer(ask_id, await self._verbs[verb](arguments, data))
            finally:
                self._running.pop(ask_id).cancel()
        except BoincvmError as error:
            answer = _error(ask_id, error)
        self._keep(ask_id, answer)

    def _say_taken(self, ask_id: str) -> None:
        self._say(encode_word("ASK_TAKEN", {"ask-id": ask_id}))

    def _keep(self, ask_id: str, answer: bytes) -> None:
        self._answers[ask_id] = answer
        self._answer_bytes += len(answer)
        while len(self._answers) > MOST_ANSWERS or self._answer_bytes > MOST_ANSWER_BYTES:
            self._forget(next(iter(self._answers)))
        self._say(answer)

    def _forget(self, ask_id: str) -> None:
        answer = self._answers.pop(ask_id, None)
        if answer is None:
            return
        self._answer_bytes -= len(answer)
        self._forgotten[ask_id] = None
        while len(self._forgotten) > _REMEMBERED:
            self._forgotten.popitem(last=False)


def _answer(ask_id: str, reply: Reply) -> bytes:
    """Raises UsageError where it is too large for a word."""
    too_large = len(json.dumps(dict(reply.table))) > LONGEST_TABLE - _OUR_SHARE
    if too_large or len(reply.data) > MOST_DATA:
        raise UsageError("the guest's answer is too large for the bus", hint="ask for less")
    return encode_word("ANSWER", {"ask-id": ask_id, "result": dict(reply.table)}, reply.data)


def _error(ask_id: str, error: BoincvmError) -> bytes:
    told = {
        "message": error.message[:_LONGEST_ERROR],
        "hint": error.hint[:_LONGEST_ERROR],
        "code": int(error.exit_code),
    }
    return encode_word("ANSWER", {"ask-id": ask_id, "error": told})
