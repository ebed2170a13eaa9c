"""A client of the Chirp protocol (version 2), as in Debian's coop-computing-tools.

It authenticates as `unix`, which a server on the same host can check, or as `hostname`. Tickets,
Kerberos and Globus are not supported. After any error but ChirpRefusedError, and after
cancellation, a connection can only be closed.
"""

import asyncio
import contextlib
import ipaddress
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Self

from boincvm.chirp.protocol import (
    LONGEST_LINE,
    ChirpLostError,
    ChirpNonsenseError,
    ChirpRefusedError,
    ChirpStat,
    encoded,
    number,
    read_name,
    read_stat,
    request,
)
from boincvm.errors import UsageError
from boincvm.host.files import open_descriptor

METHODS = ("unix", "hostname")
TIMEOUT = 30.0
PIECE = 1 << 20
AHEAD = 4
"""Pieces that may be in transit at once."""
_BUFFER = 1 << 18
_DIGEST_RATE = 10 << 20
"""Bytes per second that a server digests at least."""
_MD5_BYTES = 16
_MOST_ENTRIES = 100_000
_CHALLENGE = re.compile(r"challenge\.[0-9]{1,10}\.[0-9]{1,10}")
_CHALLENGE_DIRECTORIES = ("/tmp", "/var/tmp")  # noqa: S108  # where servers put them


