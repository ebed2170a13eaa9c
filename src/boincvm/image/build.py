"""Build an image of its packages: tree, disk, kernel, initrd, manifest; each step is timed."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import boincvm
from boincvm.byte_text import one_line
from boincvm.errors import BoincvmError, ImageBuildError
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
    package_set,
    postinst_files,
    tools,
    unpack,
)
from boincvm.image.architectures import AMD64, HOST, ImageArchitecture
from boincvm.image.build_check import CHECK_MEMORY, Check, run_check
from boincvm.image.build_directory import build_directory
from boincvm.image.build_inputs import (
    DEBIAN,
    PYTHON_OF_SUITE,
    check_architecture,
    make_recipe,
    own_kernel_of,
)
from boincvm.image.build_script import BuildScript, run_script
from boincvm.image.configure import ConfiguringLines, configure
from boincvm.image.customization import (
    OwnFile,
    add_own_files,
    check_python,
    check_requirements,
    place_python_packages,
    read_own_files,
)
from boincvm.image.exclude import is_for_kernel, remove_unused
from boincvm.image.kernel import KernelPackage, read_kernel
from boincvm.image.kernels import store as kernel_store
from boincvm.image.kernels.modules import check_modules
from boincvm.image.kernels.store import GuestKernel
from boincvm.image.lock import Lock
from boincvm.image.machine import BootMachine
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, Manifest, Recipe
from boincvm.image.names import check_image_name, check_mirror
from boincvm.image.needed import is_kernel, remove_spared_modules
from boincvm.image.object_files import describe, make_durable
from boincvm.image.package_set import PackageRequest, PackageSet
from boincvm.image.packages import fetch_packages
from boincvm.image.progress import Progress
from boincvm.image.replaced import Replaced, publish
from boincvm.image.store import ImageStore
from boincvm.image.tree import Tree
from boincvm.image.unpack import Control

_COPIES = 3
"""Copies of the unpacked packages that exist at the same time: the tree, the disk made of it (or
the one to be configured), and the raw disk in between."""


@dataclass(frozen=True, slots=True)
class Built:
    """The result of a build."""

    name: str
    digest: str
    manifest: Manifest
    fresh: bool
    """False if `if_missing` was given and the image was up to date."""
    lock: Lock | None = None
    """What a fresh image was made of, if that was asked for."""
    replaced: Replaced | None = None
    """What the name stood for before, if that was something else."""


def build_image(
    name: str,
    packages: tuple[str, ...] = (),
    *,
    suite: str = "bookworm",
    mirror: str | None = None,
    architecture: str = AMD64.name,
    kernel: str = DEBIAN,
    pip: tuple[str, ...] = (),
    own_files: tuple[str, ...] = (),
    recommends: bool = False,
    files: tuple[OwnFile, ...] = (),
    script: BuildScript | None = None,
    memory: int = 0,
    check: Check | None = None,
    lock: Lock | None = None,
    locks: bool = False,
    spared: tuple[str, ...] = (),
    modules: tuple[str, ...] = (),
    if_missing: bool = False,
    boot: BootMachine,
    progress: Progress,
    store: ImageStore | None = None,
) -> Built:
    """Build the image `name` with the Debian packages `packages` and all they depend on.

    `architecture`: one of ARCHITECTURES. `kernel`: DEBIAN, or the name of a kernel that was built
    here. `pip`: packages of PyPI. `own_files`: SRC:DST, files of this host; `files`: such that were
    read already. `recommends`: also packages that `packages` recommend. `script` runs in the image
    as it is built. `memory`: bytes that a machine needs at least, whatever is measured. `check`: a
    command that must succeed in the image, or it is not kept. `lock`: the packages are exactly
    these. `locks`: return what the image was made of. `spared`: dependencies that are done without,
    with all that only they need. `modules` of the kernel are loaded at each boot. With
    `if_missing`, do so only if no image of this recipe and this agent exists. `boot` starts the
    machines in which packages are configured and the image is tried. Raises UsageError,
    InputFileError, ImageMissingError, ImageBuildError, HostDiskFullError, ImageDamagedError.
    """
    check_image_name(name)
    if mirror is not None:
        check_mirror(mirror)
    kind = check_architecture(architecture)
    own_kernel = None if kernel == DEBIAN else own_kernel_of(kernel, kind)
    files = (*files, *read_own_files(own_files))
    recipe = replace(
        make_recipe(packages, suite, own_kernel),
        pip=check_requirements(pip),
        own_files=tuple(f"{file.destination}:{file.digest}" for file in files),
        recommends=recommends,
        script="" if script is None else hashlib.sha256(script.text).hexdigest(),
        memory=memory,
    )
    if pip:
        check_python(PYTHON_OF_SUITE[suite], kind)
    store = ImageStore() if store is None else store
    if if_missing:
        found = present(store, name, recipe, kind, lock)
        if found is not None:
            return Built(name, found.digest, found, fresh=False)
    with (
        progress.step(f"building image {name}"),
        build_directory(store.builds, progress) as directory,
    ):
        tools.check_host(directory, kind)
        own = sum(file.size for file in files)
        own += 0 if script is None else script.disk
        tools.check_space(directory, tools.DISK_SPACE + _COPIES * own)
        parts = _Parts(
            request=PackageRequest(recipe, kind, mirror, lock, spared),
            own_kernel=own_kernel,
            own_files=files,
            script=script,
            check=check,
            locks=locks,
            modules=modules,
        )
        manifest, made_of = _build(directory, parts, boot, progress)
        with progress.step("putting the image in its place"):
            digest, replaced = publish(store, name, directory / "object", manifest)
    return Built(name, digest, manifest, fresh=True, lock=made_of, replaced=replaced)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What an image is built of."""

    request: PackageRequest
    own_kernel: GuestKernel | None
    own_files: tuple[OwnFile, ...]
    script: BuildScript | None
    check: Check | None
    locks: bool
    """Whether a lock is to be made."""
    modules: tuple[str, ...] = ()
    """Of the kernel, besides those that every machine needs."""


