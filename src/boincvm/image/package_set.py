"""Choose and fetch the packages of an image, of Debian and of PyPI; lock them.

They are the newest of those that are asked for, with all that these need, or exactly those of a
lock file.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from boincvm.errors import ImageBuildError
from boincvm.image import unpack
from boincvm.image.architectures import ImageArchitecture
from boincvm.image.build_inputs import PYTHON_OF_SUITE
from boincvm.image.customization import LIBRARIES, fetch_python_packages
from boincvm.image.lock import Asked, Distribution, Lock, LockedPackage
from boincvm.image.manifest import Manifest, Recipe
from boincvm.image.needed import needed_names
from boincvm.image.object_files import describe
from boincvm.image.packages import fetch_locked, fetch_packages
from boincvm.image.progress import Progress
from boincvm.image.recommended import lacking_packages
from boincvm.image.unpack import Control

_BASE = (
    *("base-files", "base-passwd", "bash", "busybox-static", "coreutils", "dash", "findutils"),
    *("grep", "gzip", "hostname", "libc-bin", "mawk", "sed", "tar"),
    *("ca-certificates", "netbase", "tzdata"),
)
"""The packages that the agent needs, and those Essential ones that Debian's programs rely on."""
_ESSENTIAL = ("?essential", "usr-is-merged")
"""All Essential packages (apt-patterns(7)), and the one that says that /usr is merged already:
otherwise apt would bring the program that merges it."""


@dataclass(frozen=True, slots=True)
class PackageRequest:
    """What decides which packages an image has."""

    recipe: Recipe
    architecture: ImageArchitecture
    mirror: str | None = None
    lock: Lock | None = None
    """The packages are exactly these."""
    spared: tuple[str, ...] = ()
    """Dependencies that are done without."""


@dataclass(frozen=True, slots=True)
class PackageSet:
    """The fetched package files and their control data, in the same order."""

    files: list[Path]
    controls: list[Control]
    are_configured: bool
    """The packages' scripts are to run."""


def fetch_debian(directory: Path, request: PackageRequest, progress: Progress) -> PackageSet:
    """Fetch the wanted packages of Debian, or those of the lock.

    If any of them needs configuring, fetch the Essential packages too: its scripts rely on them.
    Raises ImageBuildError, OSError.
    """
    if request.lock is not None:
        return _fetch_locked(directory, request, request.lock, progress)
    return _fetch_newest(directory, request, progress)


def _fetch_newest(directory: Path, request: PackageRequest, progress: Progress) -> PackageSet:
    recipe, architecture = request.recipe, request.architecture

    def fetch(*packages: str) -> list[Path]:
        kernel = () if recipe.kernel else (architecture.kernel_package,)
        libraries = LIBRARIES if recipe.pip else ()
        wanted = (*_BASE, *kernel, "python3", *libraries)
        return fetch_packages(
            wanted if recipe.recommends else (*wanted, *packages),
            recipe.suite,
            request.mirror,
            directory,
            progress,
            architecture.name,
            with_recommended=packages if recipe.recommends else (),
            spared=request.spared,
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
    return PackageSet(
        [file for file, _ in chosen], [control for _, control in chosen], are_configured
    )


def _fetch_locked(
    directory: Path, request: PackageRequest, lock: Lock, progress: Progress
) -> PackageSet:
    recipe, architecture = request.recipe, request.architecture
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
            lock.packages, recipe.suite, request.mirror, directory, progress, architecture.name
        )
    with progress.step(f"reading {len(files)} packages"):
        return PackageSet(files, unpack.read_controls(files), lock.configured)


def fetch_python(
    directory: Path, request: PackageRequest, progress: Progress
) -> tuple[Distribution, ...]:
    """Fetch packages of PyPI, if any are wanted. Raises ImageBuildError."""
    recipe = request.recipe
    if not recipe.pip:
        return ()
    locked = () if request.lock is None else request.lock.python
    with progress.step(f"fetching packages of PyPI: {', '.join(recipe.pip)}"):
        python = PYTHON_OF_SUITE[recipe.suite]
        return fetch_python_packages(recipe.pip, python, request.architecture, directory, locked)


def warn(packages: PackageSet, progress: Progress) -> None:
    """Say before all that takes time what the packages lack, and that they take minutes."""
    for name in lacking_packages(control.package for control in packages.controls):
        progress.note(f"a compiler without its headers: add the package {name}")
    if packages.are_configured:
        progress.note(
            "scripts of the packages will run in a machine; without KVM, that takes minutes"
        )


def make_lock(
    request: PackageRequest, kernel: str, packages: PackageSet, python: tuple[Distribution, ...]
) -> Lock:
    """Return what an image with the kernel of this name is made of, so that it can be made again.

    Raises OSError.
    """
    recipe = request.recipe
    return Lock(
        asked=Asked(
            suite=recipe.suite,
            architecture=request.architecture.name,
            kernel=kernel,
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


def is_made_of(manifest: Manifest, lock: Lock) -> bool:
    """Tell whether an image's packages have exactly the versions in the lock."""
    debian = {(package.name, package.version) for package in manifest.packages}
    python = {_python_name(text) for text in manifest.python_packages}
    return debian == {(package.name, package.version) for package in lock.packages} and python == {
        _python_name(f"{name}=={version}") for name, version, _ in lock.python
    }


def _python_name(text: str) -> str:
    """Return one spelling for all of a name of PyPI (PEP 503)."""
    return re.sub("[-_.]+", "-", text).lower()
