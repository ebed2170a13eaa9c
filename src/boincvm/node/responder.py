"""Answer the controller's requests to a node (controller/guests/requests.py), each only once."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping

from boincvm.controller.protocol.envelope import LONGEST_TABLE
from boincvm.controller.protocol.requests import (
    MOST_DATA,
    MOST_OPEN,
    Answer,
    Ask,
    AskTaken,
    Reply,
)
from boincvm.errors import (
    BoincvmError,
    GuestDiedError,
    GuestProtocolError,
    UsageError,
)

Verb = Callable[[Mapping[str, object], bytes], Awaitable[Reply]]
"""Takes a request's arguments, which are unchecked, and its data. May raise BoincvmError; any
other exception is a bug, and ends the guest's task group."""

MOST_ANSWERS = 1024
MOST_ANSWER_BYTES = 16 << 20
TAKEN_AFTER = 0.2
"""Seconds after which the controller is told that an answer takes longer."""
_REMEMBERED = 20_000
_OUR_SHARE = 4096


class Responder:
    """A node's end of requests.

    The last MOST_ANSWERS answers, and at most MOST_ANSWER_BYTES of them, are kept until the
    controller has received them; of older ones it is only known that they were given.
    """

    def __init__(
        self,
        instance: str,
        verbs: Mapping[str, Verb],
        send: Callable[[bytes], None],
        group: asyncio.TaskGroup,
    ) -> None:
        """Create a responder whose `verbs` run in `group`.

        `instance` differs in each life of the guest. `send` sends a message to the controller,
        which may be lost.
        """
        self._instance = instance
        self._verbs = verbs
        self._send = send
        self._group = group
        self._running: dict[str, asyncio.TimerHandle] = {}
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self._answer_bytes = 0
        self._forgotten: OrderedDict[str, None] = OrderedDict()

    def handle(self, ask: Ask) -> None:
        """Handle a request, which may be a repetition."""
        ask_id = ask.ask_id
        if ask.instance != self._instance:
            self._send(Answer(ask_id, GuestDiedError("the guest was restarted")).encode())
            return
        for name in ask.confirmed:
            self._forget(name)
        if ask_id in self._answers:
            self._send(self._answers[ask_id])
        elif ask_id in self._running:
            self._send_taken(ask_id)
        elif ask_id in self._forgotten:
            error = GuestProtocolError("the answer is no longer kept")
            self._send(Answer(ask_id, error).encode())
        elif ask.verb not in self._verbs:
            self._remember(
                Answer(ask_id, UsageError(f"the guest does not know the request {ask.verb!r}"))
            )
        elif len(self._running) >= MOST_OPEN:
            self._remember(Answer(ask_id, UsageError("the guest has too many requests to answer")))
        else:
            loop = asyncio.get_running_loop()
            self._running[ask_id] = loop.call_later(TAKEN_AFTER, self._send_taken, ask_id)
            self._group.create_task(self._run(ask))

    def beat(self) -> None:
        """Tell the controller which requests still run; it asks again for lost answers."""
        for ask_id in self._running:
            self._send_taken(ask_id)

    async def _run(self, ask: Ask) -> None:
        try:
            try:
                reply = await self._verbs[ask.verb](ask.arguments, ask.data)
            finally:
                self._running.pop(ask.ask_id).cancel()
            _check_size(reply)
            answer = Answer(ask.ask_id, reply)
        except BoincvmError as error:
            answer = Answer(ask.ask_id, error)
        self._remember(answer)

    def _send_taken(self, ask_id: str) -> None:
        self._send(AskTaken(ask_id).encode())

    def _remember(self, answer: Answer) -> None:
        body = answer.encode()
        self._answers[answer.ask_id] = body
        self._answer_bytes += len(body)
        while len(self._answers) > MOST_ANSWERS or self._answer_bytes > MOST_ANSWER_BYTES:
            self._forget(next(iter(self._answers)))
        self._send(body)

    def _forget(self, ask_id: str) -> None:
        answer = self._answers.pop(ask_id, None)
        if answer is None:
            return
        self._answer_bytes -= len(answer)
        self._forgotten[ask_id] = None
        while len(self._forgotten) > _REMEMBERED:
            self._forgotten.popitem(last=False)


def _check_size(reply: Reply) -> None:
    """Check that a reply fits into a message. Raises UsageError."""
    too_large = len(json.dumps(dict(reply.table))) > LONGEST_TABLE - _OUR_SHARE
    if too_large or len(reply.data) > MOST_DATA:
        raise UsageError("the guest's answer is too large for the bus", hint="ask for less")
