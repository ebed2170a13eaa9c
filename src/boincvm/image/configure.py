"""Configure an image's packages: their own scripts run, in a machine without a network.

The tree with the unpacked packages becomes a disk; a machine boots from it once, and dpkg does what
it would do on any Debian system. The changes come back into the tree as an archive that is trusted
no more than a package. No program of a package runs on this computer.
"""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from boincvm.errors import BoincvmError, ImageBuildError
from boincvm.guestlink.program import ProgramEnd
from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.contract import MachineSpec
from boincvm.image import disk, java_certificates
from boincvm.image.machine import BootMachine, RunProgram
from boincvm.image.progress import Progress
from boincvm.image.tree import Tree, clean_name
from boincvm.tar_reader import TarError, TarReader

MEMORY = 1 << 30
CPUS = 1
"""One processor: scripts run one after the other, and output of several threads may vary."""
BOOT_LIMIT = 120.0
LIMIT = 3600.0
"""Seconds within which all packages must be configured."""
_CONFIGURING = re.compile(r"Setting up (\S+) \(")
_SCRIPT = Path(__file__).with_name("configure.sh")
_MOST_NAMES = 256 << 20
_MOST_LOG = 1 << 20
ENVIRONMENT = {
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SOURCE_DATE_EPOCH": str(disk.EPOCH),
}
_NAMES = ("find", "/", "-xdev", "-mindepth", "1", "-printf", r"%P\0")
_CHANGES = (
    f"find / -xdev -mindepth 1 -newerct @{disk.EPOCH + 1} -printf '%P\\0' |"
    " LC_ALL=C sort -z | tar -C / --create --file=- --format=pax --numeric-owner"
    " --no-recursion --null --files-from=-"
)


def configure(
    tree: Tree,
    kernel: Path,
    initrd: Path,
    directory: Path,
    boot: BootMachine,
    on_line: Callable[[str], None],
    architecture: Architecture,
) -> None:
    """Configure the packages that are unpacked in `tree`, in a machine that `boot` starts.

    `directory` takes temporary files; `on_line` is called with each line that dpkg writes. Raises
    ImageBuildError, HostDiskFullError, HypervisorError.
    """

    async def work(run: RunProgram) -> None:
        log = Log(on_line)
        end = await run(["sh", "-c", _SCRIPT.read_text()], ENVIRONMENT, log.receive)
        if end.code != 0:
            raise log.error(end)

    machine = ChangingMachine(
        what="configures the packages",
        limit=LIMIT,
        too_late=ImageBuildError(
            f"the packages were not configured within {LIMIT:g} s",
            hint="leave out packages, or build on a faster computer",
        ),
    )
    change_in_machine(tree, kernel, initrd, directory, boot, architecture, machine, work)


class ChangingMachine(NamedTuple):
    """A machine that changes a tree."""

    what: str
    """What it does, for messages."""
    limit: float
    """Seconds from its boot until the changes are copied out of it."""
    too_late: ImageBuildError
    """The error if it takes longer."""
    disk_size: int = disk.SIZE
    """Bytes."""
    most_bytes: int = 8 << 30
    """The largest archive of changes."""


def change_in_machine(
    tree: Tree,
    kernel: Path,
    initrd: Path,
    directory: Path,
    boot: BootMachine,
    architecture: Architecture,
    changing: ChangingMachine,
    work: Callable[[RunProgram], Awaitable[None]],
) -> None:
    """Boot a machine from `tree`, let `work` run programs in it, and take what they have changed.

    `directory` takes temporary files. Raises ImageBuildError, HostDiskFullError, HypervisorError.
    """
    machine = directory / "machine"
    machine.mkdir(mode=0o700)
    root = directory / "unpacked.qcow2"
    disk.write_root_disk(tree, root, changing.disk_size)
    names, changes = directory / "names", directory / "changes.tar"
    spec = MachineSpec(machine, kernel, initrd, root, memory=MEMORY, cpus=CPUS)
    spec = spec._replace(architecture=architecture)
    with names.open("w+b") as all_names, changes.open("w+b") as archive:
        try:
            asyncio.run(_run_machine(spec, boot, changing, work, all_names, archive))
        except BoincvmError as error:
            if isinstance(error, ImageBuildError):
                raise
            raise ImageBuildError(
                f"the machine that {changing.what} failed: {error.message}",
                hint=error.hint,
            ) from error
        all_names.seek(0)
        archive.seek(0)
        _apply(tree, all_names.read(), archive)
    _remove_traces(tree)
    for path in (root, names, changes):
        path.unlink()
    machine.rmdir()


class ConfiguringLines:
    """Tells from dpkg's lines which package is being configured."""

    def __init__(self, progress: Progress, count: int) -> None:
        self._progress = progress
        self._count = count
        self._done = 0

    def receive(self, line: str) -> None:
        """Take a line that dpkg wrote."""
        configuring = _CONFIGURING.match(line)
        if configuring is not None:
            self._done += 1
            self._progress.detail(f"{configuring[1]} ({self._done} of {self._count})")


