"""What a user adds to an image: packages of PyPI, by a real pip without network, and own files."""

import base64
import csv
import hashlib
import os
import shutil
import socket
import sys
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from boincvm.errors import HostDiskFullError, ImageBuildError, InputFileError, UsageError
from boincvm.image import build, customization, package_set
from boincvm.image.architectures import AMD64, ARCHITECTURES
from boincvm.image.build_inputs import PYTHON_OF_SUITE
from boincvm.image.customization import (
    add_own_files,
    add_python_packages,
    check_requirements,
    fetch_python_packages,
    place_python_packages,
    read_own_files,
)
from boincvm.image.lock import Distribution
from boincvm.image.manifest import Manifest, Package, Recipe, decode_manifest
from boincvm.image.package_set import PackageRequest
from boincvm.image.progress import Progress
from boincvm.image.recommended import lacking_packages
from boincvm.image.tree import Attributes, Tree
from boincvm.machine.build_machine import booted

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree.create(tmp_path / "root")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-r",
        "--index-url=x",
        "a b",
        "./a",
        "a/b",
        "git+https://x",
        "a==",
        "a @ file:///x",
        "a;b",
    ],
)
def test_what_is_no_package_of_pypi(text: str) -> None:
    with pytest.raises(UsageError, match="expected a package of PyPI"):
        check_requirements((text,))


def test_packages_of_pypi() -> None:
    assert check_requirements(("scipy>=1.14,<2", "a", "a", "requests[socks]==2.*")) == (
        "a",
        "requests[socks]==2.*",
        "scipy>=1.14,<2",
    )


def wheel(directory: Path, name: str, needs: str = "", tag: str = "py3-none-any") -> None:
    directory.mkdir(exist_ok=True)
    info = f"{name}-1.5.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n"
    metadata += f"Requires-Dist: {needs}\n" if needs else ""
    with zipfile.ZipFile(directory / f"{name}-1.5-{tag}.whl", "w") as file:
        file.writestr(f"{name}-1.5.data/scripts/sub/tool", "#!python\nprint(1)\n")
        file.writestr(f"{name}/__init__.py", "def main():\n    print(40 + 2)\n")
        file.writestr(f"{info}/METADATA", metadata)
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/entry_points.txt", f"[console_scripts]\nrun-{name}={name}:main\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Offer only the wheels of a directory to pip."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path / "wheels"


def test_a_package_and_what_it_needs(tree: Tree, wheels: Path, tmp_path: Path) -> None:
    wheel(wheels, "outer", needs="inner>=1")
    wheel(wheels, "inner", tag="cp311-cp311-manylinux_2_28_x86_64")
    added = add_python_packages(tree, ("outer",), "python3.11", AMD64, tmp_path)
    assert added == ("inner==1.5", "outer==1.5")
    packages = tree.directory / "usr/local/lib/python3.11/dist-packages"
    assert (packages / "outer/__init__.py").is_file()
    assert (packages / "inner/__init__.py").is_file()
    program = tree.directory / "usr/local/bin/run-outer"
    assert program.read_text().startswith("#!/usr/bin/python3\n")
    assert program.stat().st_mode & 0o777 == 0o755
    assert str(tmp_path) not in program.read_text()
    assert not (tmp_path / "python-packages").exists()


