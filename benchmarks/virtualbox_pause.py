"""pause_resume_virtualbox: `pause` and `resume` of a machine of VirtualBox against bare VBoxManage.

Not in the list of benchmarks, because few hosts have VirtualBox: with `VBoxManage` and
`VBoxHeadless` on PATH, `python -m benchmarks.virtualbox_pause`. The machine boots, or starts from
the golden snapshot that `boincvm image warm --driver virtualbox --memory 256M` has made. Its
program computes. The other side is the two calls of VBoxManage, for the same machine.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from boincvm.guestlink.guest_paths import ENVIRONMENT, WORK
from boincvm.guestlink.program import GuestProgram
from boincvm.hypervisor.contract import Machine, MachineSpec
from boincvm.hypervisor.virtualbox.driver import VirtualBoxDriver, open_driver
from boincvm.hypervisor.virtualbox.machine import VirtualBoxMachine
from boincvm.image.store import Image, ImageStore
from boincvm.job.model import Limits
from boincvm.machine.managed import opened
from boincvm.machine.settings import Settings
from boincvm.machine.start_source import Boot, Clone

_LIMIT = 900.0
"""Seconds that a boot may take in VirtualBox's interpreter."""
_TIMES = 21
_BETWEEN = 0.2
"""Seconds for which the program computes between two turns."""


async def _ours(machine: Machine) -> float:
    begin = perf_counter()
    await machine.pause()
    await machine.resume()
    return perf_counter() - begin


async def _bare(machine: VirtualBoxMachine) -> float:
    home = machine.home
    if home is None:
        raise RuntimeError("the machine has ended")
    begin = perf_counter()
    for verb in ("pause", "resume"):
        process = await asyncio.create_subprocess_exec(
            "VBoxManage", "controlvm", home.name, verb, env=home.environment,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        if await process.wait() != 0:
            raise RuntimeError(f"VBoxManage controlvm {verb} failed")
    return perf_counter() - begin


async def _measure(driver: VirtualBoxDriver, image: Image, directory: Path) -> None:
    files = (image.kernel, image.initrd, image.root)
    spec = MachineSpec(directory, *files, memory=256 << 20, cpus=1)
    settings = Settings(Limits(boot=_LIMIT, silence=_LIMIT))
    async with opened(driver, spec, [Clone(image), Boot()], settings) as made:
        machine = made.session.machine
        if not isinstance(machine, VirtualBoxMachine):
            raise TypeError(machine)
        computes = asyncio.Event()
        GuestProgram(
            made.session.link,
            ("/bin/sh", "-c", "echo begun; while :; do :; done"),
            directory=str(WORK),
            environment=ENVIRONMENT,
            output=lambda _stream, _data: computes.set(),
        )
        await computes.wait()
        ours, bare = [], []
        for turn in range(_TIMES):
            print(f"{turn + 1} of {_TIMES}", file=sys.stderr)
            ours.append(await _ours(machine))
            await asyncio.sleep(_BETWEEN)
            bare.append(await _bare(machine))
            await asyncio.sleep(_BETWEEN)
    ratio = median(ours) / median(bare)
    print(f"ours {median(ours):.3f} s, VBoxManage {median(bare):.3f} s: {ratio:.2f} (at most 1.3)")


async def main() -> None:
    with ImageStore().open("base") as image, tempfile.TemporaryDirectory() as directory:
        await _measure(await open_driver(), image, Path(directory))


if __name__ == "__main__":
    asyncio.run(main())
