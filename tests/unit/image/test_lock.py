"""image.lock: read as it was written, refused where it does not fit, and exact packages."""

import errno
import os
import subprocess
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from boincvm.errors import ImageBuildError, JobFileError
from boincvm.image import packages
from boincvm.image.lock import Asked, Distribution, Lock, LockedPackage, changes, read_lock
from boincvm.image.progress import Progress
from boincvm.image.recipe import read_recipe
from boincvm.image.tools import ToolError

ASKED = Asked("bookworm", "amd64", "debian", ("bc", "g++"), False, ("numpy==2.1.3",))
BC = LockedPackage("bc", "2:1.07.1-3+b1~deb12", "amd64", sha256(b"bc").hexdigest())
DC = LockedPackage("dc", "1", "all", sha256(b"dc").hexdigest())
LOCK = Lock(ASKED, True, (BC, DC), (Distribution("numpy", "2.1.3", "2" * 64),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image.lock"
    path.write_text(LOCK.encode())
    return path


def test_a_lock_is_read_as_it_was_written(path: Path) -> None:
    assert read_lock(path, ASKED) == LOCK
    assert read_lock(path).encode() == path.read_text()


@pytest.mark.parametrize(
    ("asked", "line", "why"),
    [
        (ASKED._replace(packages=("bc",)), 10, r"found \['bc', 'g\+\+'\], expected \['bc'\], as"),
        (ASKED._replace(architecture="arm64"), 8, "found 'amd64', expected 'arm64'"),
        (ASKED._replace(kernel="small"), 9, "found 'debian', expected 'small'"),
        (ASKED._replace(recommends=True), 11, "found false, expected true"),
        (ASKED._replace(pip=()), 12, r"found \['numpy==2.1.3'\], expected \[\]"),
    ],
)
def test_a_lock_of_another_recipe(path: Path, asked: Asked, line: int, why: str) -> None:
    with pytest.raises(JobFileError, match=why) as refused:
        read_lock(path, asked)
    assert f"image.lock:{line}: found" in refused.value.message
    assert "--update" in refused.value.hint


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("format = 1", "format = 2", "found 2, expected 1"),
        ('name = "dc"', 'name = "../dc"', "expected a Debian package's name"),
        ('version = "1"', 'version = "1/../x"', "expected a Debian package's version"),
        ('version = "1"', 'version = "1 -o x"', "expected a Debian package's version"),
        ('version = "2.1.3"', 'version = "2 --x"', "expected a version"),
        (DC.sha256, "x", "expected a SHA-256 digest"),
        ('architecture = "all"', 'architecture = "a;b"', "expected an architecture"),
        ('name = "dc"', 'name = "bc"', "found bc twice"),
        ('name = "numpy"', 'name = "-r"', "the name of a package of PyPI"),
        ("configured = true", "configured = 1", "expected true or false"),
        ("[recipe]", "[recipes]", "unknown key 'recipes'"),
    ],
)
def test_a_lock_that_was_changed(path: Path, old: str, new: str, why: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(JobFileError, match=why):
        read_lock(path, ASKED)


@pytest.mark.timeout(20)
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    for name, read in (("image.lock", read_lock), ("image.toml", read_recipe)):
        os.mkfifo(tmp_path / name)
        with pytest.raises(JobFileError, match="found no regular file"):
            read(tmp_path / name)


def test_what_an_update_has_changed() -> None:
    new = LockedPackage("ecm", "7", "amd64", "7" * 64)
    newer = BC._replace(version="3", sha256="3" * 64)
    other = Distribution("numpy", "2.1.3", "3" * 64)
    found = changes(LOCK, replace(LOCK, packages=(newer, new), python=(other,)))
    assert found.lines() == [
        f"  PyPI:numpy 2.1.3 ({'2' * 12}) → 2.1.3 ({'3' * 12})",
        "  bc 2:1.07.1-3+b1~deb12 → 3",
        "- dc 1",
        "+ ecm 7",
    ]
    assert changes(LOCK, LOCK).lines() == []


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of downloaded packages, which has bc."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    directory = tmp_path / "home/cache/packages/archives"
    directory.mkdir(parents=True)
    (directory / "bc_2%3a1.07.1-3+b1~deb12_amd64.deb").write_bytes(b"bc")
    return directory


def fetch(directory: Path, *wanted: LockedPackage) -> list[Path]:
    own = directory / "build"
    own.mkdir()
    return packages.fetch_locked(wanted, "bookworm", None, own, Progress(None))


def test_packages_that_are_here_are_not_asked_for(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "run_tool", lambda *_, **__: pytest.fail("asked for"))
    assert fetch(tmp_path, BC) == [tmp_path / "build" / BC.file_name]


def test_exactly_the_packages_that_are_lacking_are_fetched(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def run_tool(_command: object, *, environment: dict[str, str]) -> None:
        for name in ("BOINCVM_EXACT", "BOINCVM_DIGESTS"):
            asked.extend(Path(environment[name]).read_text().split())
        (archives / DC.file_name).write_bytes(b"dc")
        Path(environment["BOINCVM_CHOSEN"]).write_text(f"/x/{DC.file_name}\n")

    monkeypatch.setattr(packages, "run_tool", run_tool)
    found = fetch(tmp_path, BC, DC)
    assert found == [tmp_path / "build" / package.file_name for package in (BC, DC)]
    assert [path.read_bytes() for path in found] == [b"bc", b"dc"]
    assert asked == ["dc:all=1", DC.sha256]


def other_disk(*_: object, **__: object) -> None:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


@pytest.mark.parametrize("are_links", [True, False])
def test_another_build_replaces_a_package(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, are_links: bool
) -> None:
    """A build has what was compared, or chosen by apt, also where no link leads to the cache."""
    if not are_links:
        monkeypatch.setattr(os, "link", other_disk)

    def run_tool(_command: object, *, environment: dict[str, str]) -> None:
        Path(environment["BOINCVM_CHOSEN"]).write_text(f"/x/{BC.file_name}\n")

    monkeypatch.setattr(packages, "run_tool", run_tool)
    (tmp_path / "newest").mkdir()
    found = fetch(tmp_path, BC)
    found += packages.fetch_packages(("bc",), "bookworm", None, tmp_path / "newest", Progress(None))
    (archives / "new").write_bytes(b"another")
    (archives / "new").replace(archives / BC.file_name)
    assert [path.read_bytes() for path in found] == [b"bc", b"bc"]
    with pytest.raises(ImageBuildError, match=r"bc .* are not those whose digests"):
        packages.fetch_locked((BC,), "bookworm", None, tmp_path / "newest", Progress(None))


@pytest.mark.parametrize(
    ("asked", "digest", "before", "after"),
    [
        ("exact", sha256(b"new").hexdigest(), b"old", b"new"),
        ("exact", sha256(b"old").hexdigest(), b"old", b"old"),
        ("exact", sha256(b"new").hexdigest(), None, b"new"),
        ("newest", "", b"old", b"new"),
        ("newest", "", None, b"new"),
    ],
)
def test_which_files_get_into_the_cache(
    archives: Path, tmp_path: Path, asked: str, digest: str, before: bytes | None, after: bytes
) -> None:
    """A script has apt-get's place: the mirror has a dc of its own."""
    cached, root = archives / DC.file_name, tmp_path / "root"
    if before is not None:
        cached.write_bytes(before)
    for directory in ("bin", "lists", "root"):
        (tmp_path / directory).mkdir()
    apt = tmp_path / "bin/apt-get"
    apt.write_text(
        f"""#!/bin/sh -e
case "$*" in
*" download "*) printf new >{DC.file_name} ;;
*" install "*)
    rm -f "$ROOT/var/cache/apt/archives/{DC.file_name}"
    printf new >"$ROOT/var/cache/apt/archives/{DC.file_name}"
    echo "$ROOT/var/cache/apt/archives/{DC.file_name}" >"$BOINCVM_CHOSEN" ;;
esac
"""
    )
    apt.chmod(0o755)
    (tmp_path / "exact").write_text("dc:all=1\n")
    (tmp_path / "digests").write_text(f"{DC.sha256}\n{digest}\n")
    environment = {
        "PATH": f"{apt.parent}{os.pathsep}{os.environ['PATH']}",
        "ROOT": str(root),
        "MMDEBSTRAP_APT_CONFIG": "",
        "BOINCVM_ARCHIVES": str(archives),
        "BOINCVM_LISTS": str(tmp_path / "lists"),
        "BOINCVM_CHOSEN": str(tmp_path / "chosen"),
        "BOINCVM_PACKAGES": "dc" if asked == "newest" else "",
        "BOINCVM_WITH_RECOMMENDED": "",
        "BOINCVM_EXACT": str(tmp_path / "exact") if asked == "exact" else "",
        "BOINCVM_DIGESTS": str(tmp_path / "digests"),
    }
    command = ["sh", str(packages._DOWNLOAD), str(root)]
    subprocess.run(command, check=True, capture_output=True, timeout=30, env=environment)
    assert cached.read_bytes() == after
    assert not list(archives.glob("*.new"))


def test_packages_that_are_gone_are_all_named(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = "Reading…\nE: Version '1' for 'dc' was not found\nE: Unable to locate package old:amd64\n"

    def run_tool(*_: object, **__: object) -> None:
        raise ToolError("mmdebstrap", 1, log)

    monkeypatch.setattr(packages, "run_tool", run_tool)
    with pytest.raises(ImageBuildError, match=r"no more: dc 1, old$") as refused:
        fetch(tmp_path, BC, DC)
    assert "--update" in refused.value.hint
    assert "--mirror" in refused.value.hint


def test_a_package_with_another_content(
    archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_tool(_command: object, *, environment: dict[str, str]) -> None:
        (archives / DC.file_name).write_bytes(b"another")
        Path(environment["BOINCVM_CHOSEN"]).write_text(f"/x/{DC.file_name}\n")

    monkeypatch.setattr(packages, "run_tool", run_tool)
    with pytest.raises(ImageBuildError, match="dc 1 are not those whose digests"):
        fetch(tmp_path, BC, DC)
