"""Makes golden snapshots: boots a machine, lets it settle, and saves it in that state."""

import asyncio
import json
import os
import shutil
from pathlib import Path

from boincvm.guestlink.clone_identity import clone_identity
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram
from boincvm.host.files import sync_directory, sync_file
from boincvm.host.locks import try_exclusive
from boincvm.host.own_files import make_directory
from boincvm.host.renames import rename
from boincvm.hypervisor.contract import Driver, MachineSpec
from boincvm.hypervisor.registry import DEFAULT, open_driver
from boincvm.image.store import Image, ImageStore
from boincvm.job.model import Limits, MachineShape
from boincvm.machine.golden.snapshots import (
    NEW,
    TABLE,
    discard_golden,
    find_golden,
    needs,
    remove_leftovers,
    snapshot_name,
)
from boincvm.machine.managed import opened
from boincvm.machine.settings import Settings
from boincvm.machine.spec import machine_spec
from boincvm.machine.start_source import Boot

MOST = 6
"""Snapshots to keep, the most recently used ones: each takes some 90 MiB of disk."""
PRACTICE = 16
"""How often a machine rehearses, before it is frozen, what each of its copies will do first. After
that, everything needed is in its memory, and Python has specialized the code."""
REST = 0.5
"""Seconds for the guest's kernel to finish deferred work, which each copy would otherwise
repeat."""


async def make_golden(driver: Driver, image: Image, spec: MachineSpec, limits: Limits) -> bool:
    """Make the snapshot for machines like `spec` unless it exists or is being made.

    Returns True if this call made it. Raises BoincvmError, OSError.
    """
    golden = driver.golden_snapshots
    if golden is None:
        return False
    together = image.golden
    make_directory(together)
    with try_exclusive(together / "lock") as is_ours:
        if not is_ours or find_golden(image, spec, golden.identity()).golden is not None:
            return False
        remove_leftovers(together)
        target = together / snapshot_name(image.digest, spec, golden.identity())
        new = together / f"{NEW}{os.urandom(8).hex()}"
        new.mkdir(mode=0o700)
        try:
            link = await _boot_and_freeze(driver, spec._replace(directory=new), limits)
            _write_table(new, {"needs": needs(image.digest, spec, golden.identity()), "link": link})
            discard_golden(target)
            rename(new, target)
            sync_directory(together)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        remove_least_used(ImageStore(together.parent))
        return True


async def warm_image(
    store: ImageStore,
    shape: MachineShape,
    *,
    balloon: bool,
    durable: bool = False,
    driver_name: str = DEFAULT,
) -> bool:
    """Make the snapshot for machines of this shape if it is missing; return True if it was made.

    Raises BoincvmError, OSError.
    """
    with store.open(shape.image) as image:
        driver = await open_driver(driver_name, image.kernel)
        # Each snapshot gets a directory of its own in this one.
        spec = machine_spec(shape, image, store.golden)
        spec = spec._replace(balloon=balloon, durable=durable)
        return await make_golden(driver, image, spec, Limits())


def remove_goldens(store: ImageStore, digest: str) -> None:
    """Remove all snapshots of the image with this digest, unless it has another name still."""
    if digest in map(store.digest_of, store.names()):
        return
    for path in _snapshots(store.golden):
        if path.name.startswith(digest[:16]):
            discard_golden(path)


async def _boot_and_freeze(driver: Driver, spec: MachineSpec, limits: Limits) -> dict[str, object]:
    """Make the snapshot in `spec.directory`; return the guest link's state."""
    spec = spec._replace(ephemeral=False)
    async with opened(driver, spec, [Boot(freezable=True)], Settings(limits)) as machine:
        session, link = machine.session, machine.session.link
        for _ in range(PRACTICE):
            await session.guard(link.quiesce(limits.boot))
            await session.guard(link.attach(limits.boot, clone_identity(network=False)))
            await session.guard(_run(link, "true"))
        await session.guard(_run(link, "sync"))
        await session.guard(link.quiesce(limits.boot))
        await session.guard(asyncio.sleep(REST))
        state = link.state()
        await session.guard(machine.freeze())
        return state


async def _run(link: GuestLink, program: str) -> None:
    running = GuestProgram(
        link,
        [program],
        directory="/",
        environment=link.environment,
        output=lambda *_: None,
    )
    running.end_input()
    await running.wait()


def _write_table(directory: Path, table: dict[str, object]) -> None:
    """Sync the directory's files to disk, then write the table that describes them."""
    files: dict[str, list[int]] = {}
    for path in directory.iterdir():
        status = sync_file(path)
        files[path.name] = [status.st_size, status.st_mtime_ns]
    with (directory / TABLE).open("x") as file:
        json.dump({**table, "files": files}, file)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(directory)


def _snapshots(together: Path) -> list[Path]:
    """Return the snapshots, most recently used first."""
    if not together.is_dir():
        return []
    found: list[tuple[float, Path]] = []
    for path in together.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            table = path / TABLE
            found.append((table.stat().st_mtime if table.exists() else 0.0, path))
    return [path for _, path in sorted(found, reverse=True)]


def remove_least_used(store: ImageStore) -> None:
    """Remove the snapshots that are too many: first those whose image is no longer in `store`."""
    digests = {digest[:16] for digest in store.digests()}
    useful_first = sorted(
        _snapshots(store.golden), key=lambda path: path.name[:16] not in digests
    )  # stable, so the most recently used ones come first among equals
    for path in useful_first[MOST:]:
        discard_golden(path)
