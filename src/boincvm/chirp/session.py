"""A Chirp server that may go away and come back: what was interrupted is tried again."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from boincvm.chirp.client import METHODS, TIMEOUT, ChirpClient
from boincvm.chirp.protocol import ChirpLostError, ChirpRefusedError, ChirpUrl
from boincvm.errors import LimitError
from boincvm.exit_codes import ExitCode
from boincvm.sizes import format_size

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0

Done = TypeVar("Done")


class Access(NamedTuple):
    """How a server is used."""

    methods: Sequence[str] = METHODS
    """Methods by which we may authenticate."""
    timeout: float = TIMEOUT
    """Seconds that each wait may take."""
    patience: float = 60.0
    """Seconds without progress after which a lost server is given up."""
    most_bytes: int = 1 << 40
    """Limit for one copy."""
    most_files: int = 100_000
    """Limit for one copy."""


class ChirpSession:
    """A session with a server, for use in an `async with` block.

    The first connection must succeed immediately; later ones are retried for `patience` seconds.
    """

    def __init__(self, url: ChirpUrl, access: Access) -> None:
        self._url = url
        self._access = access
        self._client: ChirpClient | None = None
        self._wait = _FIRST_WAIT
        self._progressed_at = asyncio.get_running_loop().time()
        self._furthest = 0
        self._bytes_left = access.most_bytes
        self._files_left = access.most_files

    async def __aenter__(self) -> Self:
        await self.client()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._drop()

    async def client(self) -> ChirpClient:
        """Return a connection that is ready for requests. Raises as `ChirpClient.open`."""
        if self._client is not None and self._client.is_busy:
            await self._drop()
        if self._client is None:
            host, port, _ = self._url
            methods, timeout = self._access.methods, self._access.timeout
            self._client = await ChirpClient.open(host, port, methods, timeout)
        return self._client

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def progressed(self) -> None:
        """Note progress, so that `patience` begins again."""
        self._wait = _FIRST_WAIT
        self._progressed_at = asyncio.get_running_loop().time()

    def begin_file(self) -> None:
        """Begin a new file, to which `reached` refers."""
        self._furthest = 0

    def reached(self, offset: int) -> None:
        """Note progress if `offset` is further than any earlier try of this file came."""
        if offset > self._furthest:
            self._furthest = offset
            self.progressed()

    async def lost(self, error: ChirpLostError) -> None:
        """Wait before the next try; raise `error` if patience has run out."""
        await self._drop()
        loop = asyncio.get_running_loop()
        if loop.time() + self._wait - self._progressed_at > self._access.patience:
            raise error
        await asyncio.sleep(self._wait)
        self._wait = min(2 * self._wait, _LONGEST_WAIT)

    async def do(self, work: Callable[[ChirpClient], Awaitable[Done]]) -> Done:
        """Run `work`, which must be repeatable, until it succeeds.

        Raises what it raises, but ChirpLostError only when patience has run out.
        """
        while True:
            try:
                done = await work(await self.client())
            except ChirpLostError as error:
                await self.lost(error)
            except ChirpRefusedError:
                self.progressed()
                raise
            except BaseException:
                await self._drop()
                raise
            else:
                self.progressed()
                return done

    def count(self, size: int) -> None:
        """Count a file or directory of `size` bytes. Raises LimitError."""
        self.check(size)
        self._bytes_left -= size
        self._files_left -= 1

    def check(self, size: int) -> None:
        """Check that a file of `size` bytes is within the limits. Raises LimitError."""
        if self._bytes_left < size or self._files_left < 1:
            access = self._access
            raise LimitError(
                f"more than {format_size(access.most_bytes)} or {access.most_files} files",
                hint="copy less at once",
                exit_code=ExitCode.OUTPUT_FILE,
            )
