"""Images that come as files of the app version, unpacked once in the project's directory.

    PROJECT/boincvm-images/    a store of images; the time of a name is its last use

An image has the logical name of its file. So the one of a new app version replaces the former one,
if it has the same logical name; what no task has used for long goes.
"""

import time
from collections.abc import Callable
from pathlib import Path

from boincvm.errors import BoincvmError, JobFileError
from boincvm.image.pack import MOST_PATCHES, open_packed, packed_name, patch_names
from boincvm.image.store import Image, ImageStore
from boincvm.wrapper.log import log

IMAGE_DIRECTORY = "boincvm-images"
_UNUSED_AGE = 30 * 86400.0
"""Seconds after which what no task has used goes."""


def open_app_image(
    name: str, resolve: Callable[[str], Path], project_directory: Path
) -> Image | None:
    """Open the image in the file with the logical name `name`; None if there is no such file.

    `resolve` returns the physical path of a logical name. Blocks, for seconds if the image is new.
    Raises BoincvmError.
    """
    path = resolve(name)
    if not path.is_file():
        return None
    store = ImageStore(project_directory / IMAGE_DIRECTORY)
    own_name = packed_name(Path(name))
    image = _open(name, path, _patches(name, resolve), store, own_name)
    try:
        store.note_use(own_name)
        # A clock that has jumped costs no more than the time to unpack a file again.
        begin = time.time() - _UNUSED_AGE
        for unused in store.names_unused_since(begin):
            _remove(unused, store, begin)
    except OSError as error:
        log(f"images that no task has used for long stay: {error}")
    return image


def _open(name: str, path: Path, patches: list[Path], store: ImageStore, own_name: str) -> Image:
    if not patches:
        return open_packed(path, store, own_name)
    from boincvm.image.delivery.patched_pack import open_patched  # few app versions have any

    image = open_patched(path, patches, store, own_name)
    count = f"{len(patches)} patches" if len(patches) > 1 else "1 patch"
    log(f"the image {image.digest[:12]} is {name} with {count}")
    return image


def _patches(name: str, resolve: Callable[[str], Path]) -> list[Path]:
    """Return the patch files that follow the packed image `name`. Raises BoincvmError."""
    names = patch_names(name)
    paths = [resolve(one) for one in names]
    are_here = [path.is_file() for path in paths]
    count = are_here.index(False) if False in are_here else len(paths)
    if any(are_here[count:]):
        raise JobFileError(
            f"{names[are_here.index(True, count)]} is here, and {names[count]} is not, which it"
            " follows",
            hint="the app version must have all patches of its image",
        )
    if count > MOST_PATCHES:
        raise JobFileError(
            f"more than {MOST_PATCHES} patches follow {name}",
            hint="make one in place of several: boincvm image pack --since PACKED NAME FILE",
        )
    return paths[:count]


def _remove(name: str, store: ImageStore, begin: float) -> None:
    """Remove an image with its golden snapshots, unless a task uses it now. Raises OSError."""
    from boincvm.machine.golden.maker import remove_goldens  # rarely needed

    try:
        digest = store.remove_unused(name, begin)
        if digest is None:
            return  # a task that starts just now uses it
        remove_goldens(store, digest)
    except BoincvmError as error:
        log(f"the image {name}, which no task has used for long, stays: {error.message}")
    else:
        log(f"the image {name}, which no task has used for long, was removed")
