"""Golden snapshots: booted machines that are kept so that others can start as copies of them.

    golden/NAME/      one snapshot: golden.json and the driver's files
    golden/lock       held by the process that is making one
    golden/.new-…/    a snapshot that is being made

They lie beside the images (image/store.py). NAME identifies the image and the machine's shape.
golden.json records everything that the snapshot depends on; a snapshot that does not match is
removed and made again.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from boincvm.host.locks import try_exclusive
from boincvm.host.own_files import check_directory, open_own
from boincvm.hypervisor.machine_spec import MachineSpec
from boincvm.hypervisor.registry import DEFAULT
from boincvm.image.store import Image

TABLE = "golden.json"
NEW = ".new-"
"""How the names of snapshots that are being made begin."""
VERSION = 3
_MOST_BYTES = 1 << 16


class Golden(NamedTuple):
    """A snapshot to start from."""

    directory: Path
    link: dict[str, object]
    """The guest link's state, for `GuestLink.open`."""


class Found(NamedTuple):
    """The result of a search for a snapshot."""

    golden: Golden | None
    """None: no snapshot can be used."""
    why: str = ""
    """Why the existing snapshot cannot be used; empty if there is no snapshot."""


def snapshot_name(digest: str, spec: MachineSpec, identity: Mapping[str, str]) -> str:
    """Return the name of the snapshot for a machine like `spec` of the image with this digest.

    `identity` is the driver's: each driver has snapshots of its own.
    """
    size = f"-{spec.disk_size >> 20}" if spec.disk_size else ""
    devices = ("-network" if spec.network else "") + ("-balloon" if spec.balloon else "")
    devices += "-display" if spec.display else ""
    devices += "-durable" if spec.durable else ""
    driver = identity.get("driver", DEFAULT)
    devices += "" if driver == DEFAULT else f"-{driver}"
    return f"{digest[:16]}-{spec.memory >> 20}-{spec.cpus}{size}{devices}"


def needs(digest: str, spec: MachineSpec, identity: Mapping[str, str]) -> dict[str, object]:
    """Return everything that a snapshot depends on; `identity` is the driver's."""
    return {
        "version": VERSION,
        "image": digest,
        "memory": spec.memory,
        "cpus": spec.cpus,
        "disk": spec.disk_size,
        "network": spec.network,
        "balloon": spec.balloon,
        "display": spec.display,
        "kernel": list(spec.own_arguments),
        **identity,
    }


def find_golden(image: Image, spec: MachineSpec, identity: Mapping[str, str]) -> Found:
    """Find the snapshot for a machine like `spec` of a driver with this identity."""
    directory = image.golden / snapshot_name(image.digest, spec, identity)
    try:
        check_directory(directory)
        with open_own(directory / TABLE) as file:
            table = json.loads(file.read(_MOST_BYTES))
        if table["needs"] != needs(image.digest, spec, identity):
            return Found(None, "the hypervisor, CPU or boincvm has changed since it was made")
        for name, (size, modified) in table["files"].items():
            status = (directory / name).stat()
            if [status.st_size, status.st_mtime_ns] != [size, modified]:
                return Found(None, f"{name} differs from what was written")
        os.utime(directory / TABLE)  # the last use
        return Found(Golden(directory, dict(table["link"])))
    except FileNotFoundError as error:
        is_there = directory.exists()
        return Found(None, f"{Path(error.filename).name} is missing" if is_there else "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Found(None, f"{TABLE} cannot be read: {error}")


def discard_golden(directory: Path) -> None:
    """Remove an unusable snapshot. Machines that have started from it keep running."""
    import shutil

    # The table first: if we are interrupted, nobody may use the rest.
    (directory / TABLE).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def remove_unfinished(together: Path) -> int:
    """Remove snapshots whose makers were killed from a store's directory; return how many.

    Raises OSError.
    """
    if not together.is_dir():
        return 0
    with try_exclusive(together / "lock") as is_ours:
        return remove_leftovers(together) if is_ours else 0


def remove_leftovers(together: Path) -> int:
    """Remove what killed makers left behind: the caller holds the lock, so none is running."""
    import shutil

    leftovers = list(together.glob(f"{NEW}*"))
    for path in leftovers:
        shutil.rmtree(path, ignore_errors=True)
    return len(leftovers)
