"""Why a machine of VirtualBox does not resume; tests/vm/virtualbox runs real ones."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from boincvm.errors import HypervisorError, HypervisorKilledError
from boincvm.hypervisor.contract import EndCause, MachineEnd, MachineSpec
from boincvm.hypervisor.virtualbox.home import Home
from boincvm.hypervisor.virtualbox.machine import VirtualBoxMachine
from boincvm.hypervisor.virtualbox.process import HeadlessProcess
from boincvm.hypervisor.virtualbox.vboxmanage import Version


def resuming(tmp_path: Path, end: MachineEnd) -> tuple[VirtualBoxMachine, Home]:
    """Return a machine whose process has ended before it had its memory, and what says so."""
    nowhere = tmp_path / "none"
    spec = MachineSpec(tmp_path, nowhere, nowhere, nowhere, memory=1 << 28, cpus=1)
    machine = VirtualBoxMachine(spec, Version(7, 2, 0))

    async def ended() -> MachineEnd:
        return end

    async def run(*_: str) -> str:
        return 'VMState="restoring"\n'

    child = SimpleNamespace(is_running=False, kill=lambda: None)
    machine._process = cast(HeadlessProcess, SimpleNamespace(child=child, ended=ended))
    return machine, cast(Home, SimpleNamespace(name="it", manage=SimpleNamespace(run=run)))


async def test_it_was_killed(tmp_path: Path) -> None:
    """What it resumes from is not at fault."""
    machine, home = resuming(tmp_path, MachineEnd(EndCause.KILLED, "a signal ended it"))
    with pytest.raises(HypervisorKilledError, match="did not resume: a signal ended it"):
        await machine._until_paused(home)


async def test_it_failed(tmp_path: Path) -> None:
    machine, home = resuming(tmp_path, MachineEnd(EndCause.FAILED, "its state is of no use"))
    with pytest.raises(HypervisorError, match="does not resume: its state is of no use") as failed:
        await machine._until_paused(home)
    assert not isinstance(failed.value, HypervisorKilledError)
