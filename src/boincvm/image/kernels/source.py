"""Find and fetch the newest kernel sources of a Debian suite, as the current user.

apt reads the suite's signed index and checks what it downloads against it; its configuration, lists
and state are our own, so of the host's apt only the address of its mirror is used, and nothing is
changed. Package and lists are cached beside those of images (image/packages.py).
"""

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from boincvm.errors import ImageBuildError
from boincvm.host import locks
from boincvm.host.own_files import make_directory
from boincvm.image.mirror import host_mirror
from boincvm.image.progress import Progress
from boincvm.image.tools import ToolError, run_tool
from boincvm.paths import cache_directory

SUITE = "trixie-backports"
"""The suite whose sources are used: User-mode Linux is fast with seccomp, which Linux has since
6.16."""
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_META_PACKAGE = "linux-source"
"""The package that depends on the newest sources."""
_NEWEST = re.compile(r"(linux-source-\d+\.\d+) \(= ([0-9A-Za-z.+~:-]+)\)")
_WAITS = "waiting for another build, which fetches packages"

_CONFIGURATION = """\
Dir "{state}";
Dir::Etc::SourceList "{state}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Parts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{state}";
Dir::State::Lists "{lists}";
Dir::State::Status "{state}/status";
Dir::Cache "{state}";
Dir::Log "/dev/null";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Sandbox::User "";
"""


@dataclass(frozen=True, slots=True)
class KernelSource:
    """The package with a kernel's sources."""

    package: str
    version: str
    sha256: str
    """Of the package file, as the suite's signed index tells it."""
    file_name: str


class SourceArchive:
    """apt, configured for one suite, inside `locked` of which its lists may be read and changed."""

    def __init__(self, suite: str, mirror: str | None, directory: Path) -> None:
        """Write the configuration to `directory`, which is temporary. Raises ImageBuildError."""
        cache = cache_directory() / "packages"
        mirror = mirror or host_mirror()
        digest = hashlib.sha256(f"source {suite} {mirror}".encode()).hexdigest()[:16]
        self._suite = suite
        self._archives = cache / "archives"
        lists = cache / "lists" / digest
        make_directory(self._archives)
        make_directory(lists / "partial")
        (directory / "status").touch()
        (directory / "sources.list").write_text(
            f"deb [signed-by={_KEYRING}] {mirror} {suite} main\n"
        )
        configuration = directory / "apt.conf"
        configuration.write_text(_CONFIGURATION.format(state=directory, lists=lists))
        self._environment = {"APT_CONFIG": str(configuration)}

    def find(self) -> KernelSource:
        """Return the newest sources. Raises ImageBuildError."""
        try:
            self._apt("apt-get", "-q", "update")
            meta = self._apt("apt-cache", "--no-all-versions", "show", _META_PACKAGE)
            newest = _NEWEST.search(_field(meta, "Depends"))
            if newest is None:
                raise self._lacks("whose version can be read")
            record = self._apt("apt-cache", "show", f"{newest[1]}={newest[2]}")
        except ToolError as error:
            if "Unable to locate" in error.log or "No packages found" in error.log:
                raise self._lacks(f"in a package {_META_PACKAGE}") from error
            raise ImageBuildError(
                f"Debian's mirror could not be reached: {error.message}",
                hint="check the network, or give another mirror: --mirror URL",
            ) from error
        file_name = Path(_field(record, "Filename")).name
        return KernelSource(newest[1], newest[2], _field(record, "SHA256"), file_name)

    def fetch(self, source: KernelSource, directory: Path) -> Path:
        """Return the package file, downloaded by way of `directory` if the cache has it not.

        Raises ImageBuildError.
        """
        path = self._archives / source.file_name
        if not path.exists() or _sha256(path) != source.sha256:
            apt_directory = directory / "download"
            apt_directory.mkdir()
            wanted = f"{source.package}={source.version}"
            self._apt(
                "apt-get",
                "-q",
                f"-oDir::Cache={apt_directory}",
                "download",
                wanted,
                apt_directory=apt_directory,
            )
            (downloaded,) = apt_directory.glob("*.deb")
            if _sha256(downloaded) != source.sha256:
                raise ImageBuildError(
                    f"{source.file_name} was damaged while it was downloaded",
                    hint="build the kernel again",
                )
            downloaded.replace(path)
        return path

    def _apt(self, *command: str, apt_directory: Path | None = None) -> str:
        output = run_tool(command, environment=self._environment, directory=apt_directory)
        return output.decode("utf-8", "replace")

    def _lacks(self, what: str) -> ImageBuildError:
        return ImageBuildError(
            f"Debian {self._suite} has no kernel sources {what}",
            hint=f"use the usual suite: --suite {SUITE}",
        )


def fetch_source(
    suite: str, mirror: str | None, directory: Path, progress: Progress
) -> tuple[KernelSource, Path]:
    """Find and fetch the newest sources. `directory` is for temporary files, and on any disk.

    Only one build fetches at a time. Raises ImageBuildError.
    """
    with (
        locks.exclusive(cache_directory() / "packages" / "lock", lambda: progress.detail(_WAITS)),
        tempfile.TemporaryDirectory(dir=directory) as temporary,
    ):
        archive = SourceArchive(suite, mirror, Path(temporary))
        with progress.step(f"looking for kernel sources in Debian {suite}"):
            source = archive.find()
        with progress.step(f"fetching {source.package} {source.version}"):
            return source, archive.fetch(source, Path(temporary))


def _field(record: str, name: str) -> str:
    found = re.search(rf"^{name}: (.*)$", record, re.MULTILINE)
    if found is None:
        raise ImageBuildError(
            f"Debian's index of packages has no field {name} for the kernel's sources"
        )
    return found[1]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
