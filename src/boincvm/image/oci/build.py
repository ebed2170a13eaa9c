"""Build an image from a container's archive: its files, and beside them a kernel and the agent."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import boincvm
from boincvm.image import agent_files, bytecode, disk, initrd, least_memory, tools, unpack
from boincvm.image.architectures import AMD64, HOST, ImageArchitecture
from boincvm.image.build import Built, host_programs, kernel_among, present
from boincvm.image.build_directory import build_directory
from boincvm.image.build_inputs import (
    DEBIAN,
    PYTHON_OF_SUITE,
    check_architecture,
    make_recipe,
    own_kernel_of,
)
from boincvm.image.exclude import remove_unused
from boincvm.image.kernel import KernelPackage
from boincvm.image.kernels.store import GuestKernel
from boincvm.image.machine import BootMachine
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, Manifest, Package, Recipe
from boincvm.image.names import check_image_name, check_mirror
from boincvm.image.needed import is_kernel
from boincvm.image.object_files import describe, make_durable
from boincvm.image.oci import archive, runtime
from boincvm.image.oci.commands import COMMANDS
from boincvm.image.oci.container import Container, layer_content, read_container
from boincvm.image.oci.layers import Flattening
from boincvm.image.packages import fetch_packages
from boincvm.image.progress import Progress
from boincvm.image.replaced import publish
from boincvm.image.store import ImageStore
from boincvm.image.tree import Tree

SUITE = "bookworm"
"""Debian's suite, of which the kernel and the agent's Python are."""
_COPIES = 4
"""Times the archive's size: layers are compressed, and become a tree and two disks."""


def build_container(
    name: str,
    path: Path,
    *,
    mirror: str | None = None,
    architecture: str = AMD64.name,
    kernel: str = DEBIAN,
    if_missing: bool = False,
    boot: BootMachine,
    progress: Progress,
    store: ImageStore | None = None,
) -> Built:
    """Build the image `name` from the container in the archive `path`.

    For the others see `build_image`; with `if_missing`, build only if no image of this container
    and this agent exists. Raises UsageError, InputFileError, ImageMissingError, ImageBuildError,
    HostDiskFullError, OSError.
    """
    check_image_name(name)
    if mirror is not None:
        check_mirror(mirror)
    kind = check_architecture(architecture)
    own_kernel = None if kernel == DEBIAN else own_kernel_of(kernel, kind)
    store = ImageStore() if store is None else store
    with (
        progress.step(f"building image {name}"),
        build_directory(store.builds, progress) as directory,
        archive.opened(path, directory) as opened,
    ):
        container = read_container(opened, kind.name)
        recipe = replace(make_recipe((), SUITE, own_kernel), container=str(container.digest))
        if if_missing:
            found = present(store, name, recipe, kind)
            if found is not None:
                return Built(name, found.digest, found, fresh=False)
        tools.check_host(directory, kind)
        size = sum(layer.piece.size for layer in container.layers)
        tools.check_space(directory, tools.DISK_SPACE + _COPIES * size)
        with progress.step(f"unpacking {len(container.layers)} layers"):
            tree = flattened(opened, container, directory)
        asked = _Asked(recipe, container, kind, mirror, own_kernel)
        manifest = _build(directory, asked, tree, boot, progress)
        with progress.step("putting the image in its place"):
            digest, replaced = publish(store, name, directory / "object", manifest)
    return Built(name, digest, manifest, fresh=True, replaced=replaced)


class _Asked(NamedTuple):
    """What is to be built."""

    recipe: Recipe
    container: Container
    architecture: ImageArchitecture
    mirror: str | None
    own_kernel: GuestKernel | None


def flattened(opened: archive.Archive, container: Container, directory: Path) -> Tree:
    """Put the container's layers into a new tree beneath `directory`, which takes temporary files.

    Raises ImageBuildError, OSError.
    """
    root = directory / "root"
    root.mkdir()
    root.chmod(0o755)
    tree = Tree(root)
    flattening = Flattening(tree)
    for layer in container.layers:
        with layer_content(opened, layer, directory) as content:
            flattening.add(content, layer.name)
    return tree


