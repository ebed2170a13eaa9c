"""A copy of a golden snapshot is saved and resumes, as a task's machine does."""

from pathlib import Path

import pytest

from boincvm.guestlink.clone_identity import clone_identity
from boincvm.guestlink.link import GuestLink
from boincvm.host.process_tree import command_line
from boincvm.hypervisor.contract import Checkpoint, MachineSpec
from boincvm.hypervisor.qemu.command import CPUS
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.hypervisor.qemu.target import Target
from support.booted import LIMIT, Listener, booted, restored, save, spec_in

pytestmark = pytest.mark.timeout(200)
COUNTS = """
import time
number = 0
while True:
    print(number)
    number += 1
    time.sleep(0.001)
"""


async def freeze(driver: QemuDriver, spec: MachineSpec) -> dict[str, object]:
    """Make `spec.directory` a golden snapshot; return its guest link's state."""
    machine = driver.golden_snapshots.machine(spec)
    try:
        link = await GuestLink.open(await machine.start(), silence_limit=LIMIT)
        await link.ready
        await link.quiesce(LIMIT)
        state = link.state()
        await machine.freeze()
        link.close()
    finally:
        await machine.stop()
    return state


async def run_on(listener: Listener) -> None:
    """Wait until the program has written more."""
    had = len(listener.output["stdout"])
    await listener.until(lambda: len(listener.output["stdout"]) > had + 500)


@pytest.mark.parametrize("balloon", [False, True])
async def test_a_copy_is_kept_and_goes_on_twice(
    base_image: Path, tmp_path: Path, *, balloon: bool
) -> None:
    """Its state has no configuration section, unlike that of a booted machine."""
    driver, listener = QemuDriver("tcg"), Listener()
    golden = spec_in(tmp_path / "golden", base_image)._replace(balloon=balloon)
    link_state = await freeze(driver, golden)
    spec = spec_in(tmp_path / "machine", base_image)._replace(balloon=balloon)
    machine = driver.golden_snapshots.clone(spec, golden.directory)
    stored: Checkpoint | None = None
    program: dict[str, object] = {}
    for number in (1, 2, 3):
        if stored is not None:
            machine = driver.restore(spec, stored)
        try:
            channel = await machine.start()
            link = await GuestLink.open(channel, silence_limit=LIMIT, attach_to=link_state)
            if stored is None:
                await link.attach(LIMIT, clone_identity(network=False))
                listener.start(link, COUNTS)
            else:
                listener.attach(link, program)
                await link.attach(LIMIT, let_run=machine.resume)
            await run_on(listener)
            if stored is None:  # one while it runs, so that the next one has a base
                await link.quiesce(LIMIT)
                await machine.checkpoint(10)
                await link.attach(LIMIT)
                await run_on(listener)
            await link.quiesce(LIMIT)
            assert listener.program is not None
            link_state, program = link.state(), listener.program.state()
            stored = await machine.save(number + 10)
            link.close()
        finally:
            await machine.stop()
    numbers = [int(line) for line in listener.output["stdout"].split(b"\n")[:-1]]
    assert numbers == list(range(len(numbers)))
    assert listener.output["stderr"] == b""


async def test_a_machine_of_a_former_version_goes_on_with_the_cpu_and_timer_that_it_had(
    base_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint records neither; emulation had ERMS then and no HPET, and the next checkpoint
    records that."""
    spec, listener = spec_in(tmp_path / "machine", base_image), Listener()
    monkeypatch.setitem(CPUS, "tcg", "max")
    monkeypatch.setattr(Target, "has_hpet", lambda *_, **__: False)
    async with booted(spec) as (former, link):
        listener.start(link, COUNTS)
        await run_on(listener)
        link_state, program, stored = await save(former, link, listener)
        assert (stored.machine["cpu"], stored.machine["hpet"]) == ("max", False)
        silent = {name: stored.machine[name] for name in stored.machine.keys() - {"cpu", "hpet"}}
        monkeypatch.undo()
        async with restored(spec, link_state, stored._replace(machine=silent)) as (machine, link):
            (pid,) = machine.process_ids()
            words = command_line(pid)
            assert words[words.index(b"-cpu") + 1] == b"max"
            assert b"hpet=off" in words[words.index(b"-machine") + 1]
            listener.attach(link, program)
            await link.attach(LIMIT, let_run=machine.resume)
            await run_on(listener)
            again = (await save(machine, link, listener))[2].machine
            assert (again["cpu"], again["hpet"]) == ("max", False)
