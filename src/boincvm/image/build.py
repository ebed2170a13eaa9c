"""Build an image: packages, tree, disk, kernel, initrd, manifest; each step named and timed."""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import boincvm
from boincvm.byte_text import one_line
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
from boincvm.image.build_check import CHECK_MEMORY, Check, run_check
from boincvm.image.build_directory import build_directory
from boincvm.image.build_script import BuildScript, run_script
from boincvm.image.configure import ConfiguringLines, configure
from boincvm.image.customization import (
    LIBRARIES,
    OwnFile,
    add_own_files,
    check_python,
    check_requirements,
    fetch_python_packages,
    place_python_packages,
    read_own_files,
)
from boincvm.image.exclude import is_for_kernel, remove_unused
from boincvm.image.kernel import KernelPackage, read_kernel
from boincvm.image.kernels import store as kernel_store
from boincvm.image.kernels.modules import check_modules
from boincvm.image.kernels.store import GuestKernel
from boincvm.image.lock import Asked, Distribution, Lock, LockedPackage
from boincvm.image.machine import BootMachine
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, Manifest, Recipe
from boincvm.image.names import check_image_name, check_mirror, check_package_names
from boincvm.image.needed import is_kernel, needed_names, remove_spared_modules
from boincvm.image.object_files import describe, make_durable
from boincvm.image.packages import fetch_locked, fetch_packages
from boincvm.image.progress import Progress
from boincvm.image.recommended import lacking_packages
from boincvm.image.replaced import Replaced, publish
from boincvm.image.store import ImageStore
from boincvm.image.tree import Tree
from boincvm.image.unpack import Control

RECIPE_VERSION = 6
"""The version of the builder's rules. Raise it whenever they change an image's content."""

PYTHON_OF_SUITE = {"bookworm": "python3.11"}
"""The suites that are known to work, and the Python that starts the agent there."""

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
            recipe=recipe,
            architecture=kind,
            mirror=mirror,
            own_kernel=own_kernel,
            own_files=files,
            script=script,
            check=check,
            lock=lock,
            spared=spared,
            modules=modules,
            locks=locks,
        )
        manifest, made_of = _build(directory, parts, boot, progress)
        with progress.step("putting the image in its place"):
            digest, replaced = publish(store, name, directory / "object", manifest)
    return Built(name, digest, manifest, fresh=True, lock=made_of, replaced=replaced)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What an image is built of."""

    recipe: Recipe
    architecture: ImageArchitecture
    mirror: str | None
    own_kernel: GuestKernel | None
    own_files: tuple[OwnFile, ...]
    script: BuildScript | None
    check: Check | None
    lock: Lock | None
    locks: bool
    """Whether a lock is to be made."""
    spared: tuple[str, ...] = ()
    """Dependencies that are done without."""
    modules: tuple[str, ...] = ()
    """Of the kernel, besides those that every machine needs."""


def check_architecture(name: str) -> ImageArchitecture:
    """Return the architecture with this name. Raises ImageBuildError for an unknown one."""
    found = ARCHITECTURES.get(name)
    if found is None:
        raise ImageBuildError(
            f"images for {ascii(name)[:40]} cannot be built",
            hint=f"choose one of: {', '.join(ARCHITECTURES)}",
        )
    return found


def own_kernel_of(name: str, architecture: ImageArchitecture) -> GuestKernel:
    """Return the kernel of this name that was built here. Raises UsageError, ImageMissingError."""
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
            is_it = is_it and (lock is None or _is_made_of(found, lock))
            return found if is_it else None
    except BoincvmError:
        return None  # missing or damaged: building repairs it


def _is_made_of(manifest: Manifest, lock: Lock) -> bool:
    debian = {(package.name, package.version) for package in manifest.packages}
    python = {_python_name(text) for text in manifest.python_packages}
    return debian == {(package.name, package.version) for package in lock.packages} and python == {
        _python_name(f"{name}=={version}") for name, version, _ in lock.python
    }


def _python_name(text: str) -> str:
    """Return one spelling for all of a name of PyPI (PEP 503)."""
    return re.sub("[-_.]+", "-", text).lower()


def _build(
    directory: Path, parts: _Parts, boot: BootMachine, progress: Progress
) -> tuple[Manifest, Lock | None]:
    recipe, architecture = parts.recipe, parts.architecture
    packages = _fetch(directory, parts, progress)
    files, controls = packages.files, packages.controls
    _warn(packages, progress)
    distributions = _fetch_python(directory, parts, progress)  # a wrong name is soon refused
    tree = Tree.create(directory / "root")
    postinst_files.add_links_before(tree)
    with progress.step(f"unpacking {len(files)} packages"):
        kernel, names = _unpack(packages, tree, parts)
    programs = tree
    if architecture is not HOST:
        programs = host_programs(directory, recipe.suite, parts.mirror, progress)
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
    lock = _lock(parts, packages, distributions) if parts.locks else None
    return manifest, lock


def _lock(parts: _Parts, packages: "_Packages", python: tuple[Distribution, ...]) -> Lock:
    recipe = parts.recipe
    return Lock(
        asked=Asked(
            suite=recipe.suite,
            architecture=parts.architecture.name,
            kernel=DEBIAN if parts.own_kernel is None else parts.own_kernel.name,
            packages=recipe.packages,
            recommends=recipe.recommends,
            pip=recipe.pip,
        ),
        configured=packages.are_configured,
        packages=tuple(
            sorted(
                LockedPackage(
                    control.package.name,
                    control.package.version,
                    control.package.architecture,
                    describe(file).sha256,
                )
                for file, control in zip(packages.files, packages.controls, strict=True)
            )
        ),
        python=python,
    )


@dataclass(frozen=True, slots=True)
class _Packages:
    """The fetched package files and their control data, in the same order."""

    files: list[Path]
    controls: list[Control]
    are_configured: bool
    """The packages' scripts are to run."""


