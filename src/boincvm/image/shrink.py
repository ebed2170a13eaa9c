"""Make a smaller image of another: without unused blocks, and without what an app never touches.

The image's files come out of a machine of it as an archive, which is trusted no more than a
package, and become a new disk; so nothing is left of deleted files. With a command, that runs in
the machine first, and the guest tells which files were touched (touched_files.py). The others are
removed, and the command runs in a machine of the new image: unless it ends in the same way, prints
the same and writes the same files there, no image is made. The original is only read.
"""

import asyncio
import hashlib
import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

from boincvm.durations import format_duration
from boincvm.errors import ImageBuildError, ProgramStartError, UsageError
from boincvm.guestlink.guest_paths import ENVIRONMENT, WORK
from boincvm.hypervisor.contract import MachineSpec
from boincvm.image import agent_files, disk, kept_files, touched_files
from boincvm.image.build_directory import build_directory
from boincvm.image.configure import BOOT_LIMIT
from boincvm.image.machine import BootMachine, RunProgram
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, Manifest
from boincvm.image.names import check_image_name
from boincvm.image.object_files import describe, make_durable
from boincvm.image.postinst_files import link_to_busybox
from boincvm.image.progress import Progress
from boincvm.image.store import Image, ImageStore
from boincvm.image.tools import check_space
from boincvm.image.tree import Tree, clean_name
from boincvm.job.model import MIB
from boincvm.tar_reader import TarError, TarReader

MEMORY = 512 * MIB
LIMIT = 3600.0
"""Seconds that the command may run, if nobody says otherwise."""
_COPY_LIMIT = 1800.0
"""Seconds in which an image's files come out of the machine, or are looked through."""
_LARGEST_TREE = 8 << 30
_MOST_NAMES = 64 << 20
_MOST_ERRORS = 4096
_SPACE = 6
"""How often the root disk's size is needed while an image is made: archive, tree, raw disk, disk;
what the disk holds may be larger than its file."""
_SAFE = " !#$&'()*+,-./:;<=>?@[]^_`{|}~"
"""What a manifest may have besides letters and digits (manifest.is_canonical)."""
_APPLET = re.compile(r"[A-Za-z0-9_.\[-]{1,40}")
_IN_WORK = ("sh", "-c", f'cd {WORK} && exec "$@"', "sh")
_ARCHIVE = (
    "cd / && find . -xdev -mindepth 1 -print0 | LC_ALL=C sort -z | tar --create --file=-"
    " --format=pax --numeric-owner --no-recursion --null --files-from=-"
)
_SHELLS = "for shell in sh dash bash; do ! command -v $shell || env $shell -c :; done"
"""Touches the libraries of the shells, which stay."""
_SCRIPT = Path(touched_files.__file__)
_T = TypeVar("_T")
_PYTHON = ("/usr/bin/python3", "-I", "-S", "-B", "-c")


class Command(NamedTuple):
    """The app's run that a smaller image must do as the original does."""

    argv: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    """Files that it writes, in its working directory or by their whole paths."""
    limit: float = LIMIT
    """Seconds."""


class Ran(NamedTuple):
    """What became of the command."""

    status: str
    stdout: str
    """The SHA-256 of what it printed."""
    outputs: tuple[tuple[str, str], ...]
    """Each output with its SHA-256."""

    def differences(self, other: "Ran") -> list[str]:
        """Say in words what differs."""
        found = []
        if self.status != other.status:
            found.append(f"it ended with {other.status} instead of {self.status}")
        if self.stdout != other.stdout:
            found.append("it printed something else")
        pairs = zip(self.outputs, other.outputs, strict=True)
        found += [f"{mine[0]} is another" for mine, others in pairs if mine != others]
        return found


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What was made, or would have been."""

    name: str
    digest: str
    """Empty if no image was made."""
    before: int
    """Bytes of the original's files."""
    after: int
    """Bytes of the new image's; 0 if none was made."""
    removed: tuple[str, ...]
    """The files that were left out, or would be."""
    removed_bytes: int
    files: int
    """How many files the original has."""


class _Traced(NamedTuple):
    """What a machine of the original has told. Nothing in it can be trusted."""

    ran: Ran
    touched: frozenset[str]
    applets: frozenset[str]
    """The commands of busybox."""


