"""Build an image: packages, tree, disk, kernel, initrd, manifest; each step named and timed."""

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import boincvm
from boincvm.errors import BoincvmError, ImageBuildError, UsageError
from boincvm.image import (
    agent_files,
    alternatives,
    bytecode,
    certificates,
    disk,
    dpkg_database,
    foreign,
    initrd,
    least_memory,
    postinst_files,
    tools,
    unpack,
)
from boincvm.image.architectures import AMD64, ARCHITECTURES, HOST, ImageArchitecture
from boincvm.image.build_directory import build_directory
from boincvm.image.configure import ConfiguringLines, configure
from boincvm.image.exclude import is_for_kernel, trim
from boincvm.image.kernel import KernelPackage, read_kernel
from boincvm.image.kernels import store as kernel_store
from boincvm.image.kernels.store import GuestKernel
from boincvm.image.machine import BootMachine
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, ContentFile, Manifest, Recipe
from boincvm.image.names import check_image_name, check_mirror, check_package_names
from boincvm.image.packages import fetch_packages
from boincvm.image.progress import Progress
from boincvm.image.store import ImageStore
from boincvm.image.tree import Tree
from boincvm.image.unpack import Control

RECIPE_VERSION = 5
"""The version of the builder's rules. Raise it whenever they change an image's content."""

PYTHON_OF_SUITE = {"bookworm": "python3.11"}
"""The suites that are known to work, and the Python that starts the agent there."""

_KERNEL = re.compile(r"linux-image-\d")
"""Matches a kernel package, but not one such as `linux-image-cloud-amd64`: that one is empty and
depends on the newest kernel."""

_BASE = (
    *("base-files", "base-passwd", "bash", "busybox-static", "coreutils", "dash", "findutils"),
    *("grep", "gzip", "hostname", "libc-bin", "mawk", "sed", "tar"),
    *("ca-certificates", "netbase", "tzdata"),
)
"""The packages that the agent needs, and those Essential ones that Debian's programs rely on."""
DEBIAN = "debian"
"""The name that stands for Debian's own kernel."""
_COPIES = 3
"""Copies of the unpacked packages that exist at the same time: the tree, the disk made of it (or
the one to be configured), and the raw disk in between."""
_ESSENTIAL = ("?essential", "usr-is-merged")
"""All Essential packages (apt-patterns(7)), and the one that says that /usr is merged already:
otherwise apt would bring the program that merges it."""


@dataclass(frozen=True, slots=True)
class Built:
    """The result of a build."""

    name: str
    digest: str
    manifest: Manifest
    fresh: bool
    """False if `if_missing` was given and the image was up to date."""


def build_image(
    name: str,
    packages: tuple[str, ...] = (),
    *,
    suite: str = "bookworm",
    mirror: str | None = None,
    architecture: str = AMD64.name,
    kernel: str = DEBIAN,
    if_missing: bool = False,
    boot: BootMachine,
    progress: Progress,
    store: ImageStore | None = None,
) -> Built:
    """Build the image `name` with the Debian packages `packages` and all they depend on.

    `architecture`: one of ARCHITECTURES. `kernel`: DEBIAN, or the name of a kernel that was built
    here. With `if_missing`, do so only if no image of this recipe and this agent exists. `boot`
    starts the machines in which packages are configured and the image is tried. Raises UsageError,
    ImageMissingError, ImageBuildError, HostDiskFullError, ImageDamagedError.
    """
    check_image_name(name)
    if mirror is not None:
        check_mirror(mirror)
    kind = check_architecture(architecture)
    own_kernel = None if kernel == DEBIAN else _own_kernel(kernel, kind)
    recipe = make_recipe(packages, suite, own_kernel)
    store = ImageStore() if store is None else store
    if if_missing:
        found = _present(store, name, recipe, kind)
        if found is not None:
            return Built(name, found.digest, found, fresh=False)
    with build_directory(store.builds) as directory, progress.step(f"building image {name}"):
        tools.check_host(directory, kind)
        manifest = _build(directory, recipe, kind, mirror, own_kernel, boot, progress)
        with progress.step("putting the image in its place"):
            digest = store.publish(name, directory / "object", manifest)
    return Built(name, digest, manifest, fresh=True)


def check_architecture(name: str) -> ImageArchitecture:
    """Return the architecture with this name. Raises ImageBuildError for an unknown one."""
    found = ARCHITECTURES.get(name)
    if found is None:
        raise ImageBuildError(
            f"images for {ascii(name)[:40]} cannot be built",
            hint=f"choose one of: {', '.join(ARCHITECTURES)}",
        )
    return found


