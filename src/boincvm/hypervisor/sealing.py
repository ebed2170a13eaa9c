"""How the files of a checkpoint are made durable and get their seals, once a driver wrote them."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from boincvm.errors import HypervisorError, host_error
from boincvm.file_digest import digest_of
from boincvm.host.files import sync_directory, sync_file
from boincvm.hypervisor.contract import Checkpoint, FileSeal


async def sealed_checkpoint(
    number: int,
    directory: Path,
    names: Sequence[str],
    machine: Mapping[str, object],
    former: Checkpoint | None,
    pause: float,
) -> Checkpoint:
    """Sync and seal the files of these names, and return the checkpoint that consists of them.

    What `former` has sealed has not changed since. Raises HostError, HostDiskFullError.
    """
    known = former.files if former is not None else {}
    new = [name for name in names if name not in known]
    try:
        seals = {**known, **await asyncio.to_thread(_sealed, directory, new)}
    except OSError as error:
        raise host_error("the checkpoint cannot be written", error, HypervisorError) from error
    return Checkpoint(
        number=number,
        files={name: seals[name] for name in names},
        machine=machine,
        pause=pause,
        written=sum(seals[name].size for name in new),
    )


def _sealed(directory: Path, names: Sequence[str]) -> dict[str, FileSeal]:
    seals = {}
    for name in names:
        sync_file(directory / name)
        seals[name] = FileSeal(*digest_of(directory / name))
    sync_directory(directory)
    return seals
