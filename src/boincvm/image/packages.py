"""Resolve and fetch the package files of an image.

mmdebstrap knows Debian's mirror, keys and suites; apt resolves dependencies and checks signatures;
both run as the current user. Package files and lists are cached, so a second build asks the mirror
only for what is new, and works offline if the mirror cannot be reached. Another build may replace a
cached file, so each build gets names of its own for those that it was given.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boincvm.errors import ImageBuildError
from boincvm.host import locks
from boincvm.host.own_files import make_directory
from boincvm.host.users import is_root
from boincvm.hypervisor.disks import share_file
from boincvm.image.architectures import AMD64
from boincvm.image.lock import LockedPackage
from boincvm.image.object_files import describe
from boincvm.image.progress import Progress
from boincvm.image.tools import ToolError, run_tool
from boincvm.paths import cache_directory

_WAITS = "waiting for another build that is fetching packages"
_DOWNLOAD = Path(__file__).with_name("download.sh")
_UNKNOWN = re.compile(
    r"^E: (?:Unable to locate package (\S+)|Package '(\S+)' has no installation candidate)",
    re.MULTILINE,
)
_NOT_THERE = re.compile(
    r"^E: (?:Version '([^'\n]{1,200})' for '([^'\n]{1,200})' was not found"
    r"|Unable to locate package (\S{1,200}))",
    re.MULTILINE,
)
_MOST_NAMED = 20
"""Packages that a message names."""
_CONFLICT = re.compile(r"^ (\S+ : .*)$", re.MULTILINE)


def fetch_packages(
    packages: tuple[str, ...],
    suite: str,
    mirror: str | None,
    directory: Path,
    progress: Progress,
    architecture: str = AMD64.name,
    *,
    with_recommended: tuple[str, ...] = (),
    spared: tuple[str, ...] = (),
) -> list[Path]:
    """Fetch the package files (.deb) of `packages` and their dependencies; return them by name.

    directory: for these and temporary files; architecture: Debian's name of it; with_recommended:
    also these, with those that they and their dependencies recommend; spared: dependencies that are
    done without, with all that only they need. Only one build fetches at a time. Raises
    ImageBuildError, OSError.
    """
    archives = _archives()
    with _alone(archives, progress):
        try:
            names = _fetch(
                packages,
                suite,
                mirror,
                directory,
                architecture,
                with_recommended=with_recommended,
                spared=spared,
            )
        except ToolError as error:
            raise _explained(error, suite) from error
        return [_own(archives / name, directory) for name in names]


def fetch_locked(
    packages: tuple[LockedPackage, ...],
    suite: str,
    mirror: str | None,
    directory: Path,
    progress: Progress,
    architecture: str = AMD64.name,
) -> list[Path]:
    """Return the files of exactly these packages by name, fetched if the cache lacks them.

    directory: for these and temporary files; architecture: Debian's name of it. The archive may
    lack old versions: raises ImageBuildError with all that it lacks, or that are others than they
    were; OSError.
    """
    archives = _archives()
    with _alone(archives, progress):
        progress.detail("comparing packages with the lock file")
        lacking = [package for package in packages if not _provide(archives, package, directory)]
        if lacking:
            progress.detail(f"fetching {len(lacking)} packages of the lock file")
            wanted = tuple(f"{name}:{kind}={version}" for name, version, kind, _ in lacking)
            digests = frozenset(package.sha256 for package in lacking)
            try:
                _fetch(wanted, suite, mirror, directory, architecture, digests=digests)
            except ToolError as error:
                raise _gone(error, suite) or _explained(error, suite) from error
        others = [package for package in lacking if not _provide(archives, package, directory)]
        if others:
            raise ImageBuildError(
                f"the archive's {_named(others)} are not those whose digests are in the lock file",
                hint="give the mirror that the lock file was made with: --mirror URL; or renew"
                " the lock file: --update",
            )
    return [directory / name for name in sorted(package.file_name for package in packages)]


@contextmanager
def _alone(archives: Path, progress: Progress) -> Iterator[None]:
    """Wait until no other build fetches packages, and let none begin in the block."""
    with locks.exclusive(archives.parent / "lock", lambda: progress.detail(_WAITS)):
        progress.end_detail()
        yield


def _provide(archives: Path, package: LockedPackage, directory: Path) -> bool:
    """Give the build the file of exactly this package, and tell whether it is there."""
    try:
        own = _own(archives / package.file_name, directory)
    except FileNotFoundError:
        return False
    return describe(own).sha256 == package.sha256


def _own(file: Path, directory: Path) -> Path:
    """Give a cached file a name in the build's directory, which keeps its content. Raises OSError.

    The cache's files are never changed, only replaced.
    """
    own = directory / file.name
    share_file(file, own)
    return own


def _gone(error: ToolError, suite: str) -> ImageBuildError | None:
    """Return the error for packages that the archive does not have any more, if it says so."""
    found = [
        f"{name or unknown.partition(':')[0]} {version}".strip()
        for version, name, unknown in _NOT_THERE.findall(error.log)
    ]
    if not found:
        return None
    return ImageBuildError(
        f"Debian {suite} has these packages of the lock file no more: {_listed(found)}",
        hint="renew the lock file, with today's packages: boincvm image build --update RECIPE; or"
        " give a mirror that keeps old ones: --mirror URL",
    )


def _named(packages: list[LockedPackage]) -> str:
    return _listed([f"{package.name} {package.version}" for package in packages])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _archives() -> Path:
    archives = cache_directory() / "packages" / "archives"
    make_directory(archives)
    return archives


def _fetch(
    packages: tuple[str, ...],
    suite: str,
    mirror: str | None,
    directory: Path,
    architecture: str,
    *,
    with_recommended: tuple[str, ...] = (),
    spared: tuple[str, ...] = (),
    digests: frozenset[str] = frozenset(),
) -> list[str]:
    """Let apt fetch packages into the cache; return the names of their files.

    `digests`: if there are any, exactly these packages without their dependencies, and only files
    with these SHA-256 digests get into the cache. Raises ToolError.
    """
    archives = _archives()
    # As it always was for amd64: lists that are here stay in use.
    other = "" if architecture == AMD64.name else f" {architecture}"
    source = hashlib.sha256(f"{suite} {mirror or ''}{other}".encode()).hexdigest()[:16]
    lists = archives.parent / "lists" / source
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        make_directory(lists)
        chosen, exact, known = (Path(temporary, name) for name in ("chosen", "exact", "digests"))
        exact.write_text("".join(f"{package}\n" for package in packages))
        known.write_text("".join(f"{digest}\n" for digest in sorted(digests)))
        environment = {
            "TMPDIR": temporary,
            "BOINCVM_DOWNLOAD": str(_DOWNLOAD),
            "BOINCVM_ARCHIVES": str(archives),
            "BOINCVM_LISTS": str(lists),
            "BOINCVM_CHOSEN": str(chosen),
            "BOINCVM_PACKAGES": "" if digests else " ".join(packages),
            "BOINCVM_WITH_RECOMMENDED": " ".join(with_recommended),
            "BOINCVM_SPARED": " ".join(spared),
            "BOINCVM_EXACT": str(exact) if digests else "",
            "BOINCVM_DIGESTS": str(known),
        }
        run_tool(_command(suite, mirror, architecture), environment=environment)
        return sorted({Path(line).name for line in chosen.read_text().splitlines() if line})


def _command(suite: str, mirror: str | None, architecture: str) -> list[str]:
    # check/qemu: nothing of the packages runs here, so this computer need not be able to run it.
    skip = ["update", "download/empty", "cleanup/apt", "check/qemu"]
    if is_root():
        skip.append("check/chrootless")  # no maintainer script runs, so root risks nothing
    command = [
        "mmdebstrap",
        "--variant=custom",
        "--mode=chrootless",
        f"--skip={','.join(skip)}",
        "--format=null",
        f"--architectures={architecture}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        '--setup-hook=sh "$BOINCVM_DOWNLOAD" "$1"',
        suite,
        "/dev/null",
    ]
    return [*command, mirror] if mirror is not None else command


def _explained(error: ToolError, suite: str) -> ImageBuildError:
    """Find the one line that matters in the output of mmdebstrap and apt."""
    unknown = _UNKNOWN.search(error.log)
    if unknown is not None:
        name = unknown[1] or unknown[2]
        return ImageBuildError(
            f"Debian {suite} has no package {name}",
            hint=f"look for the right name: apt-cache search {name}",
        )
    conflict = _CONFLICT.search(error.log)
    if conflict is not None and "unmet dependencies" in error.log:
        return ImageBuildError(
            f"these packages are incompatible in Debian {suite}: {conflict[1]}",
            hint="leave out one of the packages named",
        )
    if "Failed to fetch" in error.log or "did not find any indices" in error.log:
        return ImageBuildError(
            f"Debian's mirror could not be reached: {_last_error(error.log)}",
            hint="check the network, or give another mirror: boincvm image build --mirror URL",
        )
    return error


def _last_error(log: str) -> str:
    lines = [line for line in log.splitlines() if line.startswith(("E: ", "W: Failed"))]
    return lines[0] if lines else "no message"