def _own_kernel(name: str, architecture: ImageArchitecture) -> GuestKernel:
    if architecture is not AMD64:
        shown = ascii(name)[1:-1][:40]
        raise UsageError(
            f"the kernel {shown} is for amd64, and the image for {architecture.name}",
            hint=f"leave out --kernel: images for {architecture.name} have Debian's kernel",
        )
    if name == kernel_store.UML:
        raise UsageError(
            "the kernel uml is a program of the host, and no image holds it",
            hint="--driver uml uses it for any image once it is built",
        )
    return kernel_store.read(name)


def make_recipe(
    packages: tuple[str, ...], suite: str, own_kernel: GuestKernel | None = None
) -> Recipe:
    """Check the names and make a recipe of them.

    Raises UsageError for invalid names, ImageBuildError for an unknown suite.
    """
    checked = check_package_names(packages)
    if suite not in PYTHON_OF_SUITE:
        raise ImageBuildError(
            f"images of Debian {suite!r} cannot be built",
            hint=f"choose one of: {', '.join(PYTHON_OF_SUITE)}",
        )
    kernel = "" if own_kernel is None else own_kernel.sha256
    return Recipe(RECIPE_VERSION, suite, checked, agent_files.guest_digest(), kernel)


def _present(
    store: ImageStore, name: str, recipe: Recipe, architecture: ImageArchitecture
) -> Manifest | None:
    try:
        with store.open(name) as image:
            found = image.manifest
            is_it = found.recipe == recipe and found.architecture == architecture.name
            return found if is_it else None
    except BoincvmError:
        return None  # missing or damaged: building repairs it


def _build(
    directory: Path,
    recipe: Recipe,
    architecture: ImageArchitecture,
    mirror: str | None,
    own_kernel: GuestKernel | None,
    boot: BootMachine,
    progress: Progress,
) -> Manifest:
    packages = _fetch(directory, recipe, architecture, mirror, progress)
    files, controls = packages.files, packages.controls
    tree = Tree.create(directory / "root")
    postinst_files.add_links_before(tree)
    with progress.step(f"unpacking {len(files)} packages"):
        kernel, names = _unpack(files, controls, tree, architecture, own_kernel)
    programs = tree
    if architecture is not HOST:
        programs = _programs(directory, recipe, mirror, progress)
    with progress.step("adding files of an installed Debian"):
        in_root = [control for control in controls if not is_for_kernel(control.package.name)]
        postinst_files.add_system_files(tree)
        certificates.add_certificates(tree, programs)
        if packages.are_configured:
            dpkg_database.add_database(tree, in_root, names)
        else:
            dpkg_database.add_status(tree, in_root)
            alternatives.add_alternatives(tree, [_postinst(control) for control in controls])
    with progress.step("compiling Python's library and the agent"):
        bytecode.compile_library(tree, programs)
        modules = bytecode.compile_modules(
            programs, agent_files.agent_sources(), f"/{agent_files.AGENT}"
        )
        agent = agent_files.agent_archive(modules)
        script = {agent_files.START: agent_files.START_SOURCE}
        start = bytecode.compile_modules(programs, script, "/")
        agent_files.add_agent(tree, agent, start[f"{agent_files.START}c"])
    target = directory / "object"
    target.mkdir()
    with progress.step("writing kernel and initrd"):
        (target / KERNEL).write_bytes(kernel.image)
        busybox = (tree.directory / "usr/bin/busybox").read_bytes()
        (target / INITRD).write_bytes(
            initrd.build_initrd(agent_files.init_script(), busybox, kernel)
        )
    if packages.are_configured:
        with progress.step(f"configuring {len(in_root)} packages in a machine"):
            lines = ConfiguringLines(progress, len(in_root))
            boots = (target / KERNEL, target / INITRD)
            configure(tree, *boots, directory, boot, lines.receive, architecture.machine)
    with progress.step("leaving out unneeded files"):
        trim(tree)
        postinst_files.add_busybox_commands(tree, programs)
    with progress.step("writing the root disk"):
        disk.write_root_disk(tree, target / ROOT)
    with progress.step("measuring how much memory a machine needs"):
        memory = least_memory.measure(target, boot, architecture.machine)
    return _write_manifest(target, recipe, architecture, packages, kernel, agent, memory, progress)


@dataclass(frozen=True, slots=True)
class _Packages:
    """The fetched package files and their control data, in the same order."""

    files: list[Path]
    controls: list[Control]
    are_configured: bool
    """The packages' scripts are to run."""


