"""A machine's balloon, spoken to by QMP: how much memory the guest has, and what it says of it.

Facts: docs/interop/virtio-balloon-stats.rst and qapi/machine.json of QEMU.
"""

import time

from boincvm.hypervisor.contract import GuestMemory
from boincvm.hypervisor.qemu.command import BALLOON
from boincvm.hypervisor.qemu.monitor import Monitor

ASK_PERIOD = 5
"""Seconds between two answers of the guest."""
_PATH = f"/machine/peripheral/{BALLOON}"
_PERIOD: dict[str, object] = {"path": _PATH, "property": "guest-stats-polling-interval"}
_STATISTICS: dict[str, object] = {"path": _PATH, "property": "guest-stats"}
_UNKNOWN = 1 << 63
"""What the guest has not said is a number of 64 bits, all of them set."""


class Balloon:
    """Everything may raise HypervisorError."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    async def set_size(self, size: int) -> None:
        """Bytes; the guest gives or takes what that changes as soon as it can."""
        await self._monitor.execute("balloon", {"value": size})

    async def ask_every(self, seconds: int) -> bool:
        """QEMU asks the guest for its figures so often, and at once if it did not; 0: never.
        Whether it did."""
        if await self._monitor.execute("qom-get", _PERIOD) == seconds:
            return True
        await self._monitor.execute("qom-set", {**_PERIOD, "value": seconds})
        return False

    async def said(self) -> GuestMemory | None:
        """What the guest last said; None if nothing, or long ago: it may be paused, and says
        something of its own when it boots."""
        statistics = await self._monitor.execute("qom-get", _STATISTICS)
        balloon = await self._monitor.execute("query-balloon")
        if not isinstance(statistics, dict) or not isinstance(balloon, dict):
            return None
        available = int(statistics["stats"]["stat-available-memory"])
        at = float(statistics["last-update"])
        if time.time() > at + 2 * ASK_PERIOD or not 0 <= available < _UNKNOWN:
            return None
        return GuestMemory(int(balloon["actual"]), available, at)
