"""What tests ask about machines of the real VirtualBox."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from boincvm.host import locks
from boincvm.host.process_tree import command_line
from boincvm.hypervisor.virtualbox.machine import VirtualBoxMachine
from boincvm.hypervisor.virtualbox.vboxmanage import parse_table
from boincvm.paths import cache_directory

MakeMachine = Callable[..., VirtualBoxMachine]


def services(home: Path) -> list[int]:
    """Return the processes that have `home` in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if os.fsencode(home) in (process / "environ").read_bytes():
                found.append(int(process.name))
        except (OSError, ValueError):
            continue
    return [one for one in found if command_line(one)]


def check_gone(home: Path) -> None:
    """Check that nothing is left of a VirtualBox. Another test may be removing it: then it holds
    it."""
    with suppress(FileNotFoundError), (home / "lock").open("rb") as held:
        locks.lock(held.fileno())
    with locks.exclusive(cache_directory() / "virtualbox/lock"):
        assert not home.exists()
    assert services(home) == []


async def reported(one: VirtualBoxMachine) -> dict[str, str]:
    assert one.home is not None
    output = await one.home.manage.run("showvminfo", one.home.name, "--machinereadable")
    return parse_table(output)