def test_programs_do_not_depend_on_the_python_of_this_computer(
    tree: Tree, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pip begins a program otherwise if its own Python has a blank in its path."""
    wheel(wheels, "outer")
    (tmp_path / "with blank").symlink_to(Path(sys.executable).parents[1])
    executable = tmp_path / "with blank/bin" / Path(sys.executable).name
    monkeypatch.setattr(sys, "executable", str(executable))
    add_python_packages(tree, ("outer",), "python3.11", AMD64, tmp_path)
    programs = tree.directory / "usr/local/bin"
    for name in ("run-outer", "sub/tool"):
        assert (programs / name).read_text().startswith("#!/usr/bin/python3\n")
        assert "blank" not in (programs / name).read_text()
    (record,) = tree.directory.glob("usr/local/lib/python3.11/dist-packages/*/RECORD")
    with record.open() as file:
        rows = {row[0]: row[1:] for row in csv.reader(file)}
    for name in ("run-outer", "sub/tool"):
        program = record.parents[1] / f"../../../bin/{name}"
        assert program.resolve() == programs / name
        digest = base64.urlsafe_b64encode(hashlib.sha256(program.read_bytes()).digest())
        text = digest.decode().rstrip("=")
        size = program.stat().st_size
        assert rows[f"../../../bin/{name}"] == [f"sha256={text}", str(size)]


def test_pypi_that_cannot_be_reached(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as silent:  # nobody listens there
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
        with pytest.raises(ImageBuildError, match="PyPI could not be reached"):
            add_python_packages(tree, ("outer",), "python3.11", AMD64, tmp_path)


def test_pip_of_another_python_or_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would decide `python_version < "3.12"` and the like by its own."""
    ours = f"python{sys.version_info.major}.{sys.version_info.minor}"
    customization.check_python(ours, AMD64)
    with pytest.raises(UsageError, match="on arm64 needs pip of the same Python"):
        customization.check_python(ours, ARCHITECTURES["arm64"])
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(PYTHON_OF_SUITE, "bookworm", "python3.7")
    with pytest.raises(UsageError, match=r"--pip for python3\.7") as refused:
        build.build_image("new", pip=("outer",), boot=booted, progress=Progress(None))
    assert "--package python3-NAME" in refused.value.hint


def test_packages_that_cannot_be_had(tree: Tree, wheels: Path, tmp_path: Path) -> None:
    wheel(wheels, "other", tag="cp39-cp39-manylinux_2_28_x86_64")
    (wheels / "source-1.0.tar.gz").write_bytes(b"")
    for name in ("none", "other", "source"):
        with pytest.raises(ImageBuildError, match=f"no wheel of {name}") as refused:
            add_python_packages(tree, (name,), "python3.11", AMD64, tmp_path)
        assert f"python3-{name}" in refused.value.hint


def test_packages_of_a_lock_file(tree: Tree, wheels: Path, tmp_path: Path) -> None:
    """Exactly those come, and nothing that they need; other contents are refused."""
    wheel(wheels, "outer", needs="inner>=1")
    wheel(wheels, "inner")
    digest = hashlib.sha256((wheels / "outer-1.5-py3-none-any.whl").read_bytes()).hexdigest()
    fetch = partial(fetch_python_packages, ("outer",), "python3.11", AMD64, tmp_path)
    found = fetch()
    assert [item.name for item in found] == ["inner", "outer"]
    assert found[1] == Distribution("outer", "1.5", digest)
    shutil.rmtree(tmp_path / "python-packages")
    assert fetch((found[1],)) == (found[1],)
    assert place_python_packages(tree, "python3.11", tmp_path) == ("outer==1.5",)
    with pytest.raises(ImageBuildError, match="not the one whose digest is in the lock file"):
        fetch((found[1]._replace(sha256="0" * 64),))
    with pytest.raises(ImageBuildError, match=r"no outer==1\.4 any more") as gone:
        fetch((found[1]._replace(version="1.4"),))
    assert "--update" in gone.value.hint


def test_own_files(tree: Tree, tmp_path: Path) -> None:
    own = tmp_path / "own"
    (own / "sub").mkdir(parents=True)
    (own / "sub/data").write_text("data")
    (own / "run").write_text("#!/bin/sh\n")
    (own / "run").chmod(0o700)
    (own / "link").symlink_to("sub/data")
    tree.add_file("usr/bin/tool", b"Debian's")
    files = read_own_files((f"{own}:/opt/", f"{own}/run:/usr/bin/tool", f"{own}/link:/etc/x"))
    add_own_files(tree, files)
    root = tree.directory
    assert (root / "opt/own/sub/data").read_text() == "data"
    assert (root / "opt/own/link").readlink() == Path("sub/data")
    assert (root / "usr/bin/tool").read_text() == "#!/bin/sh\n"
    assert (root / "usr/bin/tool").stat().st_mode & 0o777 == 0o755
    assert (root / "opt/own/sub/data").stat().st_mode & 0o777 == 0o644
    assert (root / "etc/x").read_text() == "data"
    assert not (root / "etc/x").is_symlink()


def test_own_files_that_change(tree: Tree, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("a")
    (before,) = read_own_files((f"{path}:/opt/data",))
    path.chmod(0o755)
    (executable,) = read_own_files((f"{path}:/opt/data",))
    path.write_text("b")
    (after,) = read_own_files((f"{path}:/opt/data",))
    assert len({before.digest, executable.digest, after.digest}) == 3
    with pytest.raises(ImageBuildError, match="has changed during the build"):
        add_own_files(tree, (before,))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", "expected SRC:DST"),
        ("x:", "expected SRC:DST"),
        (":/opt/x", "expected SRC:DST"),
        ("x:opt", "expected SRC:DST"),
        ("..:/opt/", "expected SRC:DST"),
        ("x:/opt/../etc", "expected SRC:DST"),
        ("x:/proc/x", "another directory than /proc"),
        ("x:/work/", "another directory than /work"),
        ("x:/opt/a\nb", "expected SRC:DST"),
        ("x:/bin", "with /bin, which is a directory"),
        ("x:/etc", "with /etc, which is a directory"),
    ],
)
def test_own_files_that_are_refused(
    tmp_path: Path, text: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x").touch()
    with pytest.raises(UsageError, match=why):
        read_own_files((text,))


def test_own_files_that_are_not_there_or_twice(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="No such file"):
        read_own_files((f"{tmp_path}/none:/opt/x",))
    path = tmp_path / "a"
    path.touch()
    with pytest.raises(UsageError, match="two --file for /opt/a"):
        read_own_files((f"{path}:/opt/a", f"{path}:/opt/"))
    with pytest.raises(ImageBuildError, match="/usr/bin is a directory"):
        add_own_files(tree, read_own_files((f"{path}:/usr/bin",)))


def test_own_files_change_nothing_of_the_host(tree: Tree, tmp_path: Path) -> None:
    """An image has absolute links; they lead to the image's directories, not to the host's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o711)
    tree.add_directory("var")
    tree.add_link("var/there", str(outside))
    tree.add_link("var/lock", "/run/lock")
    tree.add_link("var/opt", "/srv/opt")
    tree.add_directory("srv/opt", Attributes(0o700))
    tree.add_file("etc/passwd", b"root")
    own = tmp_path / "own"
    own.mkdir()
    (own / "data").write_text("data")
    with suppress(ImageBuildError):  # the tests' directory may be in /tmp
        add_own_files(tree, read_own_files((f"{own}:/var/there",)))
    add_own_files(tree, read_own_files((f"{own}:/var/opt",)))
    tree.add_directory("usr/sub")
    tree.add_link("usr/link", str(outside))
    tree.add_directory("usr/link")
    assert outside.stat().st_mode & 0o777 == 0o711
    assert list(outside.iterdir()) == []
    assert (tree.directory / "srv/opt/data").read_text() == "data"
    assert (tree.directory / "srv/opt").stat().st_mode & 0o777 == 0o700
    for folder in ("/var/lock", "/var/lock/data"):
        with pytest.raises(ImageBuildError, match=r"leads to /run/lock.* which a machine makes"):
            add_own_files(tree, read_own_files((f"{own}:{folder}",)))
    with pytest.raises(ImageBuildError, match="/etc/passwd is a file in the image"):
        add_own_files(tree, read_own_files((f"{own}/data:/etc/passwd/x",)))
    with pytest.raises(ImageBuildError, match="/var/opt is a directory in the image"):
        add_own_files(tree, read_own_files((f"{own}/data:/var/opt",)))


def test_own_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is simulated: root may read every directory."""
    secret = tmp_path / "own/secret"
    secret.mkdir(parents=True)
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path) == secret:
            raise PermissionError(13, os.strerror(13), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputFileError, match="cannot be read"):
        read_own_files((f"{tmp_path}/own:/opt/",))


