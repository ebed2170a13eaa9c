"""What tests of the controller's interfaces share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.controller.faces import Faces


@pytest.fixture
async def faces(tmp_path: Path) -> AsyncIterator[Faces]:
    """Run a controller that serves clients over TCP."""
    async with Faces.open(tmp_path) as made:
        await made.serve_tcp()
        yield made
