"""The image's root as a tree of files that belong to us, with a record of what they cannot show.

Nothing here needs root or pretends to be root: a file with another owner, or with a mode that we
cannot give it here, is recorded, and disk.py writes that into the file system.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from boincvm.errors import ImageBuildError
from boincvm.tar_reader import Member, Readable

_MOST_LINKS = 40
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True, slots=True)
class Attributes:
    """Permission bits, including set-user-ID and the like; numeric owner and group."""

    mode: int
    user: int = 0
    group: int = 0


@dataclass(slots=True)
class Tree:
    """A root directory. Paths in it are relative, with slashes, without dots: `usr/bin/env`.

    /bin, /sbin and /lib* are links into /usr, as in Debian.
    """

    directory: Path
    special: dict[str, Attributes] = field(default_factory=dict)
    """Attributes that the files on disk do not show."""
    times: dict[str, int] = field(default_factory=dict)
    """Modification times of the entries that keep theirs, in seconds since 1970."""

    @classmethod
    def create(cls, directory: Path) -> "Tree":
        """Create a tree with Debian's merged /usr in the new directory `directory`."""
        tree = cls(directory)
        directory.mkdir()
        directory.chmod(0o755)
        for name in ("bin", "lib", "lib64", "sbin"):
            tree.add_directory(f"usr/{name}")
            (directory / name).symlink_to(f"usr/{name}")
        return tree

    def path(self, name: str) -> Path:
        """Return the path of `name` on this computer and make its parents.

        Links among the parents are followed within the tree. Raises ImageBuildError for links that
        form a circle.
        """
        return self._resolve(PurePosixPath(name), 0)

    def _resolve(self, name: PurePosixPath, links: int) -> Path:
        if links > _MOST_LINKS:
            raise ImageBuildError(f"there is a loop of symbolic links at {str(name)[:200]!a}")
        done: list[str] = []
        parts = [part for part in name.parts if part not in ("/", ".")]
        for index, part in enumerate(parts):
            if part == "..":
                if done:
                    done.pop()
                continue
            path = self.directory.joinpath(*done, part)
            is_last = index == len(parts) - 1
            if not is_last and path.is_symlink():
                target = PurePosixPath(*([] if path.readlink().is_absolute() else done))
                rest = PurePosixPath(*parts[index + 1 :])
                return self._resolve(target / str(path.readlink()).lstrip("/") / rest, links + 1)
            if not is_last and not path.is_dir():
                if path.exists():
                    shown = PurePosixPath(*done, part)
                    raise ImageBuildError(f"/{shown} is a file in the image, and no directory")
                path.mkdir()
                path.chmod(0o755)
            done.append(part)
        return self.directory.joinpath(*done)

    def followed(self, name: str) -> str:
        """Return the name that `name` leads to: its last part may be a link in the tree, too.

        Nothing need be there. Raises ImageBuildError like `path`.
        """
        for _ in range(_MOST_LINKS):
            path = self.path(name)
            if not path.is_symlink():
                return path.relative_to(self.directory).as_posix()
            target = path.readlink()
            parent = path.parent.relative_to(self.directory)
            name = str(target).lstrip("/") if target.is_absolute() else str(parent / target)
        raise ImageBuildError(f"the image has a loop of symbolic links at {name}")

    def existing_directory(self, name: str) -> str | None:
        """Return the directory that `name` leads to, or None if it leads to none; make nothing."""
        done: list[str] = []
        ahead = [*reversed(PurePosixPath(name).parts)]
        links = 0
        while ahead:
            part = ahead.pop()
            path = self.directory.joinpath(*done, part.lstrip("/"))
            if part == "..":
                done = done[:-1]
            elif part == "/":
                done = []
            elif path.is_symlink() and links < _MOST_LINKS:
                links += 1
                ahead += reversed(path.readlink().parts)
            elif path.is_dir() and not path.is_symlink():
                done.append(part)
            else:
                return None
        return "/".join(done)

    def exists(self, name: str) -> bool:
        """Tell whether the entry exists; a dangling link counts."""
        path = self.path(name)
        return path.is_symlink() or path.exists()

    def add_directory(self, name: str, attributes: Attributes = Attributes(0o755)) -> None:
        path = self.path(self.followed(name))
        if not path.is_dir():
            path.mkdir()
        self._note(path, attributes)

    def add_file(
        self, name: str, content: bytes, attributes: Attributes = Attributes(0o644)
    ) -> None:
        path = self._free(name)
        path.write_bytes(content)
        self._note(path, attributes)

    def copy_file(self, name: str, source: Path, attributes: Attributes) -> None:
        """Add a copy of a file of this computer, which may be large."""
        path = self._free(name)
        shutil.copyfile(source, path)
        self._note(path, attributes)

    def add_link(self, name: str, target: str) -> None:
        """Add a symbolic link, unless the entry exists already."""
        path = self.path(name)
        if not path.is_symlink() and not path.exists():
            path.symlink_to(target)

    def add_member(self, name: str, member: Member, content: Readable | None) -> None:
        """Add an entry of a package. Device nodes are skipped: the guest's kernel makes them."""
        attributes = Attributes(member.mode, member.user, member.group)
        if member.kind == "directory":
            if name in _MERGED:
                self._merge(name)
                return
            if self.path(name).is_symlink():
                return  # as dpkg does: a link to a directory serves as the directory
            self.add_directory(name, attributes)
        elif member.kind == "link":
            if name in _MERGED:
                return
            self._free(name).symlink_to(os.fsdecode(member.target))
        elif member.kind == "hard link":
            self._free(name).hardlink_to(self.path(clean_name(os.fsdecode(member.target))))
        elif member.kind == "file" and content is not None:
            path = self._free(name)
            with path.open("wb") as stream:
                shutil.copyfileobj(content, stream, 1 << 20)
            self._note(path, attributes)

    def put(self, name: str, member: Member, content: Readable | None) -> str:
        """Add an entry as it is, in place of whatever was there; return its name without links.

        Unlike `add_member`, this knows nothing of Debian's layout, and it keeps times. Only a
        directory stays if another one comes. Device nodes and pipes are left out. Raises
        ImageBuildError, OSError.
        """
        path = self.path(name)
        name = path.relative_to(self.directory).as_posix()
        is_directory = path.is_dir() and not path.is_symlink()
        if not (is_directory and member.kind == "directory"):
            self.remove(name)
        if member.kind == "link":
            path.symlink_to(os.fsdecode(member.target))
        elif member.kind == "hard link":
            self._link(name, clean_name(os.fsdecode(member.target)))
            return name
        elif member.kind == "directory":
            path.mkdir(exist_ok=True)
        elif member.kind == "file" and content is not None:
            with path.open("xb") as stream:
                shutil.copyfileobj(content, stream, 1 << 20)
        else:
            return name
        attributes = Attributes(member.mode, member.user, member.group)
        if member.kind == "link":
            attributes = Attributes(0o777, member.user, member.group)
            if attributes != Attributes(0o777):
                self.special[name] = attributes
        else:
            self._note(path, attributes)
        self.times[name] = member.mtime // 10**9
        return name

    def _link(self, name: str, target: str) -> None:
        """Make a hard link to a file of the tree, whose attributes it shares."""
        source = self.path(target)
        if not source.is_symlink() and not source.is_file():
            raise ImageBuildError(f"/{name} is a hard link to /{target}, which is no file there")
        os.link(source, self.directory / name, follow_symlinks=False)
        original = source.relative_to(self.directory).as_posix()
        if original in self.special:
            self.special[name] = self.special[original]
        if original in self.times:
            self.times[name] = self.times[original]

    def _merge(self, name: str) -> None:
        """Make one of Debian's links into /usr, as `lib32`, which few packages need."""
        if not self.exists(name):
            self.add_directory(f"usr/{name}")
            self.add_link(name, f"usr/{name}")

    def replace(self, name: str, member: Member, content: Readable | None) -> None:
        """Add an entry that a machine has changed.

        Unlike `add_member`, this replaces an existing entry of another kind.
        """
        path = self.path(name)
        if member.kind == "directory":
            if path.is_symlink():
                path.unlink()
        elif path.is_dir() and not path.is_symlink():
            self.remove(name)
        self.add_member(name, member, content)

    def remove(self, name: str) -> None:
        """Remove an entry; of a directory also all that is in it."""
        path = self.path(name)
        name = path.relative_to(self.directory).as_posix()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
            for notes in (self.special, self.times):
                for noted in [noted for noted in notes if noted.startswith(f"{name}/")]:
                    del notes[noted]
        else:
            path.unlink(missing_ok=True)
        self.special.pop(name, None)
        self.times.pop(name, None)

    def _free(self, name: str) -> Path:
        path = self.path(name)
        if path.is_symlink() or path.is_file():
            path.unlink()
        return path

    def _note(self, path: Path, attributes: Attributes) -> None:
        name = path.relative_to(self.directory).as_posix()
        # We must be able to read our own tree, whatever the guest's permissions are.
        path.chmod(attributes.mode & 0o777 | (0o700 if path.is_dir() else 0o600))
        if attributes != Attributes(path.stat().st_mode & 0o7777):
            self.special[name] = attributes
        else:
            self.special.pop(name, None)

    def names(self) -> list[str]:
        """Return the names of all entries, sorted; directories come before their contents."""
        found: list[str] = []
        for folder, folders, files in os.walk(self.directory):
            base = Path(folder).relative_to(self.directory)
            found.extend((base / name).as_posix() for name in (*folders, *files))
        return sorted(found)


def clean_name(name: str) -> str:
    """Normalize a tar member's name for a Tree. Raises ImageBuildError if it leads outwards."""
    pure = PurePosixPath(name.lstrip("/"))
    if ".." in pure.parts:
        raise ImageBuildError(f"a package contains a file outside the root: {name!r}")
    return "" if pure == PurePosixPath() else pure.as_posix()
