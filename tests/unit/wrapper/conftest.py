"""What tests of the wrapper share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from support.host_slot import HostSlot


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[HostSlot]:
    """A client whose seconds are a tenth as long."""
    async with HostSlot(tmp_path, period=0.1) as slot:
        yield slot
