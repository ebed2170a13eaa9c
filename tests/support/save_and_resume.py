"""A QEMU machine that is saved while a program reads, and resumes where it was."""

from typing import NamedTuple

from boincvm.guestlink.link import GuestLink
from boincvm.hypervisor.contract import Checkpoint, MachineSpec, MachineState
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.hypervisor.qemu.machine import QemuMachine
from support.driven import LIMIT, Running, answering, shell

State = dict[str, object]


class Saved(NamedTuple):
    """What another process needs of a machine that was saved."""

    checkpoint: Checkpoint
    link: State
    program: State


async def save_twice(machine: QemuMachine, link: GuestLink) -> Saved:
    """Save a machine twice while a program reads, once while it runs; leave it saved."""
    program = Running(link, "cat")
    await program.feed(b"one")
    await program.until(3)
    await link.quiesce(LIMIT)
    await machine.checkpoint(1)
    await link.attach(LIMIT)
    await shell(link, "echo kept >/root/file; head -c 4M /dev/urandom >/work/random")
    await link.quiesce(LIMIT)
    states = link.state(), program.program.state()
    return Saved(await machine.save(2), *states)


async def resume(driver: QemuDriver, spec: MachineSpec, saved: Saved) -> Saved:
    """Resume a saved machine, see that its program and disk are there, and save it again."""
    machine = driver.restore(spec, saved.checkpoint)
    try:
        async with answering(machine, saved.link) as link:
            assert machine.state is MachineState.PAUSED
            program = Running.attached(link, saved.program)
            await link.attach(LIMIT, let_run=machine.resume)
            had = len(program.output["stdout"])
            await program.feed(b"two")
            assert (await program.until(had + 3))[-3:] == b"two"
            assert await shell(link, "cat /root/file; wc -c </work/random") == "kept\n4194304\n"
            await link.quiesce(LIMIT)
            states = link.state(), program.program.state()
            number = saved.checkpoint.number + 1
            return Saved(await machine.save(number), *states)
    finally:
        await machine.stop()
