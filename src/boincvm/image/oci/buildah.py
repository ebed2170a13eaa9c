"""What is done in the machine that builds a container: buildah follows the Dockerfile.

All that it prints comes from programs that nobody knows, and is shown as such.
"""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import NamedTuple

from boincvm.errors import ImageBuildError, LimitError
from boincvm.guestlink.guest_paths import ENVIRONMENT, WORK
from boincvm.guestlink.program import ProgramEnd
from boincvm.image.configure import Log
from boincvm.image.machine import BuildMachine
from boincvm.image.oci.archive import MOST_BYTES
from boincvm.image.oci.base_images import BaseImage
from boincvm.image.progress import Progress
from boincvm.sizes import format_size

MEMORY = 2 << 30
"""Bytes of the machine."""
DISK = 32 << 30
"""Bytes of its disk, of which this computer stores what is in use."""
DOCKERFILE, IGNORE, REGISTRIES, CONTEXT = "Dockerfile", "ignore", "registries.conf", "context"
"""Names in the archive that the machine gets."""
OF_REGISTRIES = b'unqualified-search-registries = ["docker.io"]\nshort-name-mode = "disabled"\n'
"""The content of REGISTRIES: `FROM debian:12` means what it means for Docker."""
_SHORT_NAMES = "/etc/containers/registries.conf.d"
_SENT, _CONTAINER = "build.tar", "container.tar"
_NAME = "container:latest"
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")
_STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP \d+/\d+: .*")
_ERROR = re.compile(r'Error: (?:building at STEP ".*?": )?(.*)')
_STATUS = re.compile(r"exit status \d+")
_INTERNAL = re.compile(r"copier\.request\{.*\}: | &imagebuilder\.Step\{.*")
"""What buildah tells of itself, at length, in an error."""
_FULL = "no space left on device"
_OF_REGISTRY = "docker://"
_IDENTIFIER = re.compile(r"[0-9a-f]{64}")
_SHOWN_STEP = 120
"""Characters of an instruction that are shown while it is followed."""


class ContainerBuild(NamedTuple):
    """What the machine gets, and what it is to build of that."""

    sent: Path
    """A tar archive with the Dockerfile, the context, IGNORE and REGISTRIES."""
    target: str
    """The stage of the Dockerfile to stop at; empty for the last."""
    arguments: Sequence[str]
    """Each NAME=VALUE."""
    base_images: Sequence[tuple[BaseImage, str]]
    """With the name of each one's format."""


class Output:
    """What the build prints: the instructions as steps of the progress, all else as details."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._log = Log(self._take)
        self._step = ""
        self._error = ""
        self._is_full = False
        self._shown = ExitStack()

    def __enter__(self) -> "Output":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._shown.__exit__(kind, error, traceback)

    def receive(self, stream: str, data: bytes) -> None:
        """Take a piece of the output."""
        self._log.receive(stream, data)

    def end_step(self) -> None:
        """End the step that is shown as running, if there is one."""
        self._shown.close()

    def _take(self, line: str) -> None:
        self._is_full = self._is_full or _FULL in line.lower()
        if _STEP.fullmatch(line):
            self.end_step()
            self._log.clear()
            self._step, self._error, self._is_full = line, "", False
            self._shown.enter_context(self._progress.step(line[:_SHOWN_STEP]))
            return
        error = _ERROR.fullmatch(line)
        if error is not None:
            self._error = _INTERNAL.sub("", error[1])
        self._progress.detail(line)

    @property
    def step(self) -> str:
        """Return the instruction that is followed, or was followed last; empty before the first."""
        return self._step

    @property
    def tail(self) -> str:
        """Return the end of the last step's output, as the end of an advice."""
        tail = self._log.tail
        return f"the end of its output:{tail}" if tail else "it printed nothing"

    def failure(self, end: ProgramEnd) -> ImageBuildError:
        """Return the error for a build that has ended in this way."""
        what = self._step or "the Dockerfile"
        if end.code is None:
            message = f"{what}: signal {end.signal} ended the build"
        elif self._step and _STATUS.fullmatch(self._error):
            message = f"{what} ended with {end.code}"
        elif self._error:
            message = f"{what} failed: {self._error}"
        else:
            message = f"{what} failed, with code {end.code}"
        return ImageBuildError(message, hint=f"{self._advice(end)}{self.tail}")

    def _advice(self, end: ProgramEnd) -> str:
        if self._is_full:
            return f"the machine's disk of {format_size(DISK)} is full; "
        if end.out_of_memory_kills:
            return f"the machine's memory of {format_size(MEMORY)} was used up; "
        if _OF_REGISTRY in self._error:
            return "a base image that is in a file here needs no registry: --base-image NAME=FILE; "
        return ""


