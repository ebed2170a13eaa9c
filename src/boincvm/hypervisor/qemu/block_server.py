"""A server of one read-only disk to one QEMU, over a socket that only the two have.

It speaks the NBD protocol (the `proto.md` of the NBD project): the fixed newstyle handshake, and
simple replies. A client that does not keep to the protocol, or asks for too much, is cut off; what
a read-only disk cannot do is answered with an error.
"""

import asyncio
import errno
import socket
import struct
from contextlib import suppress

from boincvm.hypervisor.block_source import BlockSource
from boincvm.hypervisor.qemu.command import ROOT_EXPORT

_NAME = ROOT_EXPORT.encode("ascii")
"""Of the only disk; an empty name means it, too."""
LARGEST_READ = 1 << 20
"""Bytes of one request. The client is told, and splits what is more."""
_MOST_REQUESTS = 16
"""Requests that are answered at a time; more stay in the socket."""
_MOST_OPTIONS = 64
_LARGEST_OPTION = 4096
"""Bytes."""
_BLOCK = 4096
"""The size that reads best have."""

_GREETING = b"NBDMAGICIHAVEOPT"
_OPTION = struct.Struct(">8sII")
_OPTION_REPLY = struct.Struct(">QIII")
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_REQUEST = struct.Struct(">IHHQQI")
_REQUEST_MAGIC = 0x25609513
_REPLY = struct.Struct(">IIQ")
_REPLY_MAGIC = 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_HAS_FLAGS, _READ_ONLY, _CAN_MULTI_CONN = 1, 2, 256
_FLAGS = _HAS_FLAGS | _READ_ONLY | _CAN_MULTI_CONN
_EXPORT_NAME, _ABORT, _LIST, _INFO, _GO = 1, 2, 3, 6, 7
"""Options."""
_ACK, _SERVER, _INFORMATION = 1, 2, 3
_UNSUPPORTED, _INVALID, _UNKNOWN = (1 << 31) + 1, (1 << 31) + 3, (1 << 31) + 6
"""Types of replies to options."""
_INFO_EXPORT, _INFO_BLOCK_SIZE = 0, 3
_READ, _WRITE, _DISCONNECT, _TRIM, _CACHE, _WRITE_ZEROES = 0, 1, 2, 4, 5, 6
"""Requests."""
_CHANGING = (_WRITE, _TRIM, _WRITE_ZEROES)


class ProtocolError(Exception):
    """The client does not keep to the protocol, or asks for more than anybody needs."""


async def serve_blocks(connection: socket.socket, source: BlockSource) -> None:
    """Serve `source` until the client goes or is cut off; the connection is closed then.

    Raises ProtocolError.
    """
    try:
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection)
    except BaseException:
        connection.close()
        raise
    try:
        # A client may go at any time.
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            client = _Client(reader, writer, source)
            if await client.negotiate():
                await client.answer()
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