def _fetch(directory: Path, parts: _Parts, progress: Progress) -> _Packages:
    """Fetch the wanted packages, or those of the lock.

    If any of them needs configuring, fetch the Essential packages too: its scripts rely on them.
    """
    if parts.lock is not None:
        packages = _fetch_locked(directory, parts, parts.lock, progress)
    else:
        packages = _fetch_newest(directory, parts, progress)
    if packages.are_configured:
        installed = sum(control.installed_size for control in packages.controls)
        own = sum(file.size for file in parts.own_files)
        own += 0 if parts.script is None else parts.script.disk
        tools.check_space(directory, tools.DISK_SPACE + _COPIES * (installed + own))
    if parts.own_kernel is not None:
        check_modules(packages.controls, parts.own_kernel.name)
    return packages


def _warn(packages: _Packages, progress: Progress) -> None:
    """Say before all that takes time what the packages lack, and that they take minutes."""
    for name in lacking_packages(control.package for control in packages.controls):
        progress.note(f"a compiler without its headers: add the package {name}")
    if packages.are_configured:
        progress.note(
            "scripts of the packages will run in a machine; without KVM, that takes minutes"
        )


def _fetch_python(directory: Path, parts: _Parts, progress: Progress) -> tuple[Distribution, ...]:
    """Fetch packages of PyPI, if any are wanted. Raises ImageBuildError."""
    recipe = parts.recipe
    if not recipe.pip:
        return ()
    locked = () if parts.lock is None else parts.lock.python
    with progress.step(f"fetching packages of PyPI: {', '.join(recipe.pip)}"):
        python = PYTHON_OF_SUITE[recipe.suite]
        return fetch_python_packages(recipe.pip, python, parts.architecture, directory, locked)


def _fetch_locked(directory: Path, parts: _Parts, lock: Lock, progress: Progress) -> _Packages:
    recipe, architecture = parts.recipe, parts.architecture
    names = {package.name for package in lock.packages}
    needed = (*_BASE, "python3", *(LIBRARIES if recipe.pip else ()))
    needed += ("dpkg",) if lock.configured else ()
    lacking = [name for name in needed if name not in names]
    if recipe.pip and not lock.python:
        lacking.append("packages of PyPI")
    if lacking:
        raise ImageBuildError(
            f"the lock file lacks what every such image needs: {', '.join(lacking)}",
            hint="it may be of another version of boincvm; renew it with --update",
        )
    with progress.step(f"fetching {len(lock.packages)} packages of the lock file"):
        files = fetch_locked(
            lock.packages, recipe.suite, parts.mirror, directory, progress, architecture.name
        )
    with progress.step(f"reading {len(files)} packages"):
        return _Packages(files, unpack.read_controls(files), lock.configured)


def _fetch_newest(directory: Path, parts: _Parts, progress: Progress) -> _Packages:
    recipe, architecture = parts.recipe, parts.architecture

    def fetch(*packages: str) -> list[Path]:
        kernel = () if recipe.kernel else (architecture.kernel_package,)
        libraries = LIBRARIES if recipe.pip else ()
        wanted = (*_BASE, *kernel, "python3", *libraries)
        return fetch_packages(
            wanted if recipe.recommends else (*wanted, *packages),
            recipe.suite,
            parts.mirror,
            directory,
            progress,
            architecture.name,
            with_recommended=packages if recipe.recommends else (),
            spared=parts.spared,
        )

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
    needed = needed_names(
        controls,
        (*_BASE, "python3", *(LIBRARIES if recipe.pip else ()), *recipe.packages),
        recommends=recipe.recommends,
        are_configured=are_configured,
    )
    chosen = [
        (file, control)
        for file, control in zip(files, controls, strict=True)
        if control.package.name in needed
    ]
    return _Packages(
        [file for file, _ in chosen], [control for _, control in chosen], are_configured
    )


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
    packages: _Packages, tree: Tree, parts: _Parts
) -> tuple[KernelPackage, dict[str, list[str]]]:
    """Unpack the packages; return the kernel and the names of each other package's files.

    The kernel's package is half of all bytes, so it is unpacked in parallel with the others.
    """
    files, controls = packages.files, packages.controls
    kinds = parts.architecture, parts.own_kernel, parts.modules
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
    packages: _Packages,
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