async def build_in(
    machine: BuildMachine,
    asked: ContainerBuild,
    output: Output,
    container: Path,
    progress: Progress,
) -> None:
    """Build the container in the machine, and write its archive to `container`.

    Raises ImageBuildError, HostDiskFullError, GuestError, HypervisorError.
    """
    try:
        await machine.put(asked.sent, PurePosixPath(_SENT))
        for number, (base, _) in enumerate(asked.base_images):
            await machine.put(base.path.resolve(), PurePosixPath(_archive_name(number)))
    except LimitError as error:
        raise ImageBuildError(
            f"the machine's disk of {format_size(DISK)} is full: context and base images do not fit"
        ) from error
    sent = str(WORK / _SENT)
    await _run(machine, ["tar", "-C", str(WORK), "-xf", sent], "unpacking the context")
    # Without Debian's list, `FROM fedora` is Docker's, and not of the registry of Fedora.
    await _run(machine, ["rm", "-rf", sent, _SHORT_NAMES], "removing the context's archive")
    for number, (base, form) in enumerate(asked.base_images):
        path = f"{form}:{WORK / _archive_name(number)}"
        what = f"unpacking {base.name}"
        with progress.step(what):
            printed = await _run(machine, [*_buildah(), "pull", "--quiet", path], what)
            words = printed.decode(errors="replace").split()
            if not words or _IDENTIFIER.fullmatch(words[-1]) is None:
                raise ImageBuildError(f"{what} failed: buildah did not say what it is")
            await _run(machine, [*_buildah(), "tag", words[-1], base.name], what)
    end = await machine.run(_build_command(asked), environment(), output.receive)
    if end.code != 0:
        raise output.failure(end)
    output.end_step()
    what = "saving the container"
    with progress.step(what):
        path = f"docker-archive:{WORK / _CONTAINER}:{_NAME}"
        await _run(machine, [*_buildah(), "push", "--quiet", _NAME, path], what)
        await machine.get(PurePosixPath(_CONTAINER), container, MOST_BYTES)


def environment(ours: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return buildah's variables: `ours` with proxies, which it needs as this computer does.

    It gives them to what a Dockerfile runs, too, but they do not get into the container.
    """
    names = [name for lower in _PROXIES for name in (lower, lower.upper())]
    return {**ENVIRONMENT, **{name: ours[name] for name in names if name in ours}}


def _archive_name(number: int) -> str:
    return f"base-{number}.tar"


def _buildah() -> list[str]:
    registries = str(WORK / REGISTRIES)
    return ["buildah", "--storage-driver", "overlay", "--registries-conf", registries]


def _build_command(asked: ContainerBuild) -> list[str]:
    return [
        *_buildah(),
        *("bud", "--isolation", "chroot", "--format", "docker", "--tag", _NAME),
        "--pull=false",  # what is not here is pulled all the same
        f"--ignorefile={WORK / IGNORE}",  # what is to be left out has been
        f"--file={WORK / DOCKERFILE}",
        *([f"--target={asked.target}"] if asked.target else []),
        *(f"--build-arg={argument}" for argument in asked.arguments),
        str(WORK / CONTEXT),
    ]


async def _run(machine: BuildMachine, argv: Sequence[str], what: str) -> bytes:
    """Run a program that must succeed; return what it printed. Raises ImageBuildError."""
    log = Log(lambda _: None)
    printed = bytearray()

    def receive(stream: str, data: bytes) -> None:
        log.receive(stream, data)
        if stream == "stdout":
            printed.extend(data)
            del printed[:-4096]

    end = await machine.run(argv, environment(), receive)
    if end.code == 0:
        return bytes(printed)
    is_full = _FULL in log.tail.lower()
    full = f"the machine's disk of {format_size(DISK)} is full; " if is_full else ""
    raise ImageBuildError(
        f"{what} failed in the machine", hint=f"{full}the end of {argv[0]}'s output:{log.tail}"
    )
