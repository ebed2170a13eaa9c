"""A raw connection to a server under test, for what no good client would send."""

import asyncio

LIMIT = 20.0
"""Seconds that anything may take at most."""


class RawConnection:
    """A connection whose bytes the test chooses itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def is_closed(self) -> bool:
        """Wait until the server has closed the connection."""
        async with asyncio.timeout(LIMIT):
            try:
                while await self.reader.read(1 << 16):
                    pass
            except ConnectionError:
                pass
        return True

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass
