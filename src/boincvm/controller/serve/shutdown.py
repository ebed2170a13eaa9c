"""End streams that go on until their client leaves or the server stops."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from boincvm.controller.serve.bodies import error_table


class Shutdown:
    """The shutdown of a server: it ends all blocks of `until`, open ones and later ones."""

    def __init__(self) -> None:
        self._open: set[asyncio.Timeout] = set()
        self.is_now = False

    @asynccontextmanager
    async def until(self) -> AsyncIterator[asyncio.Timeout]:
        """Run a block until the shutdown, or until `stop` is called with the yielded value.

        Execution then continues after the block.
        """
        try:
            async with asyncio.timeout(0 if self.is_now else None) as limit:
                self._open.add(limit)
                try:
                    yield limit
                finally:
                    self._open.discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise

    def end(self) -> None:
        """End all blocks now; calling this again is harmless."""
        self.is_now = True
        for limit in list(self._open):
            stop(limit)


def stop(limit: asyncio.Timeout) -> None:
    """End a block of `Shutdown.until`, unless it has ended."""
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())


class Flow(Response):
    """A response whose body is streamed, as fast as the client reads it.

    If the stream fails, the client sees an incomplete body; with `is_whole`, also if the server
    stops, because a part of the body would be useless.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        shutdown: Shutdown,
        media_type: str,
        headers: dict[str, str] | None = None,
        *,
        is_whole: bool = False,
    ) -> None:
        super().__init__(None, media_type=media_type)
        del self.headers["content-length"]
        self.headers.update(headers or {})
        self._pieces = pieces
        self._shutdown = shutdown
        self._is_whole = is_whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = {"status": self.status_code, "headers": self.raw_headers}
        has_ended = False
        async with aclosing(self._pieces) as pieces, self._shutdown.until() as limit:
            await send({"type": "http.response.start", **head})
            if scope["method"] == "HEAD":
                stop(limit)
            gone = asyncio.ensure_future(_until_gone(receive, limit))
            try:
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                has_ended = True
            except Exception as error:  # the client cannot be told any more
                error_table(error)
                return
            finally:
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
        if has_ended or not self._is_whole or scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive, limit: asyncio.Timeout) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stop(limit)
