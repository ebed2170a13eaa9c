"""A machine's balloon, by QMP: how much memory the guest has, and its reports on it.

Sources: QEMU's docs/interop/virtio-balloon-stats.rst and qapi/machine.json.
"""

import time

from boincvm.hypervisor.contract import GuestMemory
from boincvm.hypervisor.qemu.command import BALLOON
from boincvm.hypervisor.qemu.monitor import Monitor

ASK_PERIOD = 5
"""Seconds between two reports of the guest."""
_PATH = f"/machine/peripheral/{BALLOON}"
_PERIOD: dict[str, object] = {"path": _PATH, "property": "guest-stats-polling-interval"}
_STATISTICS: dict[str, object] = {"path": _PATH, "property": "guest-stats"}
_UNKNOWN = 1 << 63
"""A value that the guest did not report is a 64-bit number with all bits set."""


class Balloon:
    """The balloon of a running QEMU. All methods may raise HypervisorError."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    async def set_size(self, size: int) -> None:
        """Set the guest's memory in bytes; the guest gives or takes the difference when it can."""
        await self._monitor.execute("balloon", {"value": size})

    async def ask_every(self, seconds: int) -> bool:
        """Have QEMU poll the guest at this interval, from now on if it did not; 0 means never.

        Returns True if it did already.
        """
        if await self._monitor.execute("qom-get", _PERIOD) == seconds:
            return True
        await self._monitor.execute("qom-set", {**_PERIOD, "value": seconds})
        return False

    async def statistics(self) -> GuestMemory | None:
        """Return the guest's last report, or None if there is no recent one.

        The guest may be paused, and it also reports on its own when it boots.
        """
        statistics = await self._monitor.execute("qom-get", _STATISTICS)
        balloon = await self._monitor.execute("query-balloon")
        if not isinstance(statistics, dict) or not isinstance(balloon, dict):
            return None
        available = int(statistics["stats"]["stat-available-memory"])
        at = float(statistics["last-update"])
        if time.time() > at + 2 * ASK_PERIOD or not 0 <= available < _UNKNOWN:
            return None
        return GuestMemory(int(balloon["actual"]), available, at)