def test_the_limit_is_for_all_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customization, "_MOST_BYTES", 3 << 20)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(2 << 20))
    (file,) = read_own_files((f"{tmp_path}/a:/opt/a",))
    assert file.size == 2 << 20
    with pytest.raises(InputFileError, match="all --file have 4 MiB, and an image at most 3 MiB"):
        read_own_files((f"{tmp_path}/a:/opt/a", f"{tmp_path}/b:/opt/b"))


def test_a_build_asks_for_room_for_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the tree, the raw disk and the image at the same time."""
    (tmp_path / "a").write_bytes(bytes(2 << 20))
    asked: list[int] = []

    def check_space(_directory: Path, size: int) -> None:
        asked.append(size)
        raise HostDiskFullError("full")

    monkeypatch.setattr(build.tools, "check_host", lambda *_: None)
    monkeypatch.setattr(build.tools, "check_space", check_space)
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    with pytest.raises(HostDiskFullError):
        build.build_image(
            "new", own_files=(f"{tmp_path}/a:/opt/a",), boot=booted, progress=Progress(None)
        )
    assert asked == [build.tools.DISK_SPACE + (6 << 20)]


def manifest(*packages: str) -> Manifest:
    return Manifest(
        architecture="amd64",
        recipe=Recipe(5, "bookworm", packages, "g", pip=("a",), own_files=("/x:1",)),
        kernel_release="6",
        agent_version="1",
        agent_sha256="0",
        packages=tuple(Package(name, "1", "amd64", False) for name in packages),
        files=(),
        python_packages=("a==1",),
    )


def test_a_compiler_without_headers() -> None:
    assert lacking_packages(manifest("gcc", "gcc-12").packages) == ["libc6-dev"]
    assert lacking_packages(manifest("g++-12").packages) == ["libc6-dev"]
    assert lacking_packages(manifest("gcc-12", "libc6-dev").packages) == []
    assert lacking_packages(manifest("gcc-12-base", "libgcc-s1").packages) == []


def test_the_manifest_has_what_was_added() -> None:
    from dataclasses import replace

    from boincvm.image.manifest import INITRD, KERNEL, ROOT, ContentFile

    files = tuple(ContentFile(name, 1, "0") for name in (INITRD, KERNEL, ROOT))
    made = replace(manifest("bc"), files=files)
    assert decode_manifest(made.encode(), Path("x")) == made
    plain = replace(made, recipe=Recipe(5, "bookworm", ("bc",), "g"), python_packages=())
    for name in (b"pip", b"own_files", b"recommends", b"python_packages"):
        assert name in made.encode() or name == b"recommends"
        assert name not in plain.encode()


@pytest.mark.parametrize(("pip", "has_them"), [(("numpy",), True), ((), False)])
def test_libraries_that_wheels_expect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: tuple[str, ...], has_them: bool
) -> None:
    """numpy's extension modules need libstdc++.so.6, which no wheel may bring."""
    asked: list[set[str]] = []

    def fetch(packages: tuple[str, ...], *_: object, **__: object) -> list[Path]:
        asked.append(set(packages))
        return []

    monkeypatch.setattr(package_set, "fetch_packages", fetch)
    recipe = Recipe(5, "bookworm", (), "g", pip=pip)
    package_set.fetch_debian(tmp_path, PackageRequest(recipe, AMD64), Progress(None))
    assert asked
    assert all(({"libstdc++6", "zlib1g"} <= packages) is has_them for packages in asked)
