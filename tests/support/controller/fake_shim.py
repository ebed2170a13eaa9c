"""A shim with a fake machine; everything else is real.

    python -m support.controller.fake_shim DIRECTORY

The machine's label `fake` names a fault: `dies-in-VERB` is killed there, `hangs-in-VERB` never
finishes there, `refuses` does not start, `says-no-bye` leaves the bus without a word.
"""

import asyncio
import os
import signal
import sys
import time

from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import Checkpoint
from boincvm.job.model import MachineShape
from boincvm.machine.saved_machine import SavedMachine, next_number, write_saved
from boincvm.node.node import Node
from boincvm.shim import process
from boincvm.shim.machine import ShimMachine


class FakeMachine(ShimMachine):
    async def _come_to(self, verb: str) -> None:
        fault = self.definition.labels.get("fake", "")
        if fault == f"dies-in-{verb}":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == f"hangs-in-{verb}":
            await asyncio.get_running_loop().create_future()

    async def begin(self, snapshot: str | None) -> None:
        if self.definition.labels.get("fake") == "refuses":
            raise HypervisorError("there is no hypervisor for it")
        await self._come_to("start")
        goes_on = snapshot is not None or self.status.saved is not None
        self._set(VmState.RESTORING if goes_on else VmState.STARTING, started_at=time.time())
        if snapshot is not None:
            self.snapshots.find(snapshot)
        self._is_up = True
        self.come_up("none", (), frozenset())

    async def until_over(self) -> None:
        await self._over

    async def pause(self) -> None:
        self._set(VmState.PAUSED)
        await self._come_to("pause")

    async def resume(self) -> None:
        self._set(VmState.RUNNING)

    async def save(self) -> None:
        self._set(VmState.SAVING)
        await self._come_to("save")
        self._finish(VmState.SAVED, saved=self._write_checkpoint().checkpoint.number)

    async def snapshot(self, name: str | None, description: str) -> tuple[str, SavedMachine]:
        chosen = self.snapshots.choose_name(name, description)
        saved = self._write_checkpoint()
        self.snapshots.add(chosen, description, saved, [])
        return chosen, saved

    def _write_checkpoint(self) -> SavedMachine:
        made = Checkpoint(next_number(self.directory.disk), {}, {})
        saved = SavedMachine(made, "qemu", "none", MachineShape(), {}, (), None)
        write_saved(self.directory.disk, saved)
        return saved

    async def stop(self, within: float) -> None:
        await self._come_to("stop")
        await self.power_off()

    def remove_snapshot(self, name: str) -> None:
        self.snapshots.remove(name, frozenset(), self.status.saved)


async def _send_bye(guest: Node, machine: ShimMachine) -> None:
    if machine.definition.labels.get("fake") != "says-no-bye":
        await guest.close()


if __name__ == "__main__":
    process._send_bye = _send_bye
    process.ShimMachine = FakeMachine  # type: ignore[misc]
    sys.exit(process.main())
