"""Layers of a container become one tree (OCI image specification, layer.md).

A layer is a tar archive of what it adds or changes. An empty file `.wh.NAME` in it takes NAME of
the layers below away, and `.wh..wh..opq` all that they have in its directory. Layers may be
anybody's: links among the directories of a path are followed within the tree alone.
"""

import errno
import os

from boincvm import tree_entries
from boincvm.image.oci.archive import refused
from boincvm.image.tree import Tree
from boincvm.tar_reader import Member, Readable, TarError, TarReader
from boincvm.tree_entries import UnsafePathError

MOST_BYTES = 6 << 30
"""Bytes of all files of all layers; the disk has 8 GiB."""
MOST_ENTRIES = 400_000
"""Entries of all layers; the disk has room for some 500,000 files."""
LONGEST_PATH = 4000
"""Bytes of a path, which the kernel takes no more than 4096 of; our own directory comes before."""
_LARGEST_OWNER = (1 << 32) - 1
_WHITEOUT, _OPAQUE, _AUFS = ".wh.", ".wh..wh..opq", ".wh..wh."
_OF_NAMES = (
    *(errno.EEXIST, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.EMLINK, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY),
)


class Flattening:
    """Layers that are put into `tree`, which is empty, the lowest one first."""

    def __init__(self, tree: Tree, most_bytes: int = MOST_BYTES, most: int = MOST_ENTRIES) -> None:
        self._tree = tree
        self._bytes_left = most_bytes
        self._entries_left = most
        self._own: set[str] = set()

    def add(self, stream: Readable, name: str) -> None:
        """Add the layer whose tar archive is `stream`; `name` is for people.

        Raises ImageBuildError, OSError.
        """
        self._own = set()
        reader = TarReader(stream, most_members=self._entries_left)
        try:
            for member in reader:
                self._entries_left -= 1
                self._add(member, reader)
        except (TarError, UnsafePathError) as error:
            raise refused(f"the layer {name}: {error}") from error
        except OSError as error:
            if error.errno in _OF_NAMES:
                why = error.strerror or str(error)
                raise refused(f"the layer {name} has a name that cannot be: {why}") from error
            raise

    def _add(self, member: Member, reader: TarReader) -> None:
        if len(member.name) > LONGEST_PATH or len(member.target) > LONGEST_PATH:
            raise UnsafePathError(f"a path of more than {LONGEST_PATH} bytes")
        if max(member.user, member.group) > _LARGEST_OWNER:
            raise UnsafePathError(f"{tree_entries.shown(member.name)} has an impossible owner")
        parts = [os.fsdecode(part) for part in tree_entries.components(member.name.lstrip(b"/"))]
        if not parts:
            if member.kind != "directory":
                raise UnsafePathError("its root is no directory")
            return
        if any(part.startswith(_AUFS) for part in parts[:-1]):
            return  # a file system's own notes
        *above, last = parts
        if last.startswith(_WHITEOUT):
            self._take_away("/".join(above), last)
            return
        self._bytes_left -= member.size
        if self._bytes_left < 0:
            raise UnsafePathError("the container's files are larger than an image may be")
        if member.kind == "hard link":
            tree_entries.components(member.target.lstrip(b"/"))
        name = self._tree.put("/".join(parts), member, reader if member.kind == "file" else None)
        while name and name not in self._own:
            self._own.add(name)
            name = name.rpartition("/")[0]

    def _take_away(self, above: str, whiteout: str) -> None:
        """Take away what layers below have; what this one has stays, whichever comes first."""
        hidden = whiteout.removeprefix(_WHITEOUT)
        if hidden in ("", ".", ".."):
            raise UnsafePathError(f"{whiteout!a} takes nothing away that has a name")
        directory = self._tree.existing_directory(above)
        if directory is None:
            return
        if whiteout == _OPAQUE:
            self._hide_below(directory)
        elif not whiteout.startswith(_AUFS):
            self._hide(f"{directory}/{hidden}" if directory else hidden)

    def _hide(self, name: str) -> None:
        path = self._tree.directory / name
        if name not in self._own:
            if os.path.lexists(path):
                self._tree.remove(name)
        elif path.is_dir() and not path.is_symlink():
            self._hide_below(name)

    def _hide_below(self, directory: str) -> None:
        path = self._tree.directory / directory
        if path.is_dir() and not path.is_symlink():
            for entry in sorted(path.iterdir()):
                self._hide(f"{directory}/{entry.name}" if directory else entry.name)
