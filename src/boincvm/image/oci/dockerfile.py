"""Build an image from a Dockerfile: the container is made in a machine of an image of ours.

Nothing of the Dockerfile runs on this computer. The context goes into the machine as one archive,
the container comes back as one, which is trusted as little as anybody's: it becomes an image as any
other does (oci/build.py).
"""

import asyncio
import io
import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from boincvm.durations import format_duration
from boincvm.errors import BoincvmError, HostDiskFullError, ImageBuildError, UsageError
from boincvm.host.resources import processors
from boincvm.hypervisor.contract import MachineSpec
from boincvm.image import tools
from boincvm.image.architectures import AMD64, ImageArchitecture
from boincvm.image.build import Built
from boincvm.image.build_directory import build_directory
from boincvm.image.build_inputs import DEBIAN, check_architecture, own_kernel_of
from boincvm.image.configure import BOOT_LIMIT
from boincvm.image.machine import BootBuildMachine, BootMachine
from boincvm.image.names import check_image_name, check_mirror
from boincvm.image.oci.base_images import BaseImage, format_of
from boincvm.image.oci.build import build_container
from boincvm.image.oci.buildah import (
    CONTEXT,
    DISK,
    DOCKERFILE,
    IGNORE,
    MEMORY,
    OF_REGISTRIES,
    REGISTRIES,
    ContainerBuild,
    Output,
    build_in,
)
from boincvm.image.oci.builder import open_builder
from boincvm.image.oci.context import Dockerfile, add_context, read_dockerfile
from boincvm.image.progress import Progress
from boincvm.image.store import Image, ImageStore
from boincvm.sizes import format_size

DEFAULT_LIMIT = 3600.0
"""Seconds within which the container must be built."""
LONGEST_LIMIT = 24 * 3600.0
MOST_ARGUMENTS = 64 << 10
"""Bytes of all build arguments, with their names."""
_MOST_CPUS = 4
_COPIES = 4
"""Times the size of a base image: it becomes a tree on the machine's disk, and an archive."""
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class DockerfileBuild(NamedTuple):
    """What is to be built."""

    directory: Path
    """The context."""
    file: Path | None = None
    """The Dockerfile; None for the one in the directory."""
    target: str = ""
    """The stage of the Dockerfile to stop at; empty for the last."""
    arguments: tuple[str, ...] = ()
    """Each NAME=VALUE."""
    base_images: tuple[BaseImage, ...] = ()
    limit: float = DEFAULT_LIMIT
    """Seconds within which the container must be built."""
    network: bool = True
    """Whether the machine reaches registries, and whatever this computer reaches."""


def read_arguments(texts: Sequence[str]) -> tuple[str, ...]:
    """Return build arguments as NAME=VALUE; one without a value has that of our environment.

    One that has none there either is left out, as Docker does. Raises UsageError.
    """
    found = []
    for text in texts:
        name, sign, _ = text.partition("=")
        if _ARGUMENT.fullmatch(name) is None:
            raise UsageError(
                f"found --build-arg {text[:80]!r}, expected NAME=VALUE",
                hint="the name is one of an ARG in the Dockerfile: letters, digits and _",
            )
        if sign:
            found.append(text)
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
    if sum(len(os.fsencode(text)) + 1 for text in found) > MOST_ARGUMENTS:
        raise UsageError(
            f"all --build-arg have more than {format_size(MOST_ARGUMENTS)}",
            hint="write longer texts into a file in the context",
        )
    return tuple(found)