async def _run_machine(
    spec: MachineSpec,
    boot: BootMachine,
    changing: ChangingMachine,
    work: Callable[[RunProgram], Awaitable[None]],
    names: BinaryIO,
    changes: BinaryIO,
) -> None:
    try:
        async with boot(spec, BOOT_LIMIT) as run, asyncio.timeout(changing.limit):
            await work(run)
            await _save(run, list(_NAMES), names, _MOST_NAMES)
            await _save(run, ["sh", "-c", _CHANGES], changes, changing.most_bytes)
    except TimeoutError:
        raise changing.too_late from None


async def _save(run: RunProgram, argv: Sequence[str], file: BinaryIO, most: int) -> None:
    """Write a guest program's standard output to `file`."""
    errors = bytearray()

    def receive(stream: str, data: bytes) -> None:
        if stream == "stderr":
            errors.extend(data[: 4096 - len(errors)])
        elif file.tell() + len(data) > most:
            raise ImageBuildError("what the machine has changed is larger than an image may be")
        else:
            file.write(data)

    end = await run(argv, ENVIRONMENT, receive)
    if end.code != 0:
        raise ImageBuildError(f"{argv[0]} failed in the machine: {errors.decode(errors='replace')}")


class Log:
    """The output of dpkg or a script, of which the end is kept."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._output = on_line
        self._line = b""
        self._lines: list[str] = []

    def receive(self, _: str, data: bytes) -> None:
        """Take a piece of the output."""
        *lines, self._line = (self._line + data).split(b"\n")
        self._line = self._line[-_MOST_LOG:]
        for line in lines:
            text = "".join(filter(str.isprintable, line.decode(errors="replace")))[:500]
            self._lines = [*self._lines[-39:], text]
            self._output(text)

    def clear(self) -> None:
        """Forget the lines so far."""
        self._lines = []

    @property
    def tail(self) -> str:
        """Return the last lines, each in a line of its own and indented."""
        last = "".join(filter(str.isprintable, self._line.decode(errors="replace")))[:500]
        return "".join(f"\n    {line}" for line in (*self._lines, *([last] if last else [])))

    def error(self, end: ProgramEnd) -> ImageBuildError:
        """Return the error for dpkg, which has ended in this way."""
        why = next((line for line in reversed(self._lines) if "error processing" in line), "")
        status = f"signal {end.signal}" if end.code is None else f"{end.code}"
        return ImageBuildError(
            f"the packages could not be configured (ended with {status}) {why}",
            hint=f"the end of dpkg's output:{self.tail}",
        )


def _apply(tree: Tree, names: bytes, archive: BinaryIO) -> None:
    names_before = {os.fsdecode(name) for name in names.split(b"\0") if name}
    for name in reversed(tree.names()):
        if name not in names_before:
            tree.remove(name)
    try:
        members = TarReader(archive)
        for member in members:
            name = clean_name(os.fsdecode(member.name))
            if name:
                tree.replace(name, member, members if member.kind == "file" else None)
    except TarError as error:
        raise ImageBuildError(f"what the machine sent is damaged: {error}") from error


_JAVA_CERTIFICATES = "etc/ssl/certs/java/cacerts"
_DATED = {"usr/share/octave/octave_packages": re.compile(rb"\A# Created by [^\n]*\n")}
"""Files with a line that says when they were written, and the pattern of that line."""
_TRACES = re.compile(
    r"""
      etc/(passwd|group|shadow|gshadow|subuid|subgid)-
    | etc/\.pwd\.lock
    | etc/ssh/ssh_host_.*                       # keys that every copy of the image would share
    | etc/ssl/private/ssl-cert-snakeoil\.key | etc/ssl/certs/ssl-cert-snakeoil\.pem
    | usr/lib/jvm/.*\.jsa                     # memory images of a Java that has run once
    | run/.+ | tmp/.+ | var/tmp/.+
    | var/cache/(ldconfig|apt|man)/.+
    | var/cache/debconf/.*-old
    | var/lib/dbus/machine-id | var/lib/systemd/random-seed
    | var/lib/dpkg/(lock|lock-frontend|.*-old|triggers/Lock)
    | var/log/.*[^/]
    """,
    re.VERBOSE,
)
"""Files that say when and where the packages were configured, and secrets made at that time."""


def _remove_traces(tree: Tree) -> None:
    for name in reversed(tree.names()):
        path = tree.directory / name
        is_directory = path.is_dir() and not path.is_symlink()
        if _TRACES.fullmatch(name) and not (is_directory and name.startswith("var/log/")):
            tree.remove(name)
    tree.add_file("etc/machine-id", b"")
    for name, line in _DATED.items():
        _rewrite(tree, name, partial(line.sub, b""))
    _rewrite(tree, _JAVA_CERTIFICATES, java_certificates.without_times)


def _rewrite(tree: Tree, name: str, change: Callable[[bytes], bytes]) -> None:
    path = tree.path(name)
    if path.is_file() and not path.is_symlink():
        path.write_bytes(change(path.read_bytes()))