def shrink_image(
    image: Image,
    name: str,
    store: ImageStore,
    command: Command | None = None,
    *,
    memory: int = 0,
    force: bool = False,
    is_trial: bool = False,
    boot: BootMachine,
    progress: Progress,
) -> Shrunk:
    """Make the image `name` of `image`, as small as `command` lets it be.

    `memory`: bytes that machines get, at least what the image needs. `force` replaces an image
    `name` that exists; `is_trial`: only find out what would be removed. Raises UsageError,
    ImageBuildError if a smaller image does not do what the original does, HypervisorError,
    HostDiskFullError, HostError.
    """
    check_image_name(name)
    if name == image.name or (name in store.names() and not force):
        raise UsageError(
            f"there is an image {name} already", hint="name another with --as, or give --force"
        )
    if image.manifest.oci is not None:
        raise UsageError(
            f"image {image.name} is a container's, and only images of Debian's packages are shrunk",
            hint="make the container smaller, and its image again: build --from-oci",
        )
    memory = max(memory or MEMORY, image.least_memory)
    with (
        progress.step(f"shrinking image {image.name}"),
        build_directory(store.builds, progress) as directory,
    ):
        check_space(directory, _SPACE * image.root.stat().st_size)
        return _Shrinking(image, directory, memory, boot, progress).run(
            name, store, command, is_trial=is_trial
        )


