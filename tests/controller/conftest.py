"""What tests of the controller's interfaces share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from boincvm.controller.guests import other_hosts
from support.controller.faces import Faces
from support.controller.named_image import machines_can_be_created, named_image

__all__ = ["faces", "machines_can_be_created", "named_image", "short_pause"]


@pytest.fixture
async def faces(tmp_path: Path) -> AsyncIterator[Faces]:
    """Run a controller that serves clients over TCP."""
    async with Faces.open(tmp_path) as made:
        await made.serve_tcp()
        yield made


@pytest.fixture
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have lists of hosts read again soon after they were read, to save time."""
    monkeypatch.setattr(other_hosts, "PAUSE", 0.02)
