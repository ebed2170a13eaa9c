"""Requests to one guest over the bus, each answered once, whatever gets lost on the way.

The messages are in protocol/requests.py. An ASK is sent again after 1, 2, 4 … seconds until the
guest has taken it, and at the guest's beats and its HELLO until it is answered. A guest does what
it is asked at most once in its life, and `instance` says which life is meant.
"""

import asyncio
import secrets
from collections import Counter, OrderedDict
from collections.abc import Mapping

from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.messages import LONGEST_TABLE, Post, Word, encode_word
from boincvm.controller.protocol.requests import (
    MOST_DATA,
    MOST_HEARD,
    MOST_OPEN,
    Reply,
    read_answer,
)
from boincvm.errors import BoincvmError, GuestDiedError, UsageError
from boincvm.exit_codes import ExitCode

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
_MOST_GONE = 20_000


class _Question:
    def __init__(self, guest: Guest, ask_id: str, body: bytes) -> None:
        self.guest = guest
        self.id = ask_id
        self.body = body
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.wait = FIRST_WAIT
        self.timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def fail(self, error: BoincvmError) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


class Asker:
    """The controller's side. `counts`: what was heard and nobody had asked."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._open: dict[str, dict[str, _Question]] = {}  # by guest, then by the question's id
        self._heard: dict[str, list[str]] = {}  # what a guest has not been told yet, by guest
        self._gone: OrderedDict[str, str] = OrderedDict()  # why, by guest
        self._prefix = secrets.token_hex(8)
        self._number = 0
        self._is_closed = False
        self.counts: Counter[str] = Counter()

    async def ask(
        self,
        guest: Guest,
        verb: str,
        arguments: Mapping[str, object] | None = None,
        data: bytes = b"",
        *,
        within: float | None = None,
    ) -> Reply:
        """Asks `guest`, in this life of it and no other, and returns its answer.

        `within`: seconds; None waits as long as the guest may come back. A guest that is too late
        may have done it all the same. Raises BoincvmError: what the guest says, of the kind that
        has its exit code; GuestDiedError if it has left or was started anew; UsageError for what
        is too large or too much.
        """
        question = self._begin(guest, verb, arguments or {}, data)
        try:
            self._say(question)
            async with asyncio.timeout(within):
                return await question.reply
        except TimeoutError:
            raise BoincvmError(
                f"guest {guest.id} has not answered within {within:g} s",
                hint="see with `list` whether it is there; it may do it yet",
                exit_code=ExitCode.GUEST_HUNG,
            ) from None
        finally:
            self._end(question)

    def _begin(
        self, guest: Guest, verb: str, arguments: Mapping[str, object], data: bytes
    ) -> _Question:
        asked = self._open.get(guest.id, {})
        if self._is_closed:
            raise _closed()
        if guest.id in self._gone:
            raise _lost(guest.id, self._gone[guest.id])
        if len(asked) >= MOST_OPEN:
            raise UsageError(f"guest {guest.id} has {MOST_OPEN} requests to answer already")
        if len(data) > MOST_DATA:
            raise UsageError(f"a request with {len(data)} bytes, where {MOST_DATA} are the most")
        self._number += 1
        ask_id = f"{self._prefix}-{self._number}"
        table = {"ask-id": ask_id, "instance": guest.instance, "verb": verb}
        heard = self._heard.pop(guest.id, [])
        try:
            body = encode_word("ASK", {**table, "arguments": dict(arguments), "heard": heard}, data)
        except ValueError:
            raise UsageError(f"a request of more than {LONGEST_TABLE >> 10} KiB") from None
        question = _Question(guest, ask_id, body)
        self._open.setdefault(guest.id, {})[ask_id] = question
        return question

    def _say(self, question: _Question) -> None:
        self._post(question.guest.id, question.body)
        loop = asyncio.get_running_loop()
        question.timer = loop.call_later(question.wait, self._say, question)
        question.wait = min(2 * question.wait, LONGEST_WAIT)

    def _end(self, question: _Question) -> None:
        question.stop_timer()
        asked = self._open.get(question.guest.id, {})
        asked.pop(question.id, None)
        if not asked:
            self._open.pop(question.guest.id, None)
        if question.reply.done() and not question.reply.cancelled():
            question.reply.exception()  # looked at, if an error of another kind came first

    # What guests say, and what happens to them.

    def take(self, guest_id: str, word: Word) -> None:
        """An ANSWER or an ASK_TAKEN. Raises GuestProtocolError."""
        ask_id = word.text("ask-id")
        question = self._open.get(guest_id, {}).get(ask_id)
        if question is None or question.reply.done():
            self.counts["not asked"] += 1  # late, again, or a lie
            return
        if word.name == "ASK_TAKEN":
            question.stop_timer()
            return
        reply = read_answer(word)
        question.stop_timer()
        if isinstance(reply, BoincvmError):
            question.fail(reply)
        else:
            question.reply.set_result(reply)
        heard = self._heard.setdefault(guest_id, [])
        if len(heard) < MOST_HEARD:
            heard.append(ask_id)

    def guest_beats(self, guest_id: str) -> None:
        """What it has not answered may have been lost, or its answer."""
        for question in self._open.get(guest_id, {}).values():
            if not question.reply.done():
                self._post(guest_id, question.body)

    def guest_says_hello(self, guest: Guest) -> None:
        """It has connected again, or was started anew."""
        self._gone.pop(guest.id, None)
        for question in self._open.get(guest.id, {}).values():
            if question.guest.instance == guest.instance:
                if not question.reply.done():
                    self._post(guest.id, question.body)
            else:
                question.stop_timer()
                question.fail(_lost(guest.id, "was started anew"))

    def guest_is_lost(self, guest_id: str, why: str = "has left") -> None:
        """Its answers will not come, and it is not asked until it says HELLO. `why`: follows the
        guest's id in the error's message."""
        self._heard.pop(guest_id, None)
        self._gone[guest_id] = why
        while len(self._gone) > _MOST_GONE:
            self._gone.popitem(last=False)
        for question in self._open.get(guest_id, {}).values():
            question.stop_timer()
            question.fail(_lost(guest_id, why))

    def close(self) -> None:
        """Nobody is asked any more, and who waits is told; again is harmless."""
        self._is_closed = True
        for asked in self._open.values():
            for question in asked.values():
                question.stop_timer()
                question.fail(_closed())


def _lost(guest_id: str, why: str) -> GuestDiedError:
    return GuestDiedError(
        f"guest {guest_id} {why} before it had answered",
        hint="nobody knows how far it came; ask again",
    )


def _closed() -> BoincvmError:
    return BoincvmError("the controller ends and asks no guest any more", exit_code=ExitCode.BUS)
