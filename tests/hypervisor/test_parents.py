"""A machine ends with the process that created it, however that ends."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from boincvm.host.process_tree import descendants
from boincvm.hypervisor.contract import Driver, MachineSpec
from support.bench import open_those_that_run
from support.driven import LIMIT

SpecIn = Callable[[str], MachineSpec]

PROGRAM = """
import asyncio, sys
from pathlib import Path
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.registry import open_driver
from support.driven import Running, answering

async def main(name, directory, kernel, initrd, root):
    driver = await open_driver(name, Path(kernel))
    spec = MachineSpec(*map(Path, (directory, kernel, initrd, root)), memory=256 << 20, cpus=1)
    machine = driver.machine(spec)
    async with answering(machine) as link:
        busy = Running(link, "/bin/sh", "-c", "while :; do :; done & echo begun; wait")
        await busy.until(1)
        if sys.argv[6:] == ["paused"]:
            await machine.pause()
        print("begun", *machine.process_ids(), flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:6]))
"""


@pytest.mark.timeout(200)
@pytest.mark.parametrize("how", ["running", "paused"])
def test_nothing_runs_on(linux: Driver, spec_in: SpecIn, how: str) -> None:
    spec = spec_in("machine")
    files = map(str, (spec.directory, spec.kernel, spec.initrd, spec.root))
    tests = Path(__file__).resolve().parents[1]
    paths = str(tests), os.environ.get("PYTHONPATH")  # a driver may be installed there
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, linux.name, *files, how],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    with ExitStack() as stack:
        stack.enter_context(parent)
        stack.callback(parent.kill)
        assert parent.stdout is not None
        begun, *text = parent.stdout.readline().split()
        assert begun == b"begun"
        # A daemon's machines do not descend from the process that asked for them.
        handles = open_those_that_run({*map(int, text), *descendants(parent.pid)})
        for handle in handles:
            stack.callback(os.close, handle)
        assert handles
        parent.send_signal(signal.SIGKILL)
        for handle in handles:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            assert poll.poll(LIMIT * 1000), "a process of the machine runs on"