class ChirpClient:
    """One connection to a Chirp server."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout = timeout
        self.identity = ""
        """Our identity according to the server, such as `unix:jane`."""
        self.is_busy = False
        """True while a `read` or `write` is incomplete; no other request can be sent."""

    @classmethod
    async def open(
        cls, host: str, port: int, methods: Sequence[str] = METHODS, timeout: float = TIMEOUT
    ) -> Self:
        """Connect and authenticate; each wait takes at most `timeout` seconds.

        Raises ChirpLostError, ChirpNonsenseError, UsageError if the server accepts none of the
        methods.
        """
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(host, port, limit=_BUFFER)
        except (OSError, TimeoutError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error or "no answer"
            raise ChirpLostError(
                f"no Chirp server can be reached at {host}:{port}: {reason}",
                hint="is a chirp_server running there?",
            ) from None
        client = cls(reader, writer, timeout)
        try:
            await client._authenticate(methods, f"{host}:{port}")
        except BaseException:
            await client.close()
            raise
        return client

    async def close(self) -> None:
        """Close the connection; calling it again is harmless."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._writer.wait_closed()

    # The connection.

    async def _send(self, *pieces: bytes | memoryview) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                self._writer.writelines(pieces)
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise _lost(error) from None

    async def _line(self, timeout: float | None = None) -> bytes:
        try:
            async with asyncio.timeout(timeout or self._timeout):
                line = await self._reader.readuntil(b"\n")
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise _lost(error) from None
        except asyncio.LimitOverrunError:
            raise ChirpNonsenseError("a line that does not end") from None
        if len(line) > LONGEST_LINE:
            raise ChirpNonsenseError("a line that is too long")
        return line[:-1]

    async def _exactly(self, count: int) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._reader.readexactly(count)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise _lost(error) from None

    async def _answer(
        self, what: str, most: int | None = None, timeout: float | None = None
    ) -> int:
        line = await self._line(timeout)
        value = number(line) if most is None else number(line, most)
        if value < 0:
            raise ChirpRefusedError(value, what)
        return value

    # Authentication.

    async def _authenticate(self, methods: Sequence[str], where: str) -> None:
        for method in methods:
            if method == "unix" and not self._is_here():
                continue
            await self._send(method.encode() + b"\n")
            if not await self._yes():
                continue  # it does not support the method
            is_shown = await (self._show_user() if method == "unix" else self._yes())
            if is_shown and await self._yes():
                kind, who = await self._line(), await self._line()
                self.identity = f"{_shown(kind)}:{_shown(who)}"
                return
        raise UsageError(
            f"the Chirp server at {where} does not accept any proof of who we are",
            hint=f"it must accept one of these methods: {', '.join(methods)}",
        )

    async def _yes(self) -> bool:
        line = await self._line()
        if line not in (b"yes", b"no"):
            raise ChirpNonsenseError(f"{line[:40]!r} where yes or no was to come")
        return line == b"yes"

    def _is_here(self) -> bool:
        peer = self._writer.get_extra_info("peername")
        return ipaddress.ip_address(peer[0].partition("%")[0]).is_loopback

    async def _show_user(self) -> bool:
        """Create the file that the server demands as proof; return True if it accepts it.

        It is only created if it is new, has a challenge's name and is in a directory for temporary
        files.
        """
        path = Path((await self._line()).decode("utf-8", "replace"))
        is_fit = str(path.parent) in _CHALLENGE_DIRECTORIES and _CHALLENGE.fullmatch(path.name)
        if not is_fit:
            await self._send(b"no\n")
            return False
        try:
            os.close(open_descriptor(path, "x", follow_links=False, permissions=0o600))
        except OSError:
            await self._send(b"no\n")
            return False
        try:
            await self._send(b"yes\n")
            return await self._yes()
        finally:
            path.unlink(missing_ok=True)

    # Files. All of these raise ChirpLostError, ChirpNonsenseError, ChirpRefusedError.

    async def lstat(self, path: str) -> ChirpStat:
        """Return the status of a file, or of a symbolic link itself."""
        await self._send(request("lstat", encoded(path)))
        await self._answer(path)
        return read_stat(await self._line())

    async def open_file(self, path: str, flags: str, mode: int = 0o600) -> int:
        """Open a file and return its descriptor.

        `flags` are some of: r read, w write, c create, t truncate, x fail if it exists.
        """
        await self._send(request("open", encoded(path), flags, mode))
        descriptor = await self._answer(path, 1 << 31)
        read_stat(await self._line())
        return descriptor

    async def close_file(self, descriptor: int) -> None:
        await self._send(request("close", descriptor))
        await self._answer("close")

    async def read(self, descriptor: int, begin: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a file from `begin` to `end`, or to its own end if that is earlier."""
        self.is_busy = True
        asked: deque[int] = deque()
        at = begin
        while asked or at < end:
            while at < end and len(asked) < AHEAD:
                size = min(PIECE, end - at)
                await self._send(request("pread", descriptor, size, at))
                asked.append(size)
                at += size
            size = asked.popleft()
            count = await self._answer("pread", size)
            data = await self._exactly(count)
            if data:
                yield data
            if count < size:
                # The pieces already requested would leave a gap.
                await self._skip_replies(asked)
                if count == 0:
                    break
                at += count - size - sum(asked)
                asked.clear()
        self.is_busy = False

    async def _skip_replies(self, asked: Sequence[int]) -> None:
        for size in asked:
            await self._exactly(await self._answer("pread", size))

    async def write(self, descriptor: int, begin: int, pieces: AsyncIterator[bytes]) -> int:
        """Write the pieces from `begin` on; return the offset of their end."""
        self.is_busy = True
        unanswered: deque[tuple[int, memoryview]] = deque()
        at = begin
        async for piece in pieces:
            view = memoryview(piece)
            await self._request_write(descriptor, at, view)
            unanswered.append((at, view))
            at += len(view)
            while len(unanswered) >= AHEAD:
                await self._read_written(descriptor, unanswered)
        while unanswered:
            await self._read_written(descriptor, unanswered)
        self.is_busy = False
        return at

    async def _request_write(self, descriptor: int, at: int, view: memoryview) -> None:
        await self._send(request("pwrite", descriptor, len(view), at), view)

    async def _read_written(
        self, descriptor: int, unanswered: deque[tuple[int, memoryview]]
    ) -> None:
        at, view = unanswered.popleft()
        count = await self._answer("pwrite", len(view))
        if count < len(view):
            if count == 0:
                raise ChirpNonsenseError("nothing was written")
            await self._request_write(descriptor, at + count, view[count:])
            unanswered.append((at + count, view[count:]))

    async def md5(self, path: str, size: int) -> bytes:
        """Return a file's MD5; the larger `size`, the longer the server is given."""
        await self._send(request("md5", encoded(path)))
        patience = self._timeout + size / _DIGEST_RATE
        if await self._answer(path, _MD5_BYTES, patience) != _MD5_BYTES:
            raise ChirpNonsenseError("a digest of another length")
        return await self._exactly(_MD5_BYTES)

    async def list_directory(self, path: str) -> list[tuple[str, ChirpStat]]:
        """Return the entries of a directory, without `.` and `..`, sorted by name."""
        await self._send(request("getlongdir", encoded(path)))
        await self._answer(path)
        found: dict[str, ChirpStat] = {}
        while line := await self._line():
            name, description = read_name(line), read_stat(await self._line())
            if name in (".", ".."):
                continue
            if name in found or len(found) >= _MOST_ENTRIES:
                raise ChirpNonsenseError(
                    "a directory listing with duplicate names, or with too many"
                )
            found[name] = description
        return sorted(found.items())

    async def mkdir(self, path: str, mode: int = 0o700) -> None:
        await self._send(request("mkdir", encoded(path), mode))
        await self._answer(path)

    async def rename(self, path: str, other: str) -> None:
        await self._send(request("rename", encoded(path), encoded(other)))
        await self._answer(path)

    async def set_time(self, path: str, modified: int) -> None:
        """Set the times of access and modification, in seconds since 1970."""
        await self._send(request("utime", encoded(path), modified, modified))
        await self._answer(path)

    async def unlink(self, path: str) -> None:
        await self._send(request("unlink", encoded(path)))
        await self._answer(path)

    async def rmdir(self, path: str) -> None:
        await self._send(request("rmdir", encoded(path)))
        await self._answer(path)


def _lost(error: Exception) -> ChirpLostError:
    reason = "no answer" if isinstance(error, TimeoutError) else "the connection has ended"
    return ChirpLostError(f"the Chirp server is gone: {reason}")


def _shown(line: bytes) -> str:
    text = line[:200].decode("utf-8", "replace")
    return "".join(filter(str.isprintable, text))
