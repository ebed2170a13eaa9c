"""Fixtures of the wrapper's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from support.host_slot import HostSlot


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[HostSlot]:
    """Return a slot whose client's seconds take a tenth of a second."""
    async with HostSlot(tmp_path, period=0.1) as slot:
        yield slot