def build_dockerfile(
    name: str,
    asked: DockerfileBuild,
    *,
    mirror: str | None = None,
    architecture: str = AMD64.name,
    kernel: str = DEBIAN,
    boot: BootMachine,
    boot_builder: BootBuildMachine,
    progress: Progress,
    store: ImageStore | None = None,
) -> Built:
    """Build the image `name` of the container that the Dockerfile makes.

    `boot_builder` starts the machine that makes it. For the others see `build_image`. Raises
    UsageError, InputFileError, ImageMissingError, ImageBuildError, HostDiskFullError, OSError.
    """
    check_image_name(name)
    if mirror is not None:
        check_mirror(mirror)
    kind = check_architecture(architecture)
    if kernel != DEBIAN:
        own_kernel_of(kernel, kind)  # refused before anything takes time
    dockerfile = read_dockerfile(asked.directory, asked.file)
    store = ImageStore() if store is None else store
    with build_directory(store.builds, progress) as directory:
        tools.check_host(directory, kind)
        build = _prepare(asked, dockerfile, kind, directory, progress)
        container = directory / "container.tar"
        with open_builder(store, kind, mirror, boot, progress) as builder:
            spec = _machine(builder, kind, directory, network=asked.network)
            kind_of_network = "a network" if asked.network else "no network"
            with progress.step(f"building the container in a machine with {kind_of_network}"):
                _build(spec, build, container, asked.limit, boot_builder, progress)
        build.sent.unlink()
        return build_container(
            name,
            container,
            mirror=mirror,
            architecture=architecture,
            kernel=kernel,
            boot=boot,
            progress=progress,
            store=store,
        )


def _prepare(
    asked: DockerfileBuild,
    dockerfile: Dockerfile,
    architecture: ImageArchitecture,
    directory: Path,
    progress: Progress,
) -> ContainerBuild:
    """Pack what the machine gets into a file in `directory`, and check the base images."""
    sent = directory / "build.tar"
    with progress.step("packing the context"):
        size = _pack(sent, asked.directory, dockerfile, progress)
    bases = []
    for base in asked.base_images:
        with progress.step(f"reading {base.name}"):
            bases.append((base, format_of(base, architecture.name, directory)))
            size += _COPIES * base.path.stat().st_size
    tools.check_space(directory, tools.DISK_SPACE + size)
    return ContainerBuild(sent, asked.target, asked.arguments, bases)


def _pack(sent: Path, directory: Path, dockerfile: Dockerfile, progress: Progress) -> int:
    """Write Dockerfile and context to the archive `sent`; return the bytes of its files."""
    own = {DOCKERFILE: dockerfile.text, IGNORE: b"", REGISTRIES: OF_REGISTRIES}
    with tarfile.open(
        sent, "x", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for name, content in own.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        contents = add_context(archive, CONTEXT, directory, dockerfile.rules)
    files = "1 file" if contents.files == 1 else f"{contents.files} files"
    progress.note(f"the context has {files}, {format_size(contents.size)}")
    return contents.size


def _machine(
    builder: Image, architecture: ImageArchitecture, directory: Path, *, network: bool
) -> MachineSpec:
    machine = directory / "machine"
    machine.mkdir(mode=0o700)
    return MachineSpec(
        machine,
        builder.kernel,
        builder.initrd,
        builder.root,
        memory=MEMORY,
        cpus=min(processors(), _MOST_CPUS),
        disk_size=DISK,
        network=network,
        architecture=architecture.machine,
    )


def _build(
    spec: MachineSpec,
    build: ContainerBuild,
    container: Path,
    limit: float,
    boot: BootBuildMachine,
    progress: Progress,
) -> None:
    """Boot the machine, and have the container built in it within `limit` seconds.

    Raises ImageBuildError, HostDiskFullError.
    """

    async def work() -> None:
        async with boot(spec, BOOT_LIMIT) as machine, asyncio.timeout(limit):
            await build_in(machine, build, output, container, progress)

    with Output(progress) as output:
        try:
            asyncio.run(work())
        except TimeoutError:
            where = f", and ended at {output.step}" if output.step else ""
            raise ImageBuildError(
                f"the container was not built within {format_duration(limit)}{where}",
                hint=f"allow more: --limit TIME; {output.tail}",
            ) from None
        except (ImageBuildError, HostDiskFullError):
            raise
        except BoincvmError as error:
            raise ImageBuildError(
                f"the machine that builds the container failed: {error.message}", hint=error.hint
            ) from error
