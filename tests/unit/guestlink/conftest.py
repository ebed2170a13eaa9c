"""What tests of the guest link share."""

from collections.abc import AsyncIterator

import pytest

from support.scripted_guest import Pair, linked


@pytest.fixture
async def guest_and_link() -> AsyncIterator[Pair]:
    async with linked() as ends:
        yield ends
