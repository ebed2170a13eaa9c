"""Send a request to one guest over the bus and get one answer, whatever is lost on the way.

An ASK is sent again after 1, 2, 4 … seconds until the guest has taken it, and at the guest's beats
and its HELLO until it is answered. The guest executes a request at most once in its life.
"""

import asyncio
import secrets
from collections import Counter, OrderedDict
from collections.abc import Mapping

from boincvm.controller.delivery import Delivery, Parcel
from boincvm.controller.protocol.envelope import LONGEST_TABLE, Send
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.requests import (
    MOST_CONFIRMED,
    MOST_DATA,
    MOST_OPEN,
    Answer,
    Ask,
    AskTaken,
    Reply,
)
from boincvm.errors import BoincvmError, GuestDiedError, UsageError
from boincvm.exit_codes import ExitCode

FIRST_WAIT = 1.0
_MOST_GONE = 20_000


class _Question(Parcel):
    def __init__(self, guest: Guest, ask_id: str, body: bytes) -> None:
        super().__init__(guest.id, guest.instance, ask_id)
        self._body = body
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def message(self) -> bytes:
        return self._body

    def give_up(self, why: str) -> None:
        self.fail(_lost(self.guest_id, why))

    def fail(self, error: BoincvmError) -> None:
        if not self.reply.done():
            self.reply.set_exception(error)


class Requester:
    """The controller's end of requests."""

    def __init__(self, send: Send) -> None:
        self._delivery: Delivery[_Question] = Delivery(send, FIRST_WAIT)
        self._confirmations: dict[str, list[str]] = {}  # answers to confirm, by guest
        self._gone: OrderedDict[str, str] = OrderedDict()  # why, by guest that has gone
        self._prefix = secrets.token_hex(8)
        self._number = 0
        self._is_closed = False
        self.counts: Counter[str] = Counter()
        """Answers that nobody waited for, by reason."""

    async def ask(
        self,
        guest: Guest,
        verb: str,
        arguments: Mapping[str, object] | None = None,
        data: bytes = b"",
        *,
        within: float | None = None,
    ) -> Reply:
        """Send a request to `guest`, to its present life only, and return its answer.

        `within`: seconds; None waits for as long as the guest may come back. A guest that answers
        too late may have executed the request all the same. Raises BoincvmError: the guest's
        error, of the class that has its exit code; GuestDiedError if the guest has left or was
        restarted; UsageError if the request is too large or too many are open.
        """
        question = self._open(guest, verb, arguments or {}, data)
        try:
            self._delivery.send(question)
            async with asyncio.timeout(within):
                return await question.reply
        except TimeoutError:
            raise BoincvmError(
                f"guest {guest.id} has not answered within {within:g} s",
                hint="check with `list` whether it is there; it may still do it",
                exit_code=ExitCode.GUEST_HUNG,
            ) from None
        finally:
            self._delivery.complete(question)
            if question.reply.done() and not question.reply.cancelled():
                question.reply.exception()  # marks it as retrieved, if another error came first

    def _open(
        self, guest: Guest, verb: str, arguments: Mapping[str, object], data: bytes
    ) -> _Question:
        if self._is_closed:
            raise _closed()
        if guest.id in self._gone:
            raise _lost(guest.id, self._gone[guest.id])
        if self._delivery.count(guest.id) >= MOST_OPEN:
            raise UsageError(f"guest {guest.id} has {MOST_OPEN} unanswered requests already")
        if len(data) > MOST_DATA:
            raise UsageError(f"a request with {len(data)} bytes; the maximum is {MOST_DATA}")
        self._number += 1
        ask_id = f"{self._prefix}-{self._number}"
        confirmed = tuple(self._confirmations.pop(guest.id, ()))
        try:
            body = Ask(ask_id, guest.instance, verb, arguments, confirmed, data).encode()
        except ValueError:
            raise UsageError(f"a request of more than {LONGEST_TABLE >> 10} KiB") from None
        question = _Question(guest, ask_id, body)
        self._delivery.add(question)
        return question

    # Messages from guests, and events.

    def handle(self, guest_id: str, message: AskTaken | Answer) -> None:
        """Handle a guest's message about a request."""
        question = self._delivery.get(guest_id, message.ask_id)
        if question is None:
            self.counts["not asked"] += 1  # late, repeated, or a lie
        elif isinstance(message, AskTaken):
            self._delivery.acknowledge(question)
        else:
            self._delivery.complete(question)
            if isinstance(message.outcome, BoincvmError):
                question.fail(message.outcome)
            elif not question.reply.done():
                question.reply.set_result(message.outcome)
            confirmed = self._confirmations.setdefault(guest_id, [])
            if len(confirmed) < MOST_CONFIRMED:
                confirmed.append(message.ask_id)

    def handle_beat(self, guest_id: str) -> None:
        """Send unanswered requests again: they or their answers may have been lost."""
        self._delivery.handle_beat(guest_id)

    def handle_hello(self, guest: Guest) -> None:
        """Handle that a guest has reconnected or was restarted."""
        self._gone.pop(guest.id, None)
        self._delivery.handle_hello(guest, "was restarted")

    def handle_loss(self, guest_id: str, why: str = "has left") -> None:
        """Stop waiting for a guest's answers, and send it no request until its next HELLO.

        `why` follows the guest's id in the error message.
        """
        self._confirmations.pop(guest_id, None)
        self._gone[guest_id] = why
        while len(self._gone) > _MOST_GONE:
            self._gone.popitem(last=False)
        self._delivery.handle_loss(guest_id, why)

    def close(self) -> None:
        """Fail all open requests and refuse new ones; calling this again is harmless."""
        self._is_closed = True
        for question in self._delivery.all():
            question.fail(_closed())
            self._delivery.complete(question)


def _lost(guest_id: str, why: str) -> GuestDiedError:
    return GuestDiedError(
        f"guest {guest_id} {why} before it answered",
        hint="it is unknown how far it got; ask again",
    )


def _closed() -> BoincvmError:
    return BoincvmError(
        "the controller is shutting down and sends no more requests to guests",
        exit_code=ExitCode.BUS,
    )
