"""A guest that sends more than it may is read more slowly, and others are not."""

import asyncio

import pytest

from boincvm.controller.protocol.envelope import GUEST_FRAMES
from support.controller.faces import Faces

pytestmark = pytest.mark.timeout(60)
SECONDS = 2


async def test_a_flood_slows_down_nobody_else(tmp_path):
    async with Faces.open(tmp_path) as faces:
        await faces.serve_tcp()
        loud = await faces.add_guest("loud")
        await faces.add_guest("quiet")
        sent = int((1 + SECONDS) * GUEST_FRAMES)
        for _ in range(sent):
            loud.bus.post("/topic/host.loud", {}, b"NONSENSE {}")
        begin = asyncio.get_running_loop().time()
        answer = await faces.call("ping", vms="quiet", timeout=20.0)
        assert answer.result["answers"]["quiet"] is not None
        # However long that took, the other one's messages have not all been read before.
        assert faces.controller.hub.counts["unknown"] < sent
        # What it says after all that comes after all that.
        answer = await faces.call("ping", vms="loud", timeout=20.0)
        waited = asyncio.get_running_loop().time() - begin
        assert answer.result["answers"]["loud"] is not None
        assert faces.controller.hub.counts["unknown"] == sent
        assert waited > SECONDS * 0.9
