"""Resolve and fetch the package files of an image.

mmdebstrap knows Debian's mirror, keys and suites; apt resolves dependencies and checks signatures;
both run as the current user. Package files and lists are cached, so a second build asks the mirror
only for what is new, and works offline if the mirror cannot be reached.
"""

import hashlib
import re
import tempfile
from pathlib import Path

from boincvm.errors import ImageBuildError
from boincvm.host import locks
from boincvm.host.own_files import make_directory
from boincvm.host.users import is_root
from boincvm.image.architectures import AMD64
from boincvm.image.progress import Progress
from boincvm.image.tools import ToolError, run_tool
from boincvm.paths import cache_directory

_WAITS = "waiting for another build that is fetching packages"
_DOWNLOAD = Path(__file__).with_name("download.sh")
_UNKNOWN = re.compile(
    r"^E: (?:Unable to locate package (\S+)|Package '(\S+)' has no installation candidate)",
    re.MULTILINE,
)
_CONFLICT = re.compile(r"^ (\S+ : .*)$", re.MULTILINE)


def fetch_packages(
    packages: tuple[str, ...],
    suite: str,
    mirror: str | None,
    directory: Path,
    progress: Progress,
    architecture: str = AMD64.name,
) -> list[Path]:
    """Fetch the package files (.deb) of `packages` and their dependencies; return them by name.

    directory: for temporary files; architecture: Debian's name of it. Only one build fetches at a
    time. Raises ImageBuildError.
    """
    cache = cache_directory() / "packages"
    # As it always was for amd64: lists that are here stay in use.
    other = "" if architecture == AMD64.name else f" {architecture}"
    source = hashlib.sha256(f"{suite} {mirror or ''}{other}".encode()).hexdigest()[:16]
    archives = cache / "archives"
    lists = cache / "lists" / source
    make_directory(archives)
    with (
        locks.exclusive(cache / "lock", lambda: progress.detail(_WAITS)),
        tempfile.TemporaryDirectory(dir=directory) as temporary,
    ):
        make_directory(lists)
        chosen = Path(temporary) / "chosen"
        environment = {
            "TMPDIR": temporary,
            "BOINCVM_DOWNLOAD": str(_DOWNLOAD),
            "BOINCVM_ARCHIVES": str(archives),
            "BOINCVM_LISTS": str(lists),
            "BOINCVM_CHOSEN": str(chosen),
            "BOINCVM_PACKAGES": " ".join(packages),
        }
        try:
            run_tool(_command(suite, mirror, architecture), environment=environment)
        except ToolError as error:
            raise _explained(error, suite) from error
        names = {Path(line).name for line in chosen.read_text().splitlines() if line}
        return [archives / name for name in sorted(names)]


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
