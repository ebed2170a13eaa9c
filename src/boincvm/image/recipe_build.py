"""Build an image from a recipe, with exactly the packages of its lock file."""

import os
from dataclasses import dataclass
from pathlib import Path

from boincvm.errors import JobFileError, OutputFileError, UsageError, host_error
from boincvm.host.atomic_files import write_atomically
from boincvm.image.build import Built, build_image
from boincvm.image.lock import Changes, Lock, changes, read_lock
from boincvm.image.machine import BootMachine
from boincvm.image.names import check_image_name
from boincvm.image.progress import Progress
from boincvm.image.recipe import ImageRecipe, read_recipe
from boincvm.image.store import ImageStore


@dataclass(frozen=True, slots=True)
class BuiltRecipe:
    """The result of building a recipe."""

    built: Built
    lock: Path
    """The lock file."""
    changes: Changes | None
    """What an update has changed in the lock file; None if it was not updated."""


def build_recipe(
    path: Path,
    *,
    name: str | None = None,
    mirror: str | None = None,
    update: bool = False,
    if_missing: bool = False,
    boot: BootMachine,
    progress: Progress,
    store: ImageStore | None = None,
) -> BuiltRecipe:
    """Build the image of the recipe at `path`, under `name` or the recipe's own.

    If there is a lock file and not `update`, the packages are exactly those; otherwise they are
    the newest, and the lock file is written. For the others see `build_image`. Raises JobFileError,
    OutputFileError, and what `build_image` raises.
    """
    recipe = read_recipe(path)
    image = _image_name(recipe, name)
    before = read_lock(recipe.lock, recipe.asked) if recipe.lock.exists() and not update else None
    old = _old_lock(recipe, progress) if update else None
    if before is None:
        _check_writable(recipe.lock)
    built = build_image(
        image,
        recipe.packages,
        suite=recipe.suite,
        mirror=mirror,
        architecture=recipe.architecture,
        kernel=recipe.kernel,
        pip=recipe.pip,
        files=recipe.files,
        recommends=recipe.recommends,
        script=recipe.script,
        memory=recipe.memory,
        check=recipe.check,
        lock=before,
        locks=before is None,
        if_missing=if_missing and before is not None,
        boot=boot,
        progress=progress,
        store=store,
    )
    if built.lock is None:
        return BuiltRecipe(built, recipe.lock, None)
    _write(recipe.lock, built.lock)
    return BuiltRecipe(built, recipe.lock, None if old is None else changes(old, built.lock))


def _image_name(recipe: ImageRecipe, name: str | None) -> str:
    """Return the image's name. Raises UsageError if nothing says one that an image may have."""
    if name is not None:
        return check_image_name(name)
    if recipe.name is not None:
        return recipe.name
    directory = recipe.path.absolute().parent.name
    try:
        return check_image_name(directory)
    except UsageError as error:
        raise UsageError(
            f"the recipe has no name, and its directory's is none of an image: {directory[:80]!r}",
            hint='write it in the recipe, name = "sci", or give it: --name NAME',
        ) from error


def _old_lock(recipe: ImageRecipe, progress: Progress) -> Lock | None:
    """Return the lock file that is to be renewed, even if it is for another recipe."""
    if not recipe.lock.exists():
        return None
    try:
        return read_lock(recipe.lock)
    except JobFileError as error:
        progress.note(f"the old lock file cannot be compared: {error.message}")
        return None


def _check_writable(lock: Path) -> None:
    """Check that the lock file can be written, before a build that may take long."""
    if not os.access(lock.absolute().parent, os.W_OK):
        raise OutputFileError(
            f"{str(lock)!r} cannot be written: its directory may not be changed",
            hint="copy the recipe's directory to a place of your own",
        )


def _write(lock: Path, content: Lock) -> None:
    try:
        write_atomically(lock, content.encode())
    except OSError as error:
        raise host_error(f"{str(lock)!r} cannot be written", error, OutputFileError) from error