def present(
    store: ImageStore,
    name: str,
    recipe: Recipe,
    architecture: ImageArchitecture,
    lock: Lock | None = None,
) -> Manifest | None:
    """Return the manifest of the image `name` if it is of this recipe and for this architecture."""
    try:
        with store.open(name) as image:
            found = image.manifest
            is_it = found.recipe == recipe and found.architecture == architecture.name
            is_it = is_it and not found.machine  # a machine may have changed anything
            is_it = is_it and not found.shrunk_from
            is_it = is_it and (lock is None or package_set.is_made_of(found, lock))
            return found if is_it else None
    except BoincvmError:
        return None  # missing or damaged: building repairs it


def _build(
    directory: Path, parts: _Parts, boot: BootMachine, progress: Progress
) -> tuple[Manifest, Lock | None]:
    request = parts.request
    recipe, architecture = request.recipe, request.architecture
    packages = _fetch(directory, parts, progress)
    files, controls = packages.files, packages.controls
    package_set.warn(packages, progress)
    # Early, so that a wrong name is soon refused.
    distributions = package_set.fetch_python(directory, request, progress)
    tree = Tree.create(directory / "root")
    postinst_files.add_links_before(tree)
    with progress.step(f"unpacking {len(files)} packages"):
        kernel, names = _unpack(packages, tree, parts)
    programs = tree
    if architecture is not HOST:
        programs = host_programs(directory, recipe.suite, request.mirror, progress)
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
        remove_unused(tree, are_configured=packages.are_configured)
        remove_spared_modules(tree, (control.package.name for control in in_root))
        postinst_files.add_busybox_commands(tree, programs)
    python_packages: tuple[str, ...] = ()
    if recipe.pip:
        with progress.step(f"adding packages of PyPI: {', '.join(recipe.pip)}"):
            python_packages = place_python_packages(tree, bytecode.python_of(tree), directory)
            bytecode.compile_own_packages(tree, programs)
    if parts.own_files:
        with progress.step("adding your own files"):
            add_own_files(tree, parts.own_files)
    if parts.script is not None:
        with progress.step("running the script in a machine"):
            boots = (target / KERNEL, target / INITRD)
            shown = progress.detail
            run_script(tree, parts.script, *boots, directory, boot, shown, architecture.machine)
    with progress.step("writing the root disk"):
        disk.write_root_disk(tree, target / ROOT)
    with progress.step("measuring how much memory a machine needs"):
        memory = least_memory.measure(target, boot, architecture.machine)
        memory = max(memory, recipe.memory)
    if parts.check is not None:
        with progress.step(f"checking: {one_line(' '.join(parts.check.argv))[:60]}"):
            run_check(target, parts.check, max(memory, CHECK_MEMORY), boot, architecture.machine)
    with progress.step("writing the manifest"):
        manifest = replace(
            _manifest(target, recipe, architecture, packages, kernel, agent, memory),
            python_packages=python_packages,
        )
        (target / MANIFEST).write_bytes(manifest.encode())
        make_durable(target)
    if not parts.locks:
        return manifest, None
    kernel_name = DEBIAN if parts.own_kernel is None else parts.own_kernel.name
    return manifest, package_set.make_lock(request, kernel_name, packages, distributions)