class _Client:
    """A client that has connected."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: BlockSource
    ) -> None:
        self._reader, self._writer = reader, writer
        self._source = source
        self._room = asyncio.Semaphore(_MOST_REQUESTS)
        self._turn = asyncio.Lock()
        """Held while a reply is written."""

    # The handshake.

    async def negotiate(self) -> bool:
        """Agree on what is served; return False if the client wants nothing of it."""
        self._writer.write(_GREETING + struct.pack(">H", _FIXED_NEWSTYLE | _NO_ZEROES))
        (flags,) = struct.unpack(">I", await self._reader.readexactly(4))
        if not flags & _FIXED_NEWSTYLE or flags & ~(_FIXED_NEWSTYLE | _NO_ZEROES):
            raise ProtocolError("its flags are unknown")
        for _ in range(_MOST_OPTIONS):
            magic, option, length = _OPTION.unpack(await self._reader.readexactly(_OPTION.size))
            if magic != b"IHAVEOPT" or length > _LARGEST_OPTION:
                raise ProtocolError("its option is invalid")
            data = await self._reader.readexactly(length)
            if option == _EXPORT_NAME:
                if not _is_ours(data):
                    return False
                zeros = b"" if flags & _NO_ZEROES else bytes(124)
                self._writer.write(struct.pack(">QH", self._source.size, _FLAGS) + zeros)
                return True
            if option == _ABORT:
                await self._reply_to(option, _ACK)
                return False
            if await self._handle_option(option, data) and option == _GO:
                return True
        raise ProtocolError("it sends options without end")

    async def _handle_option(self, option: int, data: bytes) -> bool:
        """Answer an option; return whether it was granted."""
        if option == _LIST and not data:
            await self._reply_to(option, _SERVER, struct.pack(">I", len(_NAME)) + _NAME)
        elif option in (_INFO, _GO):
            name_or_none = _name_in(data)
            if name_or_none is None or not _is_ours(name_or_none):
                await self._reply_to(option, _INVALID if name_or_none is None else _UNKNOWN)
                return False
            size = struct.pack(">HQH", _INFO_EXPORT, self._source.size, _FLAGS)
            sizes = struct.pack(">HIII", _INFO_BLOCK_SIZE, 1, _BLOCK, LARGEST_READ)
            await self._reply_to(option, _INFORMATION, size)
            await self._reply_to(option, _INFORMATION, sizes)
        else:
            await self._reply_to(option, _INVALID if option == _LIST else _UNSUPPORTED)
            return False
        await self._reply_to(option, _ACK)
        return True

    async def _reply_to(self, option: int, kind: int, data: bytes = b"") -> None:
        self._writer.write(_OPTION_REPLY.pack(_OPTION_REPLY_MAGIC, option, kind, len(data)) + data)
        await self._writer.drain()

    # The transmission.

    async def answer(self) -> None:
        """Answer requests until the client disconnects.

        Raises ProtocolError, ConnectionError, IncompleteReadError.
        """
        fault: Exception | None = None
        reads: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            try:
                while request := await self._next():
                    await self._room.acquire()
                    task = group.create_task(self._read(*request))
                    reads.add(task)
                    task.add_done_callback(reads.discard)
            except (ProtocolError, ConnectionError, asyncio.IncompleteReadError) as error:
                fault = error
            for task in reads:
                task.cancel()  # nobody waits for them any more
        if fault is not None:
            raise fault

    async def _next(self) -> tuple[int, int, int] | None:
        """Return the next valid read: handle, offset, length. None if the client has disconnected.

        Other requests are answered with an error.
        """
        while True:
            head = await self._reader.readexactly(_REQUEST.size)
            magic, flags, kind, handle, offset, length = _REQUEST.unpack(head)
            if magic != _REQUEST_MAGIC:
                raise ProtocolError("its request is invalid")
            if kind == _DISCONNECT:
                return None
            if kind == _WRITE:
                if length > LARGEST_READ:
                    raise ProtocolError("it writes too much")
                await self._reader.readexactly(length)
            if kind in _CHANGING:
                await self._reply(handle, errno.EPERM)
            elif (
                kind != _READ
                or flags
                or not 0 < length <= LARGEST_READ
                or offset + length > self._source.size
            ):
                await self._reply(handle, errno.EINVAL)
            else:
                return handle, offset, length

    async def _read(self, handle: int, offset: int, length: int) -> None:
        try:
            try:
                data = await self._source.read(offset, length)
            except OSError:
                data = b""
            code = 0 if len(data) == length else errno.EIO
            if code:
                data = b""
            with suppress(ConnectionError):  # `_next` notices that, too
                await self._reply(handle, code, data)
        finally:
            self._room.release()

    async def _reply(self, handle: int, code: int, data: bytes = b"") -> None:
        async with self._turn:
            self._writer.write(_REPLY.pack(_REPLY_MAGIC, code, handle) + data)
            await self._writer.drain()


def _is_ours(name: bytes) -> bool:
    return name in (b"", _NAME)


def _name_in(data: bytes) -> bytes | None:
    """Return the name in the data of INFO or GO, None if they are invalid."""
    if len(data) < 6:
        return None
    (length,) = struct.unpack_from(">I", data)
    if len(data) < 4 + length + 2:
        return None
    (count,) = struct.unpack_from(">H", data, 4 + length)
    return data[4 : 4 + length] if len(data) == 4 + length + 2 + 2 * count else None
