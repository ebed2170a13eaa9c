"""Packages in a running guest: installed, removed, refused; here beneath a directory."""

import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import boincvm_guest_package

SCRIPT = Path(boincvm_guest_package.__file__)


def member(name: str, content: bytes = b"", *, mode: int = 0o644, **fields: object) -> tuple:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def directory(name: str) -> tuple:
    return member(name, mode=0o755, type=tarfile.DIRTYPE)


def link(name: str, target: str) -> tuple:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tuple:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar(*members: tuple, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.GNU_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def ar(*parts: tuple[str, bytes]) -> bytes:
    result = b"!<arch>\n"
    for name, content in parts:
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        result += head.encode() + content + b"\n" * (len(content) % 2)
    return result


def deb(*members: tuple, compression: str = "xz") -> bytes:
    data = tar(*members, mode=f"w:{compression}")
    control = tar(member("./control", b"Package: x\n"), mode="w:xz")
    name = f"data.tar.{compression}" if compression else "data.tar"
    return ar(("debian-binary", b"2.0\n"), ("control.tar.xz", control), (name, data))


PROGRAM = (
    directory("./"),
    directory("./usr/"),
    directory("./usr/bin/"),
    member("./usr/bin/tool", b"new tool", mode=0o4755),
    hard_link("./usr/bin/other", "./usr/bin/tool"),
    member("./etc/tool.conf", b"new"),
    link("./usr/bin/name", "tool"),
    link("./opt", "/usr"),
    member("./lib/libtool.so.1.2", b"library"),
)


class Location:
    """A root directory with some content, and the script."""

    def __init__(self, base: Path) -> None:
        self.base, self.root, self.record = base, base / "root", base / "record"
        for name in ("usr/lib", "etc", "sbin"):
            (self.root / name).mkdir(parents=True)
        (self.root / "lib").symlink_to("usr/lib")
        (self.root / "etc/tool.conf").write_text("old")
        (self.root / "etc/tool.conf").chmod(0o640)
        (self.root / "opt").symlink_to("nowhere")
        self.before = self.state()

    def state(self) -> dict[str, tuple]:
        """Return everything beneath the root: kind and mode, content or target."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            status = path.lstat()
            content = path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
            found[str(path.relative_to(self.root))] = (status.st_mode, content)
        return found

    def call(self, *arguments: str | Path) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-I", "-S", SCRIPT, "--root", self.root, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == ""
        return done.returncode, done.stderr

    def install(self, content: bytes) -> tuple[int, str]:
        package = self.base / "package"
        package.write_bytes(content)
        return self.call("install", package, self.record)

    def remove(self) -> tuple[int, str]:
        return self.call("remove", self.record)

    def is_as_before(self) -> bool:
        return self.state() == self.before and not self.record.exists()


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return Location(tmp_path)


@pytest.mark.parametrize(
    "pack",
    [
        deb(*PROGRAM),
        deb(*PROGRAM, compression="gz"),
        deb(*PROGRAM, compression="bz2"),
        deb(*PROGRAM, compression=""),
        *(tar(*PROGRAM, mode=f"w:{kind}") for kind in ("", "gz", "xz", "bz2")),
    ],
    ids=["deb-xz", "deb-gz", "deb-bz2", "deb", "tar", "tar-gz", "tar-xz", "tar-bz2"],
)
def test_a_package_goes_in_and_out(location: Location, pack: bytes) -> None:
    for _ in range(2):
        assert location.install(pack) == (0, "")
        tool = location.root / "usr/bin/tool"
        assert (tool.read_bytes(), stat.S_IMODE(tool.stat().st_mode)) == (b"new tool", 0o755)
        assert tool.samefile(location.root / "usr/bin/other")
        assert tool.samefile(location.root / "usr/bin/name")
        assert (location.root / "etc/tool.conf").read_text() == "new"
        assert (location.root / "usr/lib/libtool.so.1.2").read_bytes() == b"library"
        assert (location.root / "lib").readlink() == Path("usr/lib")
        assert (location.root / "opt").readlink() == Path("/usr")
        assert list(location.root.rglob(".boincvm*")) == []
    for _ in range(2):
        assert location.remove() == (0, "")
        assert location.is_as_before()


def test_what_was_put_into_a_directory_since_stays(location: Location) -> None:
    location.install(deb(*PROGRAM))
    (location.root / "usr/bin/mine").write_text("mine")
    assert location.remove() == (0, "")
    assert os.listdir(location.root / "usr/bin") == ["mine"]


def test_names_may_begin_at_the_root_and_repeat(location: Location) -> None:
    pack = tar(member("/usr/a", b"1"), member("usr//./a", b"2"), member("./usr/a", b"3"))
    assert location.install(pack) == (0, "")
    assert (location.root / "usr/a").read_bytes() == b"3"
    assert location.remove() == (0, "")
    assert location.is_as_before()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (member("../x", b"x"), "not a path beneath"),
        (member("a/../../x", b"x"), "not a path beneath"),
        (member("/".join("a" * 65), b"x"), "not a path beneath"),
        (member("dev", type=tarfile.CHRTYPE), "neither file"),
        (member("block", type=tarfile.BLKTYPE), "neither file"),
        (member("pipe", type=tarfile.FIFOTYPE), "neither file"),
        (link("./", "etc"), "is the root"),
        (link("out", "../etc"), "leads out"),
        (link("usr/out", "/a/../../b"), "leads out"),
        (link("usr/out", "a/../../../b"), "leads out"),
        (hard_link("x", "etc/passwd"), "does not hold"),
        (hard_link("x", "../outside"), "not a path beneath"),
        (member("etc", b"a file"), "in the way"),
        (member("etc/tool.conf/below", b"x"), "in the way"),
        (link("usr", "etc"), "in the way"),
    ],
)
def test_a_package_that_is_refused_leaves_nothing(
    location: Location, bad: tuple, words: str
) -> None:
    code, reported = location.install(tar(*PROGRAM, bad))
    assert (code, len(reported.splitlines())) == (4, 1)
    assert words in reported
    assert location.is_as_before()


def test_a_package_that_is_too_large_is_refused_by_what_it_says(location: Location) -> None:
    info, _ = member("big")
    info.size = (8 << 30) + 1
    code, reported = location.install(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert (code, "8 GiB" in reported) == (4, True)


def test_no_member_goes_through_a_link_of_the_package(location: Location) -> None:
    outside = location.base / "outside"
    outside.mkdir()
    code, reported = location.install(tar(link("a", str(outside)), member("a/x", b"x")))
    assert (code, list(outside.iterdir())) == (4, [])
    assert "leads through a link of the same package" in reported


def test_links_of_the_system_lead_nowhere_but_into_the_root(location: Location) -> None:
    outside = location.base / "outside"
    outside.mkdir()
    (location.root / "up").symlink_to(f"../../..{outside}")
    (location.root / "round").symlink_to("round")
    assert location.install(tar(member("up/x", b"x"))) == (0, "")
    assert list(outside.iterdir()) == []
    assert location.root.joinpath(*outside.parts[1:], "x").read_bytes() == b"x"
    assert location.remove() == (0, "")
    assert location.install(tar(member("round/x", b"x")))[0] == 4


def zstd(content: bytes) -> bytes:
    return ar(("debian-binary", b"2.0\n"), ("data.tar.zst", b"\x28\xb5\x2f\xfd" + content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no package"),
        (b"no archive at all", "no package"),
        (b"!<arch>\n", "no Debian package"),
        (ar(("other", b"x")), "no Debian package"),
        (ar(("debian-binary", b"2.0\n")), "no whole data.tar"),
        (deb(*PROGRAM)[:-9], "no whole data.tar"),
        (deb(*PROGRAM).replace(b"`\n", b"``"), "no whole data.tar"),
        (zstd(b"x"), "zstd, which Python here has no module for"),
        (tar(*PROGRAM, mode="w:xz")[:-20], "damaged"),
        (tar(*PROGRAM, mode="w:gz")[:-9], "damaged"),
        (tar(*PROGRAM)[:-9000], "damaged"),
        (tar(member("x", b"x" * 10_000))[:1024], "damaged"),
    ],
)
def test_a_damaged_package(location: Location, content: bytes, words: str) -> None:
    code, reported = location.install(content)
    assert (code, len(reported.splitlines())) == (3, 1)
    assert words in reported
    assert location.is_as_before()


def test_arguments(location: Location) -> None:
    assert location.call("install")[0] == 2
    assert location.call("install", location.base / "none", location.record)[0] == 5
    mine = location.base / "mine"
    mine.mkdir()
    (mine / "file").touch()
    assert location.call("remove", mine)[0] == 5
    assert (mine / "file").exists()


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import boincvm_guest_package as script
left = int(sys.argv.pop(1))
def counted(function):
    def call(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call
for name in ("mkdir", "link", "symlink", "rename", "unlink", "rmdir", "chmod", "fchmod"):
    setattr(os, name, counted(getattr(os, name)))
script.json.dumps = counted(script.json.dumps)
sys.exit(script.main(sys.argv[1:]))
"""
"""The script, which is killed as it is about to make a change of a given number."""


def killed(location: Location, steps: int, *arguments: str | Path) -> bool:
    command = [sys.executable, "-c", KILLED, SCRIPT.parent, str(steps), "--root", location.root]
    code = subprocess.run([*command, *arguments], timeout=60, check=False).returncode
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.parametrize("steps", range(0, 32, 2))
def test_an_installation_that_was_killed_can_be_taken_away(location: Location, steps: int) -> None:
    (location.base / "package").write_bytes(deb(*PROGRAM))
    assert killed(location, steps, "install", location.base / "package", location.record)
    killed(location, steps // 4, "remove", location.record)
    assert location.remove() == (0, "")
    assert location.is_as_before()


@pytest.mark.parametrize("steps", range(0, 18, 2))
def test_a_removal_that_was_killed_can_be_repeated(location: Location, steps: int) -> None:
    location.install(deb(*PROGRAM))
    assert killed(location, steps, "remove", location.record)
    assert location.remove() == (0, "")
    assert location.is_as_before()


def test_the_linker_looks_again_where_there_are_libraries(location: Location) -> None:
    program = location.root / "sbin/ldconfig"
    program.write_text(f'#!/bin/sh\necho "$@" >>{location.base}/called\n')
    program.chmod(0o755)
    location.install(tar(member("usr/bin/tool", b"x")))
    location.install(deb(*PROGRAM))
    location.remove()
    assert (location.base / "called").read_text() == f"-r {location.root}\n" * 2
    program.write_text("#!/bin/sh\necho why >&2; exit 1\n")
    code, reported = location.install(deb(*PROGRAM))
    assert (code, "why" in reported) == (5, True)
    assert not (location.root / "usr/bin").exists()


@given(st.binary(max_size=300))
def test_anything_is_read_or_refused(content: bytes) -> None:
    for start in (b"", b"!<arch>\ndebian-binary", b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh"):
        try:
            boincvm_guest_package.check(io.BytesIO(start + content), "package")
        except boincvm_guest_package.PackageError as error:
            assert error.code in (3, 4)  # noqa: PT017 - an archive of nothing is one, too
