"""The least memory with which a machine of an image works, tried when the image is built."""

import asyncio
import re
import tempfile
from pathlib import Path

from boincvm.errors import GuestError, ImageBuildError
from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.contract import MachineSpec
from boincvm.image.filenames import INITRD, KERNEL, ROOT
from boincvm.image.machine import BootMachine
from boincvm.job.model import MIB
from boincvm.sizes import format_size

ENOUGH = 256 * MIB
"""The most bytes that an image may need, or it is not built; a machine with this much is not
checked."""
_STEP = 32 * MIB
_SPARE = 16 * MIB
"""Bytes for a first small program, and so that each build finds the same figure."""
_BOOT_LIMIT = 120.0
_MOST_OUTPUT = 1 << 16
_AVAILABLE = re.compile(rb"^MemAvailable: +(\d{1,12}) kB$", re.MULTILINE)


def measure(
    target: Path, boot: BootMachine, architecture: Architecture, cat: str = "/bin/cat"
) -> int:
    """Find the memory, in bytes and in steps of 32 MiB, with which the image in `target` works.

    A machine with that much was seen to boot and to run a program, `cat`. Raises ImageBuildError,
    HypervisorMissingError, HypervisorError.
    """
    return asyncio.run(_measure(target, boot, architecture, cat))


async def _measure(target: Path, boot: BootMachine, architecture: Architecture, cat: str) -> int:
    available = await _try(target, ENOUGH, boot, architecture, cat)
    if available is None:
        raise ImageBuildError(
            f"a machine of this image does not boot with {format_size(ENOUGH)} of memory",
            hint="leave out packages, and report this: it is a bug in the builder",
        )
    size = -(-(ENOUGH - available + _SPARE) // _STEP) * _STEP
    while size < ENOUGH and await _try(target, size, boot, architecture, cat) is None:
        size += _STEP
    return min(size, ENOUGH)


async def _try(
    target: Path, memory: int, boot: BootMachine, architecture: Architecture, cat: str
) -> int | None:
    """Boot a machine with `memory` bytes; return the free bytes, or None if it does not boot."""
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        Path(directory).chmod(0o700)
        files = (target / KERNEL, target / INITRD, target / ROOT)
        spec = MachineSpec(Path(directory), *files, memory=memory, cpus=1)
        spec = spec._replace(architecture=architecture)
        output = bytearray()
        try:
            async with boot(spec, _BOOT_LIMIT) as run:
                end = await run(
                    [cat, "/proc/meminfo"],
                    {},
                    lambda _, data: output.extend(data[:_MOST_OUTPUT]),
                )
        except GuestError:
            return None
        found = _AVAILABLE.search(output)
        return int(found[1]) << 10 if found is not None and end.code == 0 else None