class _Shrinking:
    """One image that is shrunk, in a directory of its own."""

    def __init__(
        self, image: Image, directory: Path, memory: int, boot: BootMachine, progress: Progress
    ) -> None:
        self._image = image
        self._directory = directory
        self._memory = memory
        self._boot = boot
        self._progress = progress
        self._tree = Tree(directory / "whole")

    def run(
        self, name: str, store: ImageStore, command: Command | None, *, is_trial: bool
    ) -> Shrunk:
        traced = self._trace(command)
        names = self._tree.names()
        folders = [one for one in names if _is_directory(self._tree, one)]
        files = frozenset(names).difference(folders)
        made: Path | None = None
        staying = frozenset(names)
        if command is None or traced is None:
            if not is_trial:
                made = self._write(staying, frozenset())
                self._check(made)
        else:
            links = _links(self._tree, names)
            staying = kept_files.files_to_keep(names, folders, links, traced.touched)
            if not is_trial:
                more = kept_files.with_siblings(traced.touched, files)
                staying, made = self._first_that_works(
                    (staying, kept_files.files_to_keep(names, folders, links, more)),
                    command,
                    traced,
                )
        removed = sorted(files - staying)
        sizes = [(self._tree.directory / one).lstat().st_size for one in removed]
        before = self._image.manifest.size
        digest, after = "", 0
        if made is not None:
            manifest = self._finish(made, command)
            after = manifest.size
            with self._progress.step("putting the image in its place"):
                digest = store.publish(name, made, manifest)
        return Shrunk(name, digest, before, after, tuple(removed), sum(sizes), len(files))

    def _first_that_works(
        self, candidates: Sequence[frozenset[str]], command: Command, traced: _Traced
    ) -> tuple[frozenset[str], Path]:
        """Return what stays in the first image in which the command does the same; and it."""
        differences: list[str] = []
        for staying in candidates:
            made = self._write(staying, traced.applets)
            with self._progress.step("running the command in the smaller image"):
                differences = traced.ran.differences(self._ran(made, command))
            if not differences:
                return staying, made
            self._progress.note(f"in a smaller image, {'; '.join(differences)}")
        with self._progress.step("running the command in the original once more"):
            again = traced.ran.differences(self._ran(self._image.directory, command))
        if again:
            raise ImageBuildError(
                f"image {self._image.name} cannot be shrunk for a command that does not do the"
                f" same each time: {'; '.join(again)}",
                hint="give a command whose output has no times or random numbers in it",
            )
        raise ImageBuildError(
            f"image {self._image.name} was not shrunk: in a smaller one the command did not do the"
            f" same: {'; '.join(differences)}",
            hint="shrink it without a command: then only unused blocks are left out",
        )

    # In a machine of the original.

    def _trace(self, command: Command | None) -> _Traced | None:
        """Take the image's files, and tell what the command touches if there is one."""
        archive = self._directory / "files.tar"
        with archive.open("w+b") as stream:
            with self._progress.step("running the command in a machine, and copying its files"):
                traced = self._in_machine(
                    self._image.directory, lambda run: self._copy_and_trace(run, command, stream)
                )
            stream.seek(0)
            with self._progress.step("unpacking the files"):
                _unpack(stream, self._tree)
        archive.unlink()
        return traced

    async def _copy_and_trace(
        self, run: RunProgram, command: Command | None, archive: BinaryIO
    ) -> _Traced | None:
        async with asyncio.timeout(_COPY_LIMIT):
            await _output(run, ("sh", "-c", _ARCHIVE), _Into(archive, _LARGEST_TREE))
        if command is None:
            return None
        script = _SCRIPT.read_text()
        applets, names = _Collected(_MOST_NAMES), _Collected(_MOST_NAMES)
        async with asyncio.timeout(_COPY_LIMIT):
            # Not every image has busybox.
            busybox = "command -v busybox >/dev/null || exit 0; busybox --list"
            await _output(run, ("sh", "-c", busybox), applets)
            await _output(run, (*_PYTHON, script, "begin"), _Collected(_MOST_ERRORS))
        ran = await _run_command(run, command)
        async with asyncio.timeout(_COPY_LIMIT):
            agent = f"/{agent_files.AGENT}"
            use = (*_PYTHON, script, "use", agent, *agent_files.imported_modules())
            await _output(run, use, _Collected(_MOST_ERRORS))
            await _output(run, ("sh", "-c", _SHELLS), _Collected(_MOST_ERRORS))
            await _output(run, (*_PYTHON, script, "end"), names)
        words = applets.data.decode("ascii", "replace").split()
        return _Traced(
            ran,
            frozenset(os.fsdecode(one) for one in bytes(names.data).split(b"\0")),
            frozenset(one for one in words if _APPLET.fullmatch(one)),
        )

    # A smaller image.

    def _write(self, staying: frozenset[str], applets: frozenset[str]) -> Path:
        """Write an image of what stays; return its directory, in which a manifest lacks."""
        target = self._directory / "object"
        smaller = Tree(self._directory / "smaller")
        for path in (target, smaller.directory):
            if path.exists():
                shutil.rmtree(path)
            path.mkdir(mode=0o755)
        with self._progress.step(f"writing a disk of {len(staying)} files and directories"):
            _link_tree(self._tree, staying, smaller)
            gone = {one for one in self._tree.names() if one not in staying}
            link_to_busybox(
                smaller,
                (one for one in sorted(applets) if gone & {f"usr/bin/{one}", f"usr/sbin/{one}"}),
            )
            if smaller.exists("etc/machine-id"):  # the agent has given the machine one
                smaller.add_file("etc/machine-id", b"")
            disk.write_root_disk(smaller, target / ROOT)
            for name in (KERNEL, INITRD):
                shutil.copyfile(self._image.directory / name, target / name)
        return target

    def _check(self, made: Path) -> None:
        """Check that a machine of the new image runs a program."""
        with self._progress.step("running a program in the new image"):
            ran = self._ran(made, Command(("true",)))
        if ran.status != "code 0":
            raise ImageBuildError(
                f"a machine of the new image does not work: `true` ended with {ran.status}",
                hint="report this: it is a bug in the program that shrinks images",
            )

    def _finish(self, made: Path, command: Command | None) -> Manifest:
        argv = () if command is None else command.argv
        manifest = replace(
            self._image.manifest,
            files=tuple(describe(made / name) for name in (INITRD, KERNEL, ROOT)),
            shrunk_from=self._image.digest,
            shrunk_for=tuple(quote(os.fsencode(one), _SAFE) for one in argv),
        )
        (made / MANIFEST).write_bytes(manifest.encode())
        make_durable(made)
        return manifest

    # Machines.

    def _ran(self, image: Path, command: Command) -> Ran:
        return self._in_machine(image, lambda run: _run_command(run, command))

    def _in_machine(self, image: Path, work: Callable[[RunProgram], Awaitable[_T]]) -> _T:
        """Boot a machine of the image in the directory `image`; return what `work` does in it."""

        async def in_machine() -> _T:
            with tempfile.TemporaryDirectory(dir=self._directory) as name:
                Path(name).chmod(0o700)
                files = (image / KERNEL, image / INITRD, image / ROOT)
                spec = MachineSpec(Path(name), *files, memory=self._memory, cpus=1)
                spec = spec._replace(architecture=self._image.architecture)
                async with self._boot(spec, BOOT_LIMIT) as run:
                    return await work(run)

        try:
            return asyncio.run(in_machine())
        except TimeoutError:
            raise ImageBuildError(
                "the files of the image could not be copied or looked through within"
                f" {format_duration(_COPY_LIMIT)}",
                hint="shrink it on a faster computer",
            ) from None
        except ProgramStartError as error:
            raise ImageBuildError(
                f"a program cannot start in a machine of {self._image.name}: {error.message}",
                hint="see boincvm help images, Shrink an image",
            ) from error


