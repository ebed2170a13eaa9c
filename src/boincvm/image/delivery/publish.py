"""Write a directory that any web server can serve: packed images, differences, a signed index.

    index.json, index.json.sig     what there is, and its signature
    key.txt                        the public key
    keys.json                      which keys were replaced by which (key_changes.py), if any were
    images/DIGEST.tar.xz           a packed image; .tar.gz if it was asked for
    images/DIGEST.map, .blocks     its blocks, for hosts with other images
    images/DIGEST.start            what a machine needs that reads its disk from .blocks on demand
    patches/OLD-NEW.patch          what makes NEW from OLD
    *.torrent                      for BitTorrent, beside packed images and patches
    .index.json.next               the new index, until its signature has replaced the former one
    .lock                          held by who publishes

New files come first and the index last. Files that neither the new nor the former index names are
removed: a client that has just read the former one still finds its files.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from boincvm.errors import ImageDamagedError, UsageError, host_error
from boincvm.host import locks
from boincvm.host.atomic_files import replacement
from boincvm.host.files import create_new, read_regular, sync_directory
from boincvm.host.renames import replace as replace_file
from boincvm.image.delivery import key_changes, keys
from boincvm.image.delivery.blocks import MOST_IMAGE_BYTES, write_blocks
from boincvm.image.delivery.index import (
    INDEX,
    KEY,
    MOST_BYTES,
    MOST_VERSIONS,
    SIGNATURE,
    Blocks,
    Index,
    Patch,
    Start,
    Torrent,
    Version,
    decode_index,
    torrent_name,
)
from boincvm.image.delivery.key_changes import (
    KEY_CHANGES,
    decode_changes,
    encode_changes,
    sign_change,
)
from boincvm.image.delivery.patch import write_patch
from boincvm.image.delivery.start_file import can_be_on_demand, write_start
from boincvm.image.delivery.torrent_file import SMALLEST, Offer, write_torrent
from boincvm.image.pack import check_manifest, pack_image, unpack_files
from boincvm.image.pack_format import Compression
from boincvm.image.progress import Progress
from boincvm.image.store import Image, ImageStore
from boincvm.sizes import format_size

KEEP = 3
"""Versions of an image that are kept: patches lead from the others to the newest."""
_NEXT = f".{INDEX}.next"
_SIGNATURE_BYTES = 256


@dataclass(frozen=True, slots=True)
class Published:
    """What became of one image."""

    name: str
    version: Version
    is_new: bool


def publish_images(
    names: Sequence[str],
    directory: Path,
    key: Path,
    store: ImageStore,
    *,
    former_key: Path | None = None,
    keep: int = KEEP,
    offer: Offer | None = None,
    compression: Compression = Compression.GZIP,
    progress: Progress | None = None,
) -> tuple[Index, list[Published]]:
    """Publish the images `names` of `store` in `directory`, signed by the key in the file `key`.

    `former_key`: the file with the key that signed until now, which hands over to `key`; `keep`:
    how many versions of each remain; `offer`: for torrents, which are written if it is given;
    `compression`: of new packed images. Returns the index and what became of each image.
    Raises UsageError, ImageMissingError, ImageDamagedError, HostDiskFullError, HostError.
    """
    progress = Progress(None) if progress is None else progress
    if not 1 <= keep <= MOST_VERSIONS:
        raise UsageError(f"{keep} versions cannot be kept", hint=f"keep 1 to {MOST_VERSIONS}")
    try:
        for one in (directory, directory / "images", directory / "patches"):
            one.mkdir(mode=0o755, parents=True, exist_ok=True)
        with locks.exclusive(directory / ".lock"):
            former, is_handed_over = _former(directory, key, former_key)
            if former_key is not None:
                _hand_over(directory, former_key, key)
            planned = {name: (_planned(name, store),) for name in names}
            _check_readable(Index(former.serial + 1, {**former.images, **planned}), directory)
            published = []
            images = dict(former.images)
            for name in names:
                with store.open(name) as image, progress.step(f"publishing {name}"):
                    versions = images.get(name, ())
                    is_new = not versions or versions[-1].digest != image.digest
                    if is_new:
                        versions = _with_newest(
                            image, versions, directory, keep, compression, progress
                        )
                    if offer is not None and (is_new or versions[-1].torrent is None):
                        newest = _with_torrents(versions[-1], directory, offer)
                        versions = (*versions[:-1], newest)
                    images[name] = versions
                    published.append(Published(name, versions[-1], is_new))
            if images == former.images and not is_handed_over:
                return former, published
            index = Index(former.serial + 1, images)
            _write_index(directory, index, key)
            _remove_others(directory, former.files() | index.files())
            return index, published
    except OSError as error:
        raise host_error(f"{directory} cannot be written", error) from error


def _former(directory: Path, key: Path, former_key: Path | None) -> tuple[Index, bool]:
    """Return the index that is there, or an empty one, and whether the former key signed it.

    Raises UsageError if another key signed it.
    """
    data = _content(directory / INDEX, MOST_BYTES + 1)
    signature = _content(directory / SIGNATURE, _SIGNATURE_BYTES)
    if signature is None:
        return Index(0), False
    following = _content(directory / _NEXT, MOST_BYTES + 1)
    for file in (key, former_key) if former_key is not None else (key,):
        public = keys.public_key(file)
        if data is not None and keys.is_signed(data, signature, public):
            return decode_index(data, str(directory)), file is former_key
        # The process that published was killed between the two, or the disk was full.
        if following is not None and keys.is_signed(following, signature, public):
            _put_in_place(directory)
            return decode_index(following, str(directory)), file is former_key
    if data is None:
        return Index(0), False
    raise UsageError(
        f"{directory / INDEX} was not signed with the key {key}, or was altered",
        hint="publish with the key that signed it, or name that as --former-key; in another"
        " directory with another key",
    )


def _hand_over(directory: Path, former_key: Path, key: Path) -> None:
    """Note in `directory` that one key is replaced by the other, unless it is noted."""
    path, new = directory / KEY_CHANGES, keys.public_key(key)
    change = sign_change(former_key, new)
    if change.old == new:
        raise UsageError(
            f"{former_key} has the same key as {key}",
            hint="make a new key: boincvm image key FILE; and give it as --key FILE",
        )
    data = _content(path, key_changes.MOST_BYTES + 1)
    changes = () if data is None else decode_changes(data, str(path))
    if change in changes:
        return
    if len(changes) == key_changes.MOST_CHANGES:
        raise UsageError(
            f"{path} has {len(changes)} changes of keys, as many as are read",
            hint="publish in another directory",
        )
    _write(path, encode_changes((*changes, change)))


def _content(path: Path, most: int) -> bytes | None:
    try:
        return read_regular(path, most)
    except FileNotFoundError:
        return None


def _planned(name: str, store: ImageStore) -> Version:
    """Return what an index will say of an image, as far as that is known before it is packed.

    Raises UsageError for an image that those who fetch would refuse.
    """
    with store.open_unverified(name) as image:
        check_manifest(image)
        return Version(image.digest, image.manifest.architecture, image.manifest.size, 0, "0" * 64)


def _check_readable(index: Index, directory: Path) -> None:
    """Raise UsageError for an index that those who fetch would refuse."""
    try:
        decode_index(index.encode(), str(directory))
    except ImageDamagedError as error:
        raise UsageError(
            f"an index for {directory} with these images would be refused: {error.__cause__}",
            hint="publish some of the images in another directory",
        ) from error


def _write_index(directory: Path, index: Index, key: Path) -> None:
    _check_readable(index, directory)
    data = index.encode()
    public = keys.public_key(key).encode("ascii") + b"\n"
    # All that needs space comes first. A reader who comes between the signature and the index finds
    # that they do not match, and asks again; `_former` goes on from there.
    for name, content in ((KEY, public), (_NEXT, data), (SIGNATURE, keys.sign(key, data))):
        _write(directory / name, content)
    _put_in_place(directory)


def _write(path: Path, content: bytes) -> None:
    with replacement(path) as part, create_new(part) as file:
        file.write(content)
        part.chmod(0o644)


def _put_in_place(directory: Path) -> None:
    replace_file(directory / _NEXT, directory / INDEX)
    sync_directory(directory)


def _with_newest(
    image: Image,
    versions: tuple[Version, ...],
    directory: Path,
    keep: int,
    compression: Compression,
    progress: Progress,
) -> tuple[Version, ...]:
    """Write the files of a new version; return the versions that there are now."""
    older = tuple(one for one in versions if one.digest != image.digest)[-(keep - 1) :]
    older = older if keep > 1 else ()
    version = Version(image.digest, image.manifest.architecture, image.manifest.size, 0, "0" * 64)
    version = replace(version, compression=compression)
    packed = directory / version.packed_name
    pack_image(image, packed, force=True, progress=progress)
    packed.chmod(0o644)
    version = replace(version, packed_size=packed.stat().st_size, packed_sha256=_sha256(packed))
    if version.size <= MOST_IMAGE_BYTES:
        with progress.step("packing its blocks"):
            blocks, start = _blocks(image, version, directory)
            version = replace(version, blocks=blocks, start=start)
    patches = []
    for one in older:
        with progress.step(f"comparing with {one.digest[:12]}"):
            made = _patch(image, one, version, directory)
        if made is not None:
            patches.append(made)
    # Only the newest version is made from others.
    return (
        *(replace(one, patches=(), blocks=None, start=None) for one in older),
        replace(version, patches=tuple(patches)),
    )


def _blocks(image: Image, version: Version, directory: Path) -> tuple[Blocks, Start | None]:
    """Write the map and the blocks, and what a machine starts with that reads them on demand."""
    paths = directory / version.map_name, directory / version.blocks_name
    with (
        replacement(paths[0]) as map_part,
        replacement(paths[1]) as blocks_part,
        map_part.open("xb") as map_file,
        blocks_part.open("xb") as blocks,
    ):
        packed_blocks = write_blocks(image.directory, image.manifest, map_file, blocks)
    for path in paths:
        path.chmod(0o644)
    map_size, size = (path.stat().st_size for path in paths)
    found = Blocks(size, map_size, _sha256(paths[0]))
    if not can_be_on_demand(image.manifest):
        return found, None
    path = directory / version.start_name
    with replacement(path) as part, part.open("xb") as stream:
        write_start(image.directory, image.manifest, packed_blocks, stream)
    path.chmod(0o644)
    return found, Start(path.stat().st_size, _sha256(path))


def _patch(image: Image, older: Version, version: Version, directory: Path) -> Patch | None:
    """Write the patch from `older`; return None if it is no smaller than the packed image."""
    path = directory / version.patch_name(Patch(older.digest, 0, ""))
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=directory) as name:
        base = Path(name)
        unpack_files(directory / older.packed_name, base, Progress(None))
        with replacement(path) as part, part.open("xb") as stream:
            write_patch(base, image.directory, image.manifest, stream)
    path.chmod(0o644)
    size = path.stat().st_size
    if size >= version.packed_size:
        path.unlink()
        return None
    return Patch(older.digest, size, _sha256(path))


def _with_torrents(version: Version, directory: Path, offer: Offer) -> Version:
    """Write the torrents of a version's files that are not small."""

    def torrent(name: str) -> Torrent | None:
        path, target = directory / name, directory / torrent_name(name)
        if path.stat().st_size < SMALLEST:
            return None
        with replacement(target) as part:
            made = write_torrent(path, name, part, offer)
        target.chmod(0o644)
        return made

    patches = (replace(one, torrent=torrent(version.patch_name(one))) for one in version.patches)
    return replace(version, torrent=torrent(version.packed_name), patches=tuple(patches))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remove_others(directory: Path, names: set[str]) -> None:
    """Remove the files that no index names, and what killed processes have left."""
    for folder in ("images", "patches"):
        for path in (directory / folder).iterdir():
            if f"{folder}/{path.name}" not in names:
                path.unlink()
    for path in directory.glob(".unpacked-*"):
        shutil.rmtree(path)


def describe(published: Published) -> str:
    """Return a line for people."""
    version = published.version
    if not published.is_new:
        return f"image {published.name} is already published: {version.digest[:12]}"
    patches = ", ".join(
        f"{format_size(patch.size)} from {patch.base[:12]}" for patch in version.patches
    )
    return (
        f"image {published.name} has been published: {version.digest[:12]}, "
        f"{format_size(version.packed_size)}" + (f"; patches: {patches}" if patches else "")
    )
