"""Transfer a file between controller and guest in pieces, several at a time."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from typing import NamedTuple, Self

from boincvm.controller.files.spool import Spooled
from boincvm.controller.guests.requests import Requester
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.requests import Reply
from boincvm.controller.protocol.transfer_rules import (
    MOST_MODE,
    PIECE,
    check_digest,
    check_kind,
    check_time,
    check_whole,
)
from boincvm.errors import BoincvmError, GuestProtocolError, OutputFileError, UsageError
from boincvm.tar_trees import MOST_BYTES

WINDOW = 8
"""Pieces of one transfer in flight at once, at most."""
MOST_ON_WAY = 128
"""Pieces of all transfers in flight at once; each transfer may have at least one."""
PATIENCE = 120.0
"""Seconds in which a guest must answer a message, however often the bus breaks meanwhile."""
_DROP_WITHIN = 30.0


class Ready(NamedTuple):
    """A file or tree that a guest has ready to send."""

    is_tree: bool
    mode: int
    size: int
    digest: str
    modified: int | None = None


class Traffic:
    """The state that all transfers share."""

    def __init__(self, requester: Requester) -> None:
        self.requester = requester
        self._active = 0
        self._dropping: set[asyncio.Task[None]] = set()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count one more active transfer for as long as the block lasts."""
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1

    @property
    def window(self) -> int:
        """Return how many pieces each transfer may have in flight."""
        return max(1, min(WINDOW, MOST_ON_WAY // max(self._active, 1)))

    def drop(self, transfer: "Transfer") -> None:
        """Tell the guest to drop a transfer; if the message is lost, the guest times out."""
        task = asyncio.ensure_future(transfer.drop())
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def close(self) -> None:
        """Stop telling guests to drop transfers; calling this again is harmless."""
        for task in self._dropping:
            task.cancel()
        await asyncio.gather(*self._dropping, return_exceptions=True)


class Transfer:
    """One transfer to or from one guest; with `is_resumable` it can continue later."""

    def __init__(
        self, traffic: Traffic, guest: Guest, transfer_id: str, *, is_resumable: bool
    ) -> None:
        self.traffic = traffic
        self.guest = guest
        self.id = transfer_id
        self._is_resumable = is_resumable

    async def _ask(
        self, verb: str, table: Mapping[str, object] | None = None, data: bytes = b""
    ) -> Reply:
        fields = {**(table or {}), "transfer": self.id}
        return await self.traffic.requester.ask(self.guest, verb, fields, data, within=PATIENCE)

    async def put(self, table: Mapping[str, object], content: Spooled) -> None:
        """Raises BoincvmError."""
        begun = await self._ask("file-put-begin", table)
        offsets = iter(range(_whole(begun, "offset", content.size), content.size, PIECE))

        async def send() -> None:
            for offset in offsets:  # shared by all senders
                data = content.read(offset, PIECE)
                await self._ask("file-put-piece", {"offset": offset}, data)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.traffic.window):
                    group.create_task(send())
        except* BoincvmError as errors:
            first = errors.exceptions[0]
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise first from None
        while (await self._ask("file-put-end")).table.get("is_done") is not True:
            pass  # the guest has not finished yet

    async def get_begin(self, path: str) -> Ready:
        """Wait until the file or tree is ready to be sent. Raises BoincvmError."""
        while True:
            table = (await self._ask("file-get-begin", {"path": path})).table
            if table.get("is_ready") is True:
                break
        try:
            is_tree, digest = check_kind(table.get("kind")), check_digest(table.get("digest"))
            mode = check_whole(table, "mode", MOST_MODE)
            size = check_whole(table, "size", MOST_BYTES)
            return Ready(is_tree, mode, size, digest, check_time(table))
        except UsageError as error:
            raise _nonsense(error) from None

    async def piece(self, offset: int, length: int) -> bytes:
        """Raises BoincvmError."""
        reply = await self._ask("file-get-piece", {"offset": offset})
        if reply.table.get("offset") != offset or len(reply.data) != length:
            raise GuestProtocolError(
                f"guest {self.guest.id} has sent an unexpected piece of a file"
            )
        return reply.data

    def end(self) -> None:
        """Drop the transfer unless it can continue later; calling this again is harmless."""
        if not self._is_resumable:
            self._is_resumable = True
            self.traffic.drop(self)

    def finish(self) -> None:
        """Drop the transfer even if it can continue later: everything has arrived."""
        self._is_resumable = False
        self.end()

    async def drop(self) -> None:
        try:
            async with asyncio.timeout(_DROP_WITHIN):
                await self._ask("file-drop")
        except (BoincvmError, TimeoutError):
            pass  # the guest times out


class Download:
    """The bytes of a transfer from `offset` on, in order; a few pieces are requested ahead."""

    def __init__(self, transfer: Transfer, ready: Ready, offset: int) -> None:
        self.digest = ready.digest
        """BLAKE2b of the whole content, 256 bits in hexadecimal."""
        self.transfer = transfer.id
        """The transfer's id."""
        self._from = transfer
        self._size = ready.size
        self._offset = offset
        self._pieces = self._generate()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await self._pieces.__anext__()

    async def aclose(self) -> None:
        """Stop; a transfer whose id the caller has chosen can continue later."""
        await self._pieces.aclose()
        self._from.end()

    async def _generate(self) -> AsyncGenerator[bytes, None]:
        traffic, hashed = self._from.traffic, blake2b(digest_size=32)
        on_way: deque[asyncio.Task[bytes]] = deque()
        offsets = iter(range(self._offset, self._size, PIECE))
        try:
            with traffic.at_work():
                while True:
                    while len(on_way) < traffic.window and (at := next(offsets, None)) is not None:
                        length = min(PIECE, self._size - at)
                        on_way.append(asyncio.ensure_future(self._from.piece(at, length)))
                    if not on_way:
                        break
                    data = await on_way.popleft()
                    hashed.update(data)
                    yield data
            self._from.finish()
            if self._offset == 0 and hashed.hexdigest() != self.digest:
                raise OutputFileError(
                    "what was received is not what the guest announced",
                    hint="get it again",
                )
        finally:
            for task in on_way:
                task.cancel()
            await asyncio.gather(*on_way, return_exceptions=True)
            self._from.end()


def _whole(reply: Reply, key: str, most: int) -> int:
    """Return a number from a guest's reply, once checked. Raises GuestProtocolError."""
    try:
        return check_whole(reply.table, key, most)
    except UsageError as error:
        raise _nonsense(error) from None


def _nonsense(error: UsageError) -> GuestProtocolError:
    return GuestProtocolError(f"a guest's answer is invalid: {error.message}")