def _fetch(directory: Path, parts: _Parts, progress: Progress) -> PackageSet:
    """Fetch packages of Debian; check that there is room for them, and that the kernel suits."""
    packages = package_set.fetch_debian(directory, parts.request, progress)
    if packages.are_configured:
        installed = sum(control.installed_size for control in packages.controls)
        own = sum(file.size for file in parts.own_files)
        own += 0 if parts.script is None else parts.script.disk
        tools.check_space(directory, tools.DISK_SPACE + _COPIES * (installed + own))
    if parts.own_kernel is not None:
        check_modules(packages.controls, parts.own_kernel.name)
    return packages


def _postinst(control: Control) -> str:
    return control.files.get("postinst", b"").decode("utf-8", "replace")


def host_programs(directory: Path, suite: str, mirror: str | None, progress: Progress) -> Tree:
    """Unpack what a build runs on this computer, which the image's own programs do not run on."""
    with progress.step(f"fetching programs for {HOST.name}, to build with"):
        files = fetch_packages(foreign.PACKAGES, suite, mirror, directory, progress)
        tree = Tree.create(directory / "programs")
        for file in files:
            unpack.unpack(file, tree)
    return tree


def _unpack(
    packages: PackageSet, tree: Tree, parts: _Parts
) -> tuple[KernelPackage, dict[str, list[str]]]:
    """Unpack the packages; return the kernel and the names of each other package's files.

    The kernel's package is half of all bytes, so it is unpacked in parallel with the others.
    """
    files, controls = packages.files, packages.controls
    kinds = parts.request.architecture, parts.own_kernel, parts.modules
    with ThreadPoolExecutor(1) as pool:
        kernel = pool.submit(kernel_among, files, controls, *kinds)
        names = {
            control.package.name: unpack.unpack(file, tree)
            for file, control in zip(files, controls, strict=True)
            if not is_for_kernel(control.package.name)
        }
        return kernel.result(), names


def kernel_among(
    files: list[Path],
    controls: list[Control],
    architecture: ImageArchitecture,
    own_kernel: GuestKernel | None,
    modules: tuple[str, ...] = (),
) -> KernelPackage:
    """Return the only kernel among the packages, or `own_kernel`.

    `modules`: of it, besides those that every machine needs. Raises ImageBuildError.
    """
    if own_kernel is not None:  # which has all that it needs built in
        return KernelPackage(own_kernel.release, kernel_store.contents(own_kernel), {})
    kernels = [
        file
        for file, control in zip(files, controls, strict=True)
        if is_kernel(control.package.name)
    ]
    if len(kernels) != 1:
        raise ImageBuildError(f"expected one kernel among the packages, found {len(kernels)}")
    wanted = (*initrd.wanted_modules(), *modules)
    return read_kernel(kernels[0], wanted, architecture=architecture.machine)


def _manifest(
    target: Path,
    recipe: Recipe,
    architecture: ImageArchitecture,
    packages: PackageSet,
    kernel: KernelPackage,
    agent: bytes,
    memory: int,
) -> Manifest:
    return Manifest(
        architecture=architecture.name,
        recipe=recipe,
        kernel_release=kernel.release,
        agent_version=boincvm.__version__,
        agent_sha256=hashlib.sha256(agent).hexdigest(),
        packages=tuple(control.package for control in packages.controls),
        configured=packages.are_configured,
        least_memory=memory,
        files=tuple(describe(target / name) for name in (INITRD, KERNEL, ROOT)),
    )
