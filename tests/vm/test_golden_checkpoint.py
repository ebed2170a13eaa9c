"""A copy of a golden snapshot is put on disk and goes on from there, as a task's machine does."""

from pathlib import Path

import pytest

from boincvm.guestlink.clone_identity import clone_identity
from boincvm.guestlink.link import GuestLink
from boincvm.hypervisor.contract import Checkpoint, MachineSpec
from boincvm.hypervisor.qemu.driver import QemuDriver
from support.booted import LIMIT, Listener, spec_in

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
    """Makes `spec.directory` a golden snapshot; its guest link's state."""
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
    """Until the program has written some more."""
    had = len(listener.output["stdout"])
    await listener.until(lambda: len(listener.output["stdout"]) > had + 500)


@pytest.mark.parametrize("balloon", [False, True])
async def test_a_copy_is_kept_and_goes_on_twice(
    base_image: Path, tmp_path: Path, *, balloon: bool
) -> None:
    """Its state has no configuration section, unlike that of a machine that booted."""
    driver, listener = QemuDriver("tcg"), Listener()
    golden = spec_in(tmp_path / "golden", base_image)._replace(balloon=balloon)
    link_state = await freeze(driver, golden)
    spec = spec_in(tmp_path / "machine", base_image)._replace(balloon=balloon)
    machine = driver.golden_snapshots.clone(spec, golden.directory)
    kept: Checkpoint | None = None
    program: dict[str, object] = {}
    for number in (1, 2, 3):
        if kept is not None:
            machine = driver.restore(spec, kept)
        try:
            channel = await machine.start()
            link = await GuestLink.open(channel, silence_limit=LIMIT, attach_to=link_state)
            if kept is None:
                await link.attach(LIMIT, clone_identity(network=False))
                listener.start(link, COUNTS)
            else:
                listener.attach(link, program)
                await link.attach(LIMIT, let_run=machine.resume)
            await run_on(listener)
            if kept is None:  # one while it runs, so that the next one has a base
                await link.quiesce(LIMIT)
                await machine.checkpoint(10)
                await link.attach(LIMIT)
                await run_on(listener)
            await link.quiesce(LIMIT)
            assert listener.program is not None
            link_state, program = link.state(), listener.program.state()
            kept = await machine.save(number + 10)
            link.close()
        finally:
            await machine.stop()
    numbers = [int(line) for line in listener.output["stdout"].split(b"\n")[:-1]]
    assert numbers == list(range(len(numbers)))
    assert listener.output["stderr"] == b""