async def _run_command(run: RunProgram, command: Command) -> Ran:
    """Run the command and tell what came of it. Raises ImageBuildError if it takes too long."""
    printed = _Hashed()
    try:
        async with asyncio.timeout(command.limit):
            end = await run((*_IN_WORK, *command.argv), ENVIRONMENT, printed.receive)
    except TimeoutError:
        raise ImageBuildError(
            f"the command has not ended within {format_duration(command.limit)}",
            hint="give it less to do, or more time: --limit",
        ) from None
    status = f"signal {end.signal}" if end.code is None else f"code {end.code}"
    outputs = []
    async with asyncio.timeout(_COPY_LIMIT):
        for path in command.outputs:
            content = _Hashed()
            await _output(run, ("cat", "--", posixpath.join(WORK, path)), content)
            outputs.append((path, content.digest))
    return Ran(status, printed.digest, tuple(outputs))


class _Sink(Protocol):
    def receive(self, stream: str, data: bytes) -> None:
        """Take a piece of a program's output."""


class _Hashed:
    """What a program prints, of which only the digest is wanted."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def receive(self, stream: str, data: bytes) -> None:
        """Take a piece of a program's output."""
        if stream == "stdout":
            self._hash.update(data)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


class _Collected:
    """What a program prints, which may have `most` bytes."""

    def __init__(self, most: int) -> None:
        self.data = bytearray()
        self._most = most

    def receive(self, stream: str, data: bytes) -> None:
        """Take a piece of a program's output."""
        if stream == "stdout":
            self.data += data
            if len(self.data) > self._most:
                raise ImageBuildError("the machine tells of more files than an image may have")


class _Into:
    """Writes what a program prints to a file, up to `most` bytes."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._most = most

    def receive(self, stream: str, data: bytes) -> None:
        """Take a piece of a program's output."""
        if stream == "stdout":
            if self._file.tell() + len(data) > self._most:
                raise ImageBuildError("the image's files are larger than an image may be")
            self._file.write(data)


async def _output(run: RunProgram, argv: Sequence[str], sink: _Sink) -> None:
    """Give a program's standard output to `sink`. Raises ImageBuildError if it fails."""
    errors = bytearray()

    def receive(stream: str, data: bytes) -> None:
        if stream == "stderr":
            errors.extend(data[: _MOST_ERRORS - len(errors)])
        else:
            sink.receive(stream, data)

    end = await run(argv, ENVIRONMENT, receive)
    if end.code != 0:
        text = errors.decode(errors="replace").strip().rpartition("\n")[2]
        shown = "".join(filter(str.isprintable, text))[:200]
        raise ImageBuildError(
            f"{argv[0]} failed in a machine of the image: {shown}",
            hint="an image is shrunk with its own sh, find, sort, tar, cat and Python",
        )


def _unpack(archive: BinaryIO, tree: Tree) -> None:
    """Unpack what the machine sent. Raises ImageBuildError."""
    tree.directory.mkdir(mode=0o755)
    try:
        members = TarReader(archive)
        for member in members:
            name = clean_name(os.fsdecode(member.name))
            if member.kind == "link" and "/" not in name:  # into /usr, which a package never makes
                tree.add_link(name, os.fsdecode(member.target))
            elif name:
                tree.add_member(name, member, members if member.kind == "file" else None)
    except TarError as error:
        raise ImageBuildError(f"what the machine sent is damaged: {error}") from error


def _is_directory(tree: Tree, name: str) -> bool:
    path = tree.directory / name
    return path.is_dir() and not path.is_symlink()


def _links(tree: Tree, names: Sequence[str]) -> dict[str, str]:
    """Return what each link leads to, as a name in the tree; only its last part is followed."""
    found = {}
    for name in names:
        path = tree.directory / name
        if path.is_symlink():
            target = posixpath.join("/", posixpath.dirname(name), str(path.readlink()))
            first, _, rest = posixpath.normpath(target).lstrip("/").partition("/")
            merged = tree.directory / first
            prefix = str(merged.readlink()) if rest and merged.is_symlink() else first
            found[name] = posixpath.normpath(posixpath.join(prefix, rest))
    return found


def _link_tree(source: Tree, staying: frozenset[str], target: Tree) -> None:
    """Make `target` of what stays of `source`; files are shared."""
    for name in sorted(staying):
        path, new = source.directory / name, target.directory / name
        if _is_directory(source, name):
            new.mkdir()
            new.chmod(path.stat().st_mode & 0o777)
        else:
            os.link(path, new, follow_symlinks=False)
        if name in source.special:
            target.special[name] = source.special[name]
