"""The host's end of the guest link: a STOMP 1.2 broker with one peer, the guest's agent.

Nothing that the guest sends is trusted. A frame that violates STOMP, a size limit or the order of
messages ends the link with GuestProtocolError, and affects nothing else on the host.
"""

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Self, cast

from boincvm.bus.stomp import LINK_VERSION, MAXIMUM_BODY, Frame, Parser, StompError, encode
from boincvm.errors import (
    GuestDiedError,
    GuestError,
    GuestHungError,
    GuestProtocolError,
    HostError,
)
from boincvm.guestlink.attach_frame import BEAT, attach_headers, beat_within, message_headers
from boincvm.guestlink.clone_identity import CloneIdentity
from boincvm.guestlink.display import printable
from boincvm.guestlink.guest_paths import ENVIRONMENT
from boincvm.guestlink.headers import number
from boincvm.guestlink.quiesce import HeldMessage, Phase, Quiescence
from boincvm.guestlink.state import LinkState
from boincvm.hypervisor.channel import Channel

MAXIMUM_QUEUED = 16 << 20
"""Most bytes to queue for a guest that does not read. Our own transfers never queue so many."""

Receiver = Callable[[str, Frame], None]
"""Called with each message of a call and its frame. If it raises StompError, ValueError or
KeyError, the guest is at fault and the link ends."""


