"""Build a guest kernel from Debian's sources; equal recipes give equal bytes."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from boincvm.errors import ImageBuildError, ImageDamagedError, ImageMissingError
from boincvm.host import locks
from boincvm.host.resources import processors
from boincvm.image.build_directory import build_directory
from boincvm.image.kernels import changes, store
from boincvm.image.kernels.configuration import CONFIGURATIONS, Configuration, unmet
from boincvm.image.kernels.source import SUITE, KernelSource, fetch_source
from boincvm.image.kernels.store import GuestKernel, KernelRecipe
from boincvm.image.kernels.toolchain import check_toolchain, compiler_version
from boincvm.image.names import check_mirror, check_suite
from boincvm.image.progress import Progress
from boincvm.image.tools import check_space, follow_tool, run_tool
from boincvm.paths import kernels_directory

BUILDER_VERSION = 1
"""The version of the builder's rules. Raise it whenever they change a kernel's content."""
DISK_SPACE = 3 << 30
"""Bytes that a build may need: the packed sources, the unpacked ones, the objects."""

# Who compiled it, where and when is in a kernel's version string.
_ENVIRONMENT = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "boincvm",
    "KBUILD_BUILD_HOST": "boincvm",
    "KBUILD_BUILD_VERSION": "1",
    "SOURCE_DATE_EPOCH": "0",
    "TZ": "UTC",
}
# Half of the sources are drivers and architectures that no guest has. What describes options is
# needed of all of them.
_OTHER_ARCHITECTURES = (
    *("alpha", "arc", "arm", "arm64", "csky", "hexagon", "loongarch", "m68k", "microblaze"),
    *("mips", "nios2", "openrisc", "parisc", "powerpc", "riscv", "s390", "sh", "sparc", "xtensa"),
)
_LEFT_OUT = (
    *(f"*/arch/{name}/*.[chS]" for name in _OTHER_ARCHITECTURES),
    *(f"*/arch/{name}/*.dts*" for name in _OTHER_ARCHITECTURES),
    *("*/Documentation/*/*", "*/sound/*.[ch]", "*/drivers/gpu/*.[ch]", "*/drivers/net/*/*.[ch]"),
    "*/tools/testing/*",
)
_REFUSED = re.compile(r"[\s:]")
"""What the kernel's Makefile refuses in the path of its sources."""
_WAITS = "waiting for another build of this kernel"
_OBJECT = re.compile(r"  (?:CC|AS|HOSTCC) +(?:\[M\] +)?(\S+)")


@dataclass(frozen=True, slots=True)
class BuiltKernel:
    """The result of a build."""

    kernel: GuestKernel
    fresh: bool
    """False if the kernel was there already."""


def build_kernel(
    name: str,
    *,
    suite: str = SUITE,
    mirror: str | None = None,
    if_missing: bool = False,
    progress: Progress,
) -> BuiltKernel:
    """Build the kernel `name` from the suite's newest sources, unless it is there already.

    With `if_missing` one of other sources or another compiler is good enough, and nothing is asked
    of the mirror. Only one build of a kernel runs at a time.
    Raises UsageError, ImageBuildError, HostDiskFullError.
    """
    store.check_name(name)
    check_suite(suite)
    if mirror is not None:
        check_mirror(mirror)
    configuration = CONFIGURATIONS[name]
    root = kernels_directory()
    with locks.exclusive(root / f"{name}.lock", lambda: progress.detail(_WAITS)):
        present = _present(name)
        if if_missing and present is not None and _is_of(present, configuration):
            return BuiltKernel(present, fresh=False)
        check_toolchain()
        compiler = compiler_version()
        with build_directory(root / "builds") as directory:
            source, package = fetch_source(suite, mirror, directory, progress)
            recipe = KernelRecipe(
                builder=BUILDER_VERSION,
                architecture=configuration.architecture,
                source=f"{source.package} {source.version}",
                fragment=configuration.digest,
                compiler=compiler,
            )
            if present is not None and present.recipe == recipe:
                return BuiltKernel(present, fresh=False)
            check_space(directory, DISK_SPACE, "building a kernel")
            with progress.step(f"building the kernel {name}"), _workshop(directory) as workshop:
                release = _build(workshop, directory, configuration, source, package, progress)
            kernel = store.publish(name, directory / "object", release, recipe)
    return BuiltKernel(kernel, fresh=True)