def _fetch(
    directory: Path,
    recipe: Recipe,
    architecture: ImageArchitecture,
    mirror: str | None,
    progress: Progress,
) -> _Packages:
    """Fetch the wanted packages.

    If any of them needs configuring, fetch the Essential packages too: its scripts rely on them.
    """

    def fetch(*packages: str) -> list[Path]:
        kernel = () if recipe.kernel else (architecture.kernel_package,)
        wanted = (*_BASE, *kernel, "python3", *packages)
        return fetch_packages(wanted, recipe.suite, mirror, directory, progress, architecture.name)

    with progress.step(f"fetching packages of Debian {recipe.suite} for {architecture.name}"):
        files = fetch(*recipe.packages)
        base = set(files) if not recipe.packages else set(fetch())
    with progress.step(f"reading {len(files)} packages"):
        controls = unpack.read_controls(files)
        pairs = zip(files, controls, strict=True)
        are_configured = any(
            control.wants_configuring for file, control in pairs if file not in base
        )
    if are_configured:
        with progress.step("fetching packages that their scripts need"):
            files = fetch(*_ESSENTIAL, *recipe.packages)
            controls = unpack.read_controls(files)
        installed = sum(control.installed_size for control in controls)
        tools.check_space(directory, tools.DISK_SPACE + _COPIES * installed)
    return _Packages(files, controls, are_configured)


def _postinst(control: Control) -> str:
    return control.files.get("postinst", b"").decode("utf-8", "replace")


def _programs(directory: Path, recipe: Recipe, mirror: str | None, progress: Progress) -> Tree:
    """Unpack what a build runs on this computer, which the image's own programs do not run on."""
    with progress.step(f"fetching programs for {HOST.name}, to build with"):
        files = fetch_packages(foreign.PACKAGES, recipe.suite, mirror, directory, progress)
        tree = Tree.create(directory / "programs")
        for file in files:
            unpack.unpack(file, tree)
    return tree


def _unpack(
    files: list[Path],
    controls: list[Control],
    tree: Tree,
    architecture: ImageArchitecture,
    own_kernel: GuestKernel | None,
) -> tuple[KernelPackage, dict[str, list[str]]]:
    """Unpack the packages; return the kernel and the names of each other package's files.

    The kernel's package is half of all bytes, so it is unpacked in parallel with the others.
    """
    with ThreadPoolExecutor(1) as pool:
        kernel = pool.submit(_kernel, files, controls, architecture, own_kernel)
        names = {
            control.package.name: unpack.unpack(file, tree)
            for file, control in zip(files, controls, strict=True)
            if not is_for_kernel(control.package.name)
        }
        return kernel.result(), names


def _kernel(
    files: list[Path],
    controls: list[Control],
    architecture: ImageArchitecture,
    own_kernel: GuestKernel | None,
) -> KernelPackage:
    if own_kernel is not None:  # which has all that it needs built in
        return KernelPackage(own_kernel.release, kernel_store.contents(own_kernel), {})
    kernels = [
        file
        for file, control in zip(files, controls, strict=True)
        if _KERNEL.match(control.package.name)
    ]
    if len(kernels) != 1:
        raise ImageBuildError(f"expected one kernel among the packages, found {len(kernels)}")
    modules = initrd.wanted_modules()
    return read_kernel(kernels[0], modules, architecture=architecture.machine)


def _write_manifest(
    target: Path,
    recipe: Recipe,
    architecture: ImageArchitecture,
    packages: _Packages,
    kernel: KernelPackage,
    agent: bytes,
    memory: int,
    progress: Progress,
) -> Manifest:
    with progress.step("writing the manifest"):
        manifest = Manifest(
            architecture=architecture.name,
            recipe=recipe,
            kernel_release=kernel.release,
            agent_version=boincvm.__version__,
            agent_sha256=hashlib.sha256(agent).hexdigest(),
            packages=tuple(control.package for control in packages.controls),
            configured=packages.are_configured,
            least_memory=memory,
            files=tuple(_describe(target / name) for name in (INITRD, KERNEL, ROOT)),
        )
        (target / MANIFEST).write_bytes(manifest.encode())
        _make_durable(target)
    return manifest


def _describe(path: Path) -> ContentFile:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return ContentFile(path.name, path.stat().st_size, digest)


def _make_durable(directory: Path) -> None:
    """Make the directory's files read-only and sync them.

    So a named image is complete even after a power cut.
    """
    for path in directory.iterdir():
        path.chmod(0o444)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