class Call:
    """One request to the guest and all messages about it, in both directions.

    `lasts`: it may continue after a `quiesce`, in another process of the host.
    """

    def __init__(
        self, link: "GuestLink", number: int, receiver: Receiver, *, lasts: bool = False
    ) -> None:
        self._link = link
        self.number = number
        self.receiver = receiver
        self.lasts = lasts

    def send(self, message: str, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        """Send `message` to the guest; `drain` before sending much more."""
        self._link.send(message, str(self.number), headers or {}, body)

    def close(self) -> None:
        """Stop expecting messages; late ones from the guest are dropped."""
        self._link.forget(self.number)


class GuestLink(asyncio.Protocol):
    """A link made by `open`.

    `ready` is set when the guest's agent has answered for the first time, after a boot or to
    `attach`; `failure` is set once, when the link has ended.

    Between `quiesce` and `attach` the machine may be saved, and resumed by another process of the
    host. Messages sent meanwhile are held back, and are lost with this process.
    """

    def __init__(
        self,
        beat: float,
        attach_to: LinkState | None = None,
        *,
        attach_is_sent: bool = False,
        host_name: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.failure: asyncio.Future[GuestError] = loop.create_future()
        self.ready: asyncio.Future[None] = loop.create_future()
        self._parser = Parser()
        self._transport: asyncio.Transport | None = None
        self._beat = beat
        self._host_name = host_name
        self.environment: Mapping[str, str] = {**ENVIRONMENT, **(environment or {})}
        """What programs in the guest find, unless they are given something else."""
        self._is_connected = attach_to is not None
        self._quiescence = Quiescence(Phase.QUIET if attach_to else Phase.TALKING)
        self._attached = self._quiescence.ask(Phase.ATTACHING) if attach_is_sent else None
        self._calls: dict[int, Call] = {}
        self._next_call = attach_to.next_call if attach_to else 1
        self._first_held = self._next_call
        self._only_lasting = asyncio.Event()
        self._only_lasting.set()
        self._next_message = 2 if attach_is_sent else 1
        self._writable = asyncio.Event()
        self._writable.set()
        self._last_received = time.monotonic()
        self._silence_limit: float | None = None
        self._silence_timer: asyncio.TimerHandle | None = None

    @classmethod
    async def open(
        cls,
        channel: Channel,
        *,
        silence_limit: float | None = None,
        beat: float = BEAT,
        attach_to: Mapping[str, object] | None = None,
        attach_is_sent: bool = False,
        host_name: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Open a link on `channel`.

        The guest is asked for a heart-beat every `beat` seconds, and for several within
        `silence_limit` seconds. `attach_to`: the result of `state` before the machine was saved;
        its agent waits for the message `attach`, which it has been sent already (`attach_frame`) if
        `attach_is_sent`. `host_name`: for a guest that boots; empty for the image's own.
        `environment`: what the image adds to that of its programs. Raises HostError if `attach_to`
        is invalid.
        """
        wanted = beat_within(silence_limit, beat)
        state = None if attach_to is None else LinkState.read(attach_to)
        return await channel.connect(
            lambda: cls(
                wanted,
                state,
                attach_is_sent=attach_is_sent,
                host_name=host_name,
                environment=environment,
            )
        )

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._last_received = time.monotonic()
        try:
            for frame in self._parser.feed(data):
                self._handle(frame)
        except GuestProtocolError as error:
            self._fail(error)
        except (StompError, ValueError, KeyError, OverflowError) as error:
            reason = f"no {error} header" if isinstance(error, KeyError) else str(error)
            self._fail(_protocol_error(reason))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._fail(GuestDiedError("the guest closed its link"))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Messages from the guest.

    def _handle(self, frame: Frame) -> None:
        self._quiescence.check()
        if frame.command == "SEND":
            self._handle_message(frame)
        elif frame.command in ("CONNECT", "STOMP"):
            self._connect(frame)
        elif frame.command == "SUBSCRIBE":
            self._set_ready()
        else:
            raise StompError(f"an agent does not send {frame.command}")

    def _set_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _connect(self, frame: Frame) -> None:
        if self._is_connected:
            raise StompError("an agent connects only once")
        if "1.2" not in frame.headers["accept-version"].split(","):
            raise StompError("the agent does not speak STOMP 1.2")
        if frame.headers.get("link-version") != LINK_VERSION:
            raise GuestProtocolError(
                "the agent in the image is of another version of boincvm",
                hint="build the image again: boincvm image build, with the same options",
            )
        self._is_connected = True
        clock = {"clock-ns": str(time.time_ns())}
        if self._host_name:
            clock["host-name"] = self._host_name
        wanted = round(self._beat * 1000)
        self._write("CONNECTED", {"version": "1.2", "heart-beat": f"0,{wanted}", **clock})

    def _handle_message(self, frame: Frame) -> None:
        called = number(frame.headers, "call")
        call = self._calls.get(called)
        if call is not None:
            call.receiver(frame.headers["message"], frame)
        elif called == 0:
            self._quiescence.handle(frame.headers["message"], frame)
            if self._quiescence.phase is Phase.TALKING:
                self._set_ready()
        elif not 0 < called < self._next_call:
            raise StompError(f"there is no call {called}")

    # Messages to the guest.

    def call(self, receiver: Receiver, *, lasts: bool = False) -> Call:
        """Return a new call whose answers go to `receiver`."""
        call = Call(self, self._next_call, receiver, lasts=lasts)
        self._calls[call.number] = call
        self._next_call += 1
        self._see_what_lasts()
        return call

    def call_again(self, number: int, receiver: Receiver) -> Call:
        """Return a call that the previous host process left open. Raises HostError."""
        if number >= self._next_call or number in self._calls:
            raise HostError(
                f"the saved state has an invalid call {number}",
                hint="the saved machine cannot be used; let the task start over",
            )
        self._calls[number] = Call(self, number, receiver, lasts=True)
        return self._calls[number]

    def forget(self, number: int) -> None:
        self._calls.pop(number, None)
        self._see_what_lasts()

    def _see_what_lasts(self) -> None:
        if all(call.lasts for call in self._calls.values()):
            self._only_lasting.set()
        else:
            self._only_lasting.clear()

    def send(self, message: str, call: str, headers: dict[str, str], body: bytes = b"") -> None:
        """Send one message; its body is at most MAXIMUM_BODY bytes."""
        if len(body) > MAXIMUM_BODY:
            raise ValueError(f"a body of {len(body)} bytes")
        if self._quiescence.held is not None:
            self._quiescence.held.append(HeldMessage(message, call, headers, body))
            return
        self._write("MESSAGE", message_headers(self._next_message, message, call, headers), body)
        self._next_message += 1

    def _write(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(command, headers, body))
            if self._transport.get_write_buffer_size() > MAXIMUM_QUEUED:
                self._fail(_protocol_error("it requests answers and does not read them"))

    async def drain(self) -> None:
        """Wait until the guest has taken most of what was sent."""
        await self._writable.wait()

    def set_clock(self) -> None:
        """Set the guest's clock to ours: it stood still while the machine was paused."""
        self.send("clock", "0", {"clock-ns": str(time.time_ns())})

    def power_off(self) -> None:
        """Ask the guest to write out its disk and power off."""
        self.send("power-off", "0", {})

    # Saving and restoring.

    async def quiesce(self, limit: float | None, *, hold: bool = False) -> None:
        """Wait until the guest is quiet and has nothing more to send, so that it can be saved.

        File transfers finish first. Programs run on, held back by their full pipes, or are stopped
        until `attach` if `hold`. No heart-beats are expected. Raises GuestHungError if this takes
        more than `limit` seconds (`attach` lets the guest run then too), or the error that has
        ended the link.
        """
        try:
            async with asyncio.timeout(limit):
                await self._only_lasting.wait()
                self.send("quiesce", "0", {"hold": "1"} if hold else {})
                self._first_held = self._next_call
                await self._answer(self._quiescence.ask(Phase.QUIESCING))
        except TimeoutError:
            raise GuestHungError(
                f"the guest did not become quiet within {limit:g} s, so it cannot be saved"
            ) from None
        self.expect_beats(None)

    def held_messages(self, call: int) -> list[HeldMessage]:
        """Return the messages of a call that are held back because the guest is quiet."""
        return [message for message in self._quiescence.held or () if message.call == str(call)]

    def state(self) -> dict[str, object]:
        """Return the state for `attach_to`, in this process or another; the guest must be quiet."""
        return LinkState(self._next_call).table()

    async def attach(
        self,
        limit: float | None,
        identity: CloneIdentity | None = None,
        let_run: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Let a quiet guest run again, after `quiesce` or after `open` with `attach_to`.

        Programs that are expected must have been attached before. One that the guest has lost ends
        with an error. `identity`: for a machine that resumes from disk; if `attach` has been sent
        already, it has its own. `let_run`: for a machine that stays paused until its guest has been
        told.

        Raises GuestHungError if the guest says nothing for `limit` seconds, or the error that has
        ended the link.
        """
        held = self._quiescence.held or []
        answer, self._attached = self._attached, None
        if answer is None:
            answer = self._quiescence.ask(Phase.ATTACHING)
            self.send("attach", "0", attach_headers(self._beat, identity))
        for message in held:
            self.send(message.kind, message.call, message.headers, message.body)
        if let_run is not None:
            await let_run()
        try:
            async with asyncio.timeout(limit):
                calls = await self._answer(answer)
        except TimeoutError:
            raise GuestHungError(
                f"the restored guest did not answer within {limit:g} s",
                hint="give it more time, or let the task start over",
            ) from None
        lost = Frame("SEND", {"reason": str(errno.ESRCH)})
        for call in list(self._calls.values()):
            if call.number < self._first_held and call.number not in calls:
                call.receiver("lost", lost)

    async def _answer(self, answer: asyncio.Future[frozenset[int]]) -> frozenset[int]:
        await asyncio.wait((answer, self.failure), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise self.failure.result()

    # Heart-beats.

    def expect_beats(self, silence_limit: float | None) -> None:
        """Treat a guest that is silent for `silence_limit` seconds as hung from now on.

        None: it is paused or saved, and cannot speak.
        """
        self._silence_limit = silence_limit
        self._last_received = time.monotonic()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None
        if self._silence_limit is not None and not self.failure.done():
            wait = self._last_received + self._silence_limit - time.monotonic()
            loop = asyncio.get_running_loop()
            self._silence_timer = loop.call_later(max(wait, 0), self._check_silence)

    def _check_silence(self) -> None:
        limit = self._silence_limit
        if limit is not None and time.monotonic() - self._last_received >= limit:
            self._fail(
                GuestHungError(
                    f"the guest has been silent for {limit:g} s, so it counts as hung",
                    hint="give it more time with --silence-limit",
                )
            )
        else:
            self._set_timer()

    def _fail(self, error: GuestError) -> None:
        if not self.failure.done():
            self.failure.set_result(error)
        self.close()

    def close(self) -> None:
        """End the link without a message; the guest sees its port hang up."""
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None
        self._calls.clear()
        self._only_lasting.set()
        self._writable.set()
        if self._transport is not None:
            self._transport.abort()


def _protocol_error(reason: str) -> GuestProtocolError:
    return GuestProtocolError(
        f"the guest broke the protocol, so its link was cut: {printable(reason.encode())}",
        hint="the guest cannot be trusted any more; run the job again",
    )