def _is_of(kernel: GuestKernel, configuration: Configuration) -> bool:
    """Tell whether a kernel is of our present rules, whatever sources and compiler it is of."""
    recipe = kernel.recipe
    return (recipe.builder, recipe.fragment) == (BUILDER_VERSION, configuration.digest)


def _present(name: str) -> GuestKernel | None:
    try:
        kernel = store.read(name)
        store.contents(kernel)
    except (ImageMissingError, ImageDamagedError):
        return None  # building repairs it
    return kernel


@contextmanager
def _workshop(directory: Path) -> Iterator[Path]:
    """Yield a directory to compile in: `directory`, unless the kernel's Makefile refuses its path.

    Raises ImageBuildError.
    """
    if _REFUSED.search(str(directory)) is None:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="boincvm-kernel-") as name:
        if _REFUSED.search(name) is not None:
            raise ImageBuildError(
                f"a kernel cannot be compiled in {name}, whose path has a space or a colon",
                hint="set TMPDIR to another directory",
            )
        check_space(Path(name), DISK_SPACE, "building a kernel")
        yield Path(name)


def _build(
    workshop: Path,
    directory: Path,
    configuration: Configuration,
    source: KernelSource,
    package: Path,
    progress: Progress,
) -> str:
    """Compile in `workshop`, leave the kernel in directory/object and return its release."""
    with progress.step("unpacking the sources"):
        tree = _unpack(workshop, package, source)
        for what in changes.apply(tree, configuration.changes):
            progress.note(f"these sources cannot be given {what}")
    make = _Make(tree, configuration.architecture, progress)
    with progress.step("configuring"):
        _configure(tree, make, configuration, progress)
    with progress.step("compiling"):
        make.run(configuration.target)
    target = directory / "object"
    target.mkdir()
    run_tool(["strip", "--strip-all", "-o", target / "kernel", tree / configuration.target])
    return (tree / "include/config/kernel.release").read_text("utf-8").strip()


def _unpack(directory: Path, package: Path, source: KernelSource) -> Path:
    outer = directory / "package"
    run_tool(["dpkg-deb", "--extract", package, outer])
    packed = outer / f"usr/src/{source.package}.tar.xz"
    if not packed.is_file():
        raise ImageBuildError(f"{package.name} holds no {packed.name}")
    run_tool(
        [
            *("tar", "--extract", "--no-same-owner", "--use-compress-program=xz -T0"),
            *(f"--exclude={pattern}" for pattern in _LEFT_OUT),
            *(f"--file={packed}", f"--directory={directory}"),
        ]
    )
    packed.unlink()
    return directory / source.package


def _configure(tree: Path, make: "_Make", configuration: Configuration, progress: Progress) -> None:
    make.run("tinyconfig")
    path = tree / ".config"
    with path.open("a", encoding="utf-8") as stream:
        stream.write(configuration.fragment)
    make.run("olddefconfig")
    missing = unmet(configuration.fragment, path.read_text("utf-8"))
    if missing:
        # Newer sources may have renamed an option; whether the kernel boots, its user sees.
        progress.note(f"these sources ignore: {', '.join(missing)}")


class _Make:
    """Runs make in a kernel's sources, for one architecture."""

    def __init__(self, tree: Path, architecture: str, progress: Progress) -> None:
        self._tree = tree
        self._architecture = architecture
        self._progress = progress
        self._objects = 0

    def run(self, target: str) -> None:
        """Make `target`. Raises ImageBuildError."""
        jobs = processors()
        follow_tool(
            ["make", f"-j{jobs}", f"ARCH={self._architecture}", target],
            self._show_line,
            environment={**_ENVIRONMENT, "HOME": str(self._tree)},
            directory=self._tree,
        )

    def _show_line(self, line: str) -> None:
        found = _OBJECT.match(line)
        if found is not None:
            self._objects += 1
            self._progress.detail(f"compiling, file {self._objects}: {found[1]}")
