"""Make images of a packed image and patch files, and make such a file for those who have the rest.

In BOINC files never change, and a client downloads each once. So a new version of an image is the
packed image of the first one, which all have, and a patch file; a later one is these and one more.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from boincvm.errors import ImageDamagedError, ImageMissingError, UsageError
from boincvm.host.atomic_files import replacement
from boincvm.host.files import create_new
from boincvm.image.delivery.patch import write_patch
from boincvm.image.delivery.patch_file import Chain, PatchFile, damaged, read_chain, write_head
from boincvm.image.made_once import Made, check_space, failed, open_or_make, remove, scratch
from boincvm.image.names import check_image_name
from boincvm.image.object_files import finish_object
from boincvm.image.pack import (
    MOST_PATCHES,
    PATCH_SUFFIX,
    check_packable,
    open_packed,
    unpack_files,
)
from boincvm.image.progress import Progress
from boincvm.image.store import Image, ImageStore
from boincvm.image.target_file import check_target


def open_patched(
    pack: Path,
    patches: Sequence[Path],
    store: ImageStore,
    name: str,
    *,
    progress: Progress | None = None,
) -> Image:
    """Open what `patches` make of the packed image `pack` as the image `name` of `store`.

    If it is missing there, it is made first: of the newest version before that is in the store, or
    else of the packed image. Waits for other processes that make one. Raises UsageError,
    ImageMissingError, ImageDamagedError, HostDiskFullError, HostError.
    """
    if not patches:
        return open_packed(pack, store, name, progress=progress)
    check_image_name(name)
    progress = Progress(None) if progress is None else progress
    chain = read_chain(pack, patches)
    last = chain.patches[-1].path

    def make(directory: Path) -> Made:
        made = _make(chain, directory, store, name, progress)
        finish_object(made.directory, made.manifest, lambda what: damaged(last, what))
        return made

    return open_or_make(
        name, chain.digest, store, make, f"{last} cannot be applied in {store.root}"
    )


def pack_patch(
    image: Image,
    path: Path,
    since: Sequence[Path],
    store: ImageStore,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> str:
    """Write to `path` what makes `image` of a packed image, and of patch files that follow it.

    `since`: these files, in their order. The patch is tried out before it gets its name; `force`
    replaces an existing file. Returns the digest of the image that it changes. Raises UsageError,
    ImageMissingError, ImageDamagedError, HostDiskFullError, HostError.
    """
    progress = Progress(None) if progress is None else progress
    check_target(path, force=force)
    if not path.name.lower().endswith(PATCH_SUFFIX):
        raise UsageError(
            f"found {path.name}, expected a patch file's name, which ends with {PATCH_SUFFIX}",
            hint="without --since all of the image is packed",
        )
    check_packable(image)
    chain = read_chain(since[0], since[1:])
    if len(chain.patches) == MOST_PATCHES:
        raise UsageError(
            f"{MOST_PATCHES} patches follow {chain.pack} already, and no more may",
            hint="make one in place of all: --since names the packed image alone",
        )
    if chain.digest == image.digest:
        raise UsageError(
            f"image {image.name} is what {since[-1]} makes: nothing has changed",
            hint="build the new version first: boincvm image build",
        )
    try:
        with scratch(store) as directory, replacement(path, is_unique=True) as part:
            sizes = [*_sizes(chain), image.manifest.size]
            check_space(store, _most_at_once(sizes), image.name)
            base = _unpacked(chain, directory, progress).directory
            with (
                progress.step(f"comparing {image.name} with {since[-1].name}"),
                create_new(part) as stream,
            ):
                write_head(stream, chain.digest, image.digest)
                write_patch(base, image.directory, image.manifest, stream)
            with progress.step("trying the patch out"):
                _try_out(PatchFile(part, chain.digest, image.digest), base, directory, image)
    except OSError as error:
        raise failed(f"{path} cannot be written", error) from error
    return chain.digest


def _try_out(patch: PatchFile, base: Path, directory: Path, image: Image) -> None:
    target = directory / "made"
    target.mkdir()
    try:
        patch.apply(base, target)
    except ImageDamagedError as error:
        raise ImageDamagedError(
            f"image {image.name} was altered: the patch does not make it",
            hint=f"boincvm image rm {image.name} && boincvm image build {image.name}",
        ) from error


def _make(chain: Chain, directory: Path, store: ImageStore, name: str, progress: Progress) -> Made:
    """Make the last image of `chain` in `directory`. Raises BoincvmError, OSError."""
    sizes = _sizes(chain)
    for count in reversed(range(len(chain.patches))):
        try:
            image = store.open(name, chain.digests[count])
        except (ImageMissingError, ImageDamagedError):
            continue
        with image:
            check_space(store, _most_at_once([0, *sizes[count + 1 :]]), name)
            part = directory / "from-store"
            part.mkdir()
            base = Made(image.directory, image.manifest)
            try:
                return _applied(chain.patches[count:], base, part, progress, is_own=False)
            except ImageDamagedError as error:
                # What is here may be altered so that nobody could notice; the packed image is not.
                progress.note(f"{error.message}; {chain.pack.name} is unpacked")
                remove(part)
                break
    check_space(store, _most_at_once(sizes), name)
    return _unpacked(chain, directory, progress)


def _unpacked(chain: Chain, directory: Path, progress: Progress) -> Made:
    """Make the last image of `chain` in `directory`, of the packed image."""
    base = directory / "base"
    base.mkdir()
    unpack_files(chain.pack, base, progress)
    made = Made(base, chain.base)
    return _applied(chain.patches, made, directory, progress, is_own=True)


def _applied(
    patches: Sequence[PatchFile],
    base: Made,
    directory: Path,
    progress: Progress,
    *,
    is_own: bool,
) -> Made:
    """Apply `patches` in their order; `is_own`: remove `base`, too, as soon as it is not needed."""
    made = base
    for number, patch in enumerate(patches):
        target = directory / str(number)
        target.mkdir()
        with progress.step(f"applying {patch.path.name}"):
            manifest = patch.apply(made.directory, target)
        if number or is_own:
            remove(made.directory)
        made = Made(target, manifest)
    return made


def _sizes(chain: Chain) -> list[int]:
    """Return the bytes of the packed image's files, and of what each patch makes."""
    return [chain.base.size, *(patch.manifest().size for patch in chain.patches)]


def _most_at_once(sizes: Sequence[int]) -> int:
    """Return the bytes on disk while each image is made of the one before."""
    return max(before + size for before, size in pairwise(sizes))
