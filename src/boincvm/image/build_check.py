"""A command that must succeed in a machine of a new image, or the image is not kept."""

import asyncio
import tempfile
from pathlib import Path
from typing import NamedTuple

from boincvm.durations import format_duration
from boincvm.errors import BoincvmError, ImageBuildError, ProgramStartError
from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.contract import MachineSpec
from boincvm.image.configure import BOOT_LIMIT, ENVIRONMENT, Log
from boincvm.image.filenames import INITRD, KERNEL, ROOT
from boincvm.image.machine import BootMachine
from boincvm.job.model import MIB

CHECK_MEMORY = 512 * MIB
"""Bytes that a machine has if nobody says otherwise, which a check gets at least."""


class Check(NamedTuple):
    """A command that must succeed in a machine of the finished image."""

    argv: tuple[str, ...]
    limit: float
    """Seconds."""


def run_check(
    target: Path, check: Check, memory: int, boot: BootMachine, architecture: Architecture
) -> None:
    """Run the command in a machine of the image in `target`, with `memory` bytes.

    Raises ImageBuildError with the command's last output, HypervisorError, HostDiskFullError.
    """
    log = Log(lambda _: None)
    try:
        asyncio.run(_run(target, check, memory, boot, architecture, log))
    except TimeoutError:
        raise _error(f"has not ended within {format_duration(check.limit)}", log) from None
    except ProgramStartError as error:
        raise _error(f"cannot start: {error.message}", log) from error
    except BoincvmError as error:
        if isinstance(error, ImageBuildError):
            raise
        raise ImageBuildError(
            f"the machine that checks the image failed: {error.message}", hint=error.hint
        ) from error


async def _run(
    target: Path,
    check: Check,
    memory: int,
    boot: BootMachine,
    architecture: Architecture,
    log: Log,
) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        Path(directory).chmod(0o700)
        files = (target / KERNEL, target / INITRD, target / ROOT)
        spec = MachineSpec(Path(directory), *files, memory=memory, cpus=1)
        spec = spec._replace(architecture=architecture)
        async with boot(spec, BOOT_LIMIT) as run, asyncio.timeout(check.limit):
            end = await run(check.argv, ENVIRONMENT, log.receive)
    if end.code != 0:
        status = f"signal {end.signal}" if end.code is None else f"{end.code}"
        raise _error(f"ended with {status}", log)


def _error(what: str, log: Log) -> ImageBuildError:
    output = f"the end of its output:{log.tail}" if log.tail else "it printed nothing"
    return ImageBuildError(
        f"the image was not kept, for the command of [check] {what}", hint=output
    )
