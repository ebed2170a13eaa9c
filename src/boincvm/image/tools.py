"""Find and start the programs that a build needs."""

import os
import platform
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from boincvm.errors import HostDiskFullError, ImageBuildError
from boincvm.host.processes import die_with_parent, kill_group, terminate_group
from boincvm.image.architectures import AMD64, ImageArchitecture
from boincvm.image.interruption import signals_held_back
from boincvm.sizes import format_size

DISK_SPACE = 3 << 30
"""Bytes that a build may need: packages, the tree, the raw disk's blocks, the image."""

_PACKAGE_OF = {
    "mmdebstrap": "mmdebstrap",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "lz4": "lz4",
    "zstd": "zstd",
}
_PATIENCE = 5.0
"""Seconds for a tool to end, and for the kernel to end a killed one."""
_MOST_LINES = 12
_FOLLOWED_LINES = 200
"""Lines of a followed program that are kept for an error."""


def search_path() -> str:
    """Return PATH with the system's directories: mke2fs lies in one that ordinary users lack."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def builds_here() -> bool:
    """Tell whether images are built on systems like this computer's."""
    return platform.system() == "Linux" and platform.machine() == "x86_64"


def how_to_get(name: str) -> str:
    """Return the advice for an image that is not on this computer."""
    if builds_here():
        return f"boincvm image build {name}"
    return f"copy a packed image here, then: boincvm image unpack FILE {name}"


def check_host(directory: Path, architecture: ImageArchitecture = AMD64) -> None:
    """Check that this computer can build beneath `directory`; report all obstacles in one error.

    `architecture`: of the image, whose machines must run here, too. Raises
    ImageBuildError or HostDiskFullError.
    """
    if not builds_here():
        raise ImageBuildError(
            f"images are built on Linux on x86_64, not on {platform.system()} "
            f"on {platform.machine()}",
            hint="build the image on such a computer and copy it: boincvm help images",
        )
    package_of = {**_PACKAGE_OF, **dict([architecture.emulator])}
    missing = [tool for tool in package_of if shutil.which(tool, path=search_path()) is None]
    if missing:
        packages = sorted({package_of[tool] for tool in missing})
        raise ImageBuildError(
            f"programs that building an image needs are not installed: {', '.join(missing)}",
            hint=f"apt-get install {' '.join(packages)}",
        )
    check_space(directory, DISK_SPACE)


def check_space(directory: Path, size: int, what: str = "building an image") -> None:
    """Check that `directory` has the `size` bytes of free disk that `what` needs.

    Raises HostDiskFullError.
    """
    free = shutil.disk_usage(directory).free
    if free < size:
        raise HostDiskFullError(
            f"{what} needs {format_size(size)} of disk space, "
            f"and {directory} has {format_size(free)}",
            hint="free some space, or set BOINCVM_HOME to a directory on another disk",
        )


def run_tool(
    arguments: Sequence[str | Path],
    *,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    dies_with_us: bool = False,
) -> bytes:
    """Run a program to its end in `directory` (default: ours) and return its standard output.

    It runs in a session of its own and is ended with all its children if we are interrupted;
    `dies_with_us`: it alone also if our thread or process ends in another way. Raises ToolError (an
    ImageBuildError) with the end of its standard error.
    """
    command = [str(argument) for argument in arguments]
    with (
        signals_held_back() as release,
        subprocess.Popen(
            die_with_parent(command) if dies_with_us else command,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PATH": search_path(), "LC_ALL": "C.UTF-8", **(environment or {})},
            cwd=directory,
            start_new_session=True,
            umask=0o022,  # an image does not depend on who builds it
        ) as process,
    ):
        try:
            release()
            output, errors = process.communicate(stdin)
        except BaseException:
            _end(process)
            raise
    if process.returncode != 0:
        raise ToolError(command[0], process.returncode, errors.decode("utf-8", "replace"))
    return output


def follow_tool(
    arguments: Sequence[str | Path],
    on_output: Callable[[str], object],
    *,
    environment: Mapping[str, str],
    directory: Path,
) -> None:
    """Run a program to its end; `on_output` is called with each line that it prints.

    `environment` is all that it gets besides a search path. It ends with us, as with `run_tool`.
    Raises ToolError with the last lines.
    """
    command = [str(argument) for argument in arguments]
    last: deque[str] = deque(maxlen=_FOLLOWED_LINES)
    with (
        signals_held_back() as release,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": search_path(), "LC_ALL": "C", **environment},
            cwd=directory,
            start_new_session=True,
            umask=0o022,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        try:
            release()
            for line in process.stdout or ():
                last.append(line.rstrip("\n"))
                on_output(line.rstrip("\n"))
            process.wait()
        except BaseException:
            _end(process)
            raise
    if process.returncode != 0:
        raise ToolError(command[0], process.returncode, "\n".join(last))


class ToolError(ImageBuildError):
    """A program failed; `log` is its standard error."""

    def __init__(self, tool: str, status: int, log: str) -> None:
        lines = [line for line in log.splitlines() if line.strip()][-_MOST_LINES:]
        super().__init__(
            f"{tool} ended with {status}: " + (" | ".join(lines) or "it printed nothing"),
            hint="the messages above are the tool's own; see boincvm help images, When a build"
            " fails",
        )
        self.tool = tool
        self.log = log


def _end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    for end in (terminate_group, kill_group):
        try:
            end(process.pid)
            process.wait(_PATIENCE)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