class _System(NamedTuple):
    """What comes from Debian, and from boincvm."""

    tree: Tree
    programs: Tree
    """Programs that run here."""
    kernel: KernelPackage
    packages: tuple[Package, ...]
    agent: bytes
    start: bytes


def _build(
    directory: Path, asked: _Asked, tree: Tree, boot: BootMachine, progress: Progress
) -> Manifest:
    architecture = asked.architecture
    system = _system(directory, asked, progress)
    with progress.step("adding the agent"):
        runtime.add_runtime(tree, system.tree, system.programs, architecture)
        agent_files.add_agent(tree, system.agent, system.start)
        runtime.prepare(tree, asked.container.settings.directory)
    target = directory / "object"
    target.mkdir()
    with progress.step("writing kernel and initrd"):
        (target / KERNEL).write_bytes(system.kernel.image)
        python = runtime.python_command(architecture, PYTHON_OF_SUITE[SUITE])
        busybox = (system.tree.directory / "usr/bin/busybox").read_bytes()
        (target / INITRD).write_bytes(
            initrd.build_initrd(agent_files.init_script(python), busybox, system.kernel)
        )
    with progress.step("writing the root disk"):
        disk.write_root_disk(tree, target / ROOT)
    with progress.step("measuring how much memory a machine needs"):
        memory = least_memory.measure(target, boot, architecture.machine, f"{COMMANDS}/cat")
    with progress.step("writing the manifest"):
        manifest = Manifest(
            architecture=architecture.name,
            recipe=asked.recipe,
            kernel_release=system.kernel.release,
            agent_version=boincvm.__version__,
            agent_sha256=hashlib.sha256(system.agent).hexdigest(),
            packages=system.packages,
            least_memory=memory,
            files=tuple(describe(target / name) for name in (INITRD, KERNEL, ROOT)),
            oci=asked.container.settings,
        )
        (target / MANIFEST).write_bytes(manifest.encode())
        make_durable(target)
    return manifest


def _system(directory: Path, asked: _Asked, progress: Progress) -> _System:
    architecture, mirror = asked.architecture, asked.mirror
    kernel_package = () if asked.own_kernel is not None else (architecture.kernel_package,)
    with progress.step(f"fetching the kernel and the agent's Python of Debian {SUITE}"):
        wanted = (*runtime.PACKAGES, *kernel_package)
        files = fetch_packages(wanted, SUITE, mirror, directory, progress, architecture.name)
        controls = unpack.read_controls(files)
    tree = Tree.create(directory / "system")
    used = [control.package for control in controls if control.package.name in runtime.PACKAGES]
    with progress.step(f"unpacking {len(used)} packages"), ThreadPoolExecutor(1) as pool:
        kernel = pool.submit(kernel_among, files, controls, architecture, asked.own_kernel)
        for file, control in zip(files, controls, strict=True):
            if control.package in used:
                unpack.unpack(file, tree)
    programs = tree
    if architecture is not HOST:
        programs = host_programs(directory, SUITE, mirror, progress)
    with progress.step("compiling Python's library and the agent"):
        remove_unused(tree)
        bytecode.compile_library(tree, programs)
        modules = _compiled(programs, agent_files.agent_sources(), f"/{agent_files.AGENT}")
        start = _compiled(programs, {agent_files.START: agent_files.START_SOURCE}, "/")
    return _System(
        tree=tree,
        programs=programs,
        kernel=kernel.result(),
        packages=tuple(
            control.package
            for control in controls
            if control.package in used or is_kernel(control.package.name)
        ),
        agent=agent_files.agent_archive(modules),
        start=start[f"{agent_files.START}c"],
    )


def _compiled(programs: Tree, modules: Mapping[str, bytes], prefix: str) -> dict[str, bytes]:
    return bytecode.compile_modules(programs, dict(modules), prefix)
