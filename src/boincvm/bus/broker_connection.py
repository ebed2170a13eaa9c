"""A peer's connection to the embedded broker: it checks each frame and carries it out."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from boincvm.bus.access import Account
from boincvm.bus.broker_subscription import QueueSubscription, TopicSubscription
from boincvm.bus.heart_beats import HeartBeats
from boincvm.bus.stomp import Frame, Parser, StompError
from boincvm.bus.topics import QUEUE, is_destination, is_pattern
from boincvm.bus.versions import VERSIONS, encode_frame, encode_lines, negotiate
from boincvm.errors import BusError

if TYPE_CHECKING:
    from boincvm.bus.broker import Broker

ACK_MODES = frozenset(("auto", "client", "client-individual"))
_OURS = frozenset(
    ("destination", "receipt", "transaction", "content-length", "sender", "subscription",
     "message-id", "ack")
)  # fmt: skip
"""Headers of a SEND that are not forwarded as the sender wrote them."""
_AT_ONCE = 64
"""Frames of a peer whose rate is limited that are handled before others have their turn."""

Subscription = TopicSubscription | QueueSubscription


class BrokerConnection(asyncio.Protocol):
    """A connection with one peer.

    Input from the wire never raises: the peer is told of a fault in an ERROR, and it is counted.
    """

    def __init__(self, broker: "Broker") -> None:
        self.broker = broker
        self.version = "1.2"
        self._has_room = True
        self._parser = Parser(broker.limits.body)
        self._transport: asyncio.Transport | None = None
        self._account: Account | None = None
        self._login_timer: asyncio.TimerHandle | None = None
        self._beats: HeartBeats | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._transactions: dict[str, list[Frame]] = {}
        self._allowance = 1.0
        self._allowance_at = 0.0
        self._read_timer: asyncio.TimerHandle | None = None
        self._backlog: list[Frame] = []

    @property
    def login(self) -> str | None:
        return self._account.login if self._account else None

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self.broker.admit(self):
            self._transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._allowance_at = loop.time()
        self._login_timer = loop.call_later(self.broker.limits.login, self._is_late)

    def connection_lost(self, _: Exception | None) -> None:
        self.broker.leave(self)
        for timer in (self._login_timer, self._read_timer):
            if timer is not None:
                timer.cancel()
        if self._beats is not None:
            self._beats.close()
        for name in tuple(self._subscriptions):
            self._subscriptions.pop(name).close()
        self._backlog.clear()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._beats is not None:
            self._beats.received()
        if self._transport is None or self._transport.is_closing():
            return
        try:
            self._backlog += self._parser.feed(data)
        except StompError as error:
            self._backlog += error.frames
            self._handle_backlog()
            if self.is_open:
                self._refuse(f"this is not STOMP: {error}")
        else:
            self._handle_backlog()

    def pause_writing(self) -> None:
        self._has_room = False

    def resume_writing(self) -> None:
        self._has_room = True
        for subscription in tuple(self._subscriptions.values()):
            if isinstance(subscription, QueueSubscription):
                subscription.queue.deliver()

    # To the peer.

    @property
    def is_open(self) -> bool:
        """Return True if the peer is connected and has not been refused."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_writable(self) -> bool:
        """Return True if the peer is connected and keeps up with reading."""
        return self.is_open and self._has_room

    def write(self, data: bytes) -> None:
        """Send data; drop a peer that does not read. Does nothing if the peer is gone."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > self.broker.limits.waiting:
            self.broker.counts["dropped: does not read"] += 1
            self._transport.abort()
            return
        self._transport.write(data)

    def _answer(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        self.write(encode_frame(self.version, command, headers, body))

    def _refuse(self, why: str, frame: Frame | None = None, **more: str) -> None:
        """Send an ERROR with the headers `more`, then disconnect."""
        self.broker.counts["refused"] += 1
        headers = {"message": why, **more}
        if frame is not None and "receipt" in frame.headers:
            headers["receipt-id"] = frame.headers["receipt"]
        self._answer("ERROR", headers)
        self.close()

    def close(self) -> None:
        """Close after sending what was written, if the peer reads it soon."""
        self._backlog.clear()
        if self._transport is None:
            return
        self._transport.close()
        if self._login_timer is not None:
            self._login_timer.cancel()
        loop = asyncio.get_running_loop()
        self._login_timer = loop.call_later(1.0, self._abort)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _is_late(self) -> None:
        self.broker.counts["refused: did not log in"] += 1
        self._abort()

    def _is_silent(self) -> None:
        self.broker.counts["dropped: silent"] += 1
        self._abort()

    # From the peer.

    def _handle_backlog(self) -> None:
        """Handle as many frames as the account may send now, then pause reading.

        A host that is slower than the account may send does so in turn with everything else.
        """
        is_limited = self._account is not None and self._account.frames is not None
        handled = 0
        for frame in self._backlog:
            if is_limited and handled == _AT_ONCE:
                self._read_later(0.0)
                break
            wait = self._must_wait()
            if wait > 0:
                self.broker.counts["slowed down"] += 1
                self._read_later(wait)
                break
            handled += 1
            self._handle(frame)
            if not self._backlog:  # the peer was refused
                return
        del self._backlog[:handled]

    def _must_wait(self) -> float:
        """Return the seconds until the account may send another frame.

        At most one second's worth of frames can be saved up.
        """
        rate = self._account.frames if self._account else None
        if rate is None:
            return 0.0
        now = asyncio.get_running_loop().time()
        allowance = self._allowance + (now - self._allowance_at) * rate
        self._allowance, self._allowance_at = min(allowance, max(rate, 1.0)), now
        if self._allowance < 1:
            return (1 - self._allowance) / rate
        self._allowance -= 1
        return 0.0

    def _read_later(self, wait: float) -> None:
        if self._transport is not None and self._read_timer is None:
            self._transport.pause_reading()
            loop = asyncio.get_running_loop()
            self._read_timer = loop.call_later(wait, self._read_on)

    def _read_on(self) -> None:
        self._read_timer = None
        if self._transport is None or self._transport.is_closing():
            return
        self._handle_backlog()
        if self._read_timer is None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _handle(self, frame: Frame) -> None:
        if self._account is None:
            if frame.command in ("CONNECT", "STOMP"):
                self._log_in(frame)
            else:
                self._refuse("log in first", frame)
            return
        verb = _VERBS.get(frame.command)
        if verb is None:
            self._refuse(f"{frame.command} is not allowed here", frame)
            return
        try:
            verb(self, frame)
        except KeyError as error:
            self._refuse(f"{frame.command} needs a header {error.args[0]}", frame)
            return
        except BusError as error:
            self._refuse(error.message, frame)
            return
        if "receipt" in frame.headers:
            self._answer("RECEIPT", {"receipt-id": frame.headers["receipt"]})
        if frame.command == "DISCONNECT":
            self.close()

    def _log_in(self, frame: Frame) -> None:
        version = negotiate(frame.headers.get("accept-version"))
        if version is None:
            self._refuse(
                "this broker speaks STOMP 1.0, 1.1 and 1.2", version=",".join(sorted(VERSIONS))
            )
            return
        login, passcode = frame.headers.get("login", ""), frame.headers.get("passcode", "")
        account = self.broker.accounts.verify(login, passcode)
        if account is None:
            self._refuse("the login or the passcode is wrong")
            return
        self.version = version
        self._parser.has_escapes = version != "1.0"
        ours = self.broker.limits.heart_beat
        self._beats = HeartBeats.agreed(
            frame.headers.get("heart-beat"), ours, lambda: self.write(b"\n"), self._is_silent
        )
        if self._beats is None:
            self._refuse("the heart-beat header is invalid")
            return
        if self._login_timer is not None:
            self._login_timer.cancel()
        self._account = account
        beats = f"{ours},{ours}"
        self._answer("CONNECTED", {"version": version, "heart-beat": beats, "server": "boincvm"})

    def _send(self, frame: Frame) -> None:
        transaction = frame.headers.get("transaction")
        destination = frame.headers["destination"]
        account = self._known_account()
        if not is_destination(destination):
            raise BusError(
                "nothing can be sent there: a destination begins with /topic/ or /queue/"
            )
        if not account.allows(account.may_send, destination):
            self.broker.counts["refused: may not send"] += 1
            raise BusError(f"{account.login} may not send to {destination}")
        if transaction is not None:
            self._stage(transaction, frame)
            return
        headers = {name: text for name, text in frame.headers.items() if name not in _OURS}
        headers["sender"] = account.login
        self.broker.publish(destination, headers, frame.body)
        self.broker.counts["messages"] += 1

    def _known_account(self) -> Account:
        if self._account is None:
            raise BusError("log in first")
        return self._account

    def _stage(self, transaction: str, frame: Frame) -> None:
        staged = self._transactions.get(transaction)
        if staged is None:
            raise BusError("that transaction has not begun")
        size = sum(len(staged_frame.body) for staged_frame in staged) + len(frame.body)
        if len(staged) >= self.broker.limits.staged or size > self.broker.limits.waiting:
            raise BusError("that transaction is too large")
        del frame.headers["transaction"]
        staged.append(frame)

    def _begin(self, frame: Frame) -> None:
        name = frame.headers["transaction"]
        if name in self._transactions or len(self._transactions) >= self.broker.limits.transactions:
            raise BusError("that transaction has already begun, or there are too many")
        self._transactions[name] = []

    def _commit(self, frame: Frame) -> None:
        for staged in self._transaction(frame):
            _VERBS[staged.command](self, staged)

    def _transaction(self, frame: Frame) -> list[Frame]:
        staged = self._transactions.pop(frame.headers["transaction"], None)
        if staged is None:
            raise BusError("that transaction has not begun")
        return staged

    def _subscribe(self, frame: Frame) -> None:
        pattern, mode = frame.headers["destination"], frame.headers.get("ack", "auto")
        name = self._subscription_name(frame)
        account = self._known_account()
        if not is_pattern(pattern) or mode not in ACK_MODES:
            raise BusError("this is not a valid subscription: check its destination and its ack")
        if not account.allows(account.may_subscribe, pattern):
            self.broker.counts["refused: may not subscribe"] += 1
            raise BusError(f"{account.login} may not subscribe to {pattern}")
        if name in self._subscriptions:
            raise BusError("there is already a subscription with that id")
        if len(self._subscriptions) >= self.broker.limits.subscriptions:
            raise BusError("there are too many subscriptions")
        header = frame.headers.get("id")
        line = encode_lines(self.version, {"subscription": header}) if header is not None else b""
        if pattern.startswith(QUEUE):
            self._subscriptions[name] = QueueSubscription(self, pattern, line, mode)
        else:
            self._subscriptions[name] = TopicSubscription(self, pattern, line, mode)
        self._subscriptions[name].open()

    def _subscription_name(self, frame: Frame) -> str:
        """Return the subscription id, or its destination if a STOMP 1.0 frame has none."""
        if self.version == "1.0" and "id" not in frame.headers:
            return "destination " + frame.headers["destination"]
        return "id " + frame.headers["id"]

    def _unsubscribe(self, frame: Frame) -> None:
        subscription = self._subscriptions.pop(self._subscription_name(frame), None)
        if subscription is None:
            raise BusError("there is no such subscription")
        subscription.close()

    def _acknowledge(self, frame: Frame) -> None:
        transaction = frame.headers.get("transaction")
        name = frame.headers["id" if self.version == "1.2" else "message-id"]
        if transaction is not None:
            self._stage(transaction, frame)
            return
        is_good, theirs = frame.command == "ACK", self._subscriptions.values()
        for subscription in theirs:
            if isinstance(subscription, QueueSubscription) and subscription.acknowledge(
                name, is_good=is_good
            ):
                return
        if not any(
            isinstance(subscription, TopicSubscription) and subscription.wants_answers
            for subscription in theirs
        ):
            raise BusError("no such message is waiting for an acknowledgement")

    def _disconnect(self, _: Frame) -> None:
        """Do nothing: the receipt is the answer."""


_VERBS: dict[str, Callable[[BrokerConnection, Frame], None]] = {
    "SEND": BrokerConnection._send,
    "SUBSCRIBE": BrokerConnection._subscribe,
    "UNSUBSCRIBE": BrokerConnection._unsubscribe,
    "ACK": BrokerConnection._acknowledge,
    "NACK": BrokerConnection._acknowledge,
    "BEGIN": BrokerConnection._begin,
    "COMMIT": BrokerConnection._commit,
    "ABORT": lambda connection, frame: connection._transaction(frame).clear(),
    "DISCONNECT": BrokerConnection._disconnect,
}
