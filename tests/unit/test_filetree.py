"""Trees that travel: nothing in a path, a link or an order of entries leads out."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boincvm import filetree
from boincvm.filetree import Entry, TreeWriter, UnsafePathError


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def write(
    parent: int, entries: list[Entry], *, nameless: bool = False, most: int = 1 << 40
) -> None:
    writer = TreeWriter(parent, b"out", maximum_bytes=most, maximum_entries=20, nameless=nameless)
    try:
        for entry in entries:
            writer.add(entry)
        writer.finish()
    finally:
        writer.close()


PIECES = st.sampled_from([b"a", b"b", b".", b"..", b"", b"a b", b"\n", b"-", b"\xff"])
PATHS = st.lists(PIECES, max_size=8).map(b"/".join)


@given(st.binary(max_size=30) | PATHS)
def test_components_stay_beneath(path: bytes) -> None:
    try:
        parts = filetree.components(path)
    except UnsafePathError:
        assert path.startswith(b"/") or b"\0" in path or b".." in path.split(b"/")
        return
    assert not {b"", b".", b".."} & set(parts)
    assert not any(b"/" in part or b"\0" in part for part in parts)
    assert os.path.normpath(b"/r/" + b"/".join(parts)).startswith(b"/r")


def test_too_deep_a_path() -> None:
    with pytest.raises(UnsafePathError, match="more than 64"):
        filetree.components(b"a/" * 65)


LINK_ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["directory", "link"]),
        st.lists(st.sampled_from([b"a", b"b", b".", b""]), min_size=1, max_size=5).map(b"/".join),
        st.lists(st.sampled_from([b"a", b"b", b"..", b".", b""]), max_size=5).map(b"/".join),
    ),
    max_size=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(entries=LINK_ENTRIES)
def test_no_tree_that_is_accepted_resolves_outside(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bytes, bytes]]
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    base = os.open(outside, os.O_RDONLY | os.O_DIRECTORY)
    writer = TreeWriter(base, b"out", maximum_bytes=0)
    try:
        writer.add(Entry("directory", b"", 0o755))
        for kind, path, target in entries:
            try:
                writer.add(Entry(kind, path, 0o755, target=target))
            except (UnsafePathError, OSError):
                continue  # refused, or of no sense: a link to "", a name that is there already
    finally:
        writer.close()
        os.close(base)
    assert [path.name for path in outside.iterdir()] == ["out"]
    top = outside / "out"
    for path in top.rglob("*"):
        # Each link is resolved by the kernel; loops and targets that are missing lead nowhere.
        resolved = Path(os.path.realpath(path))
        assert resolved == top or resolved.is_relative_to(top), path.readlink()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"link", b"/etc/passwd"),
        (b"link", b"../x"),
        (b"d/link", b"../../x"),
        (b"././././link", b"../../../x"),
        (b"d//////link", b"../../x"),
        (b"link", b"a/../../x"),
        (b"link", b"a/.."),
        (b"", b"a"),
        (b"link", b"a\0b"),
        (b"link", b"a" * 5000),
    ],
)
def test_a_link_that_could_lead_out(path: bytes, target: bytes) -> None:
    with pytest.raises(UnsafePathError, match="may lead out"):
        filetree.check_link(path, target)


@pytest.mark.parametrize(("path", "target"), [(b"l", b"a/b"), (b"d/l", b"../a"), (b"l", b"./a")])
def test_a_harmless_link(path: bytes, target: bytes) -> None:
    filetree.check_link(path, target)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [Entry("file", b"a")],
        [Entry("file", b""), Entry("file", b"a")],
        [Entry("directory", b""), Entry("directory", b"")],
        [Entry("directory", b""), Entry("directory", b".")],
        [Entry("directory", b""), Entry("file", b"../a")],
        [Entry("directory", b""), Entry("file", b"/a")],
        [Entry("directory", b""), Entry("link", b"l", target=b"d"), Entry("file", b"l/a")],
        [Entry("link", b"", target=b"a")],
        [Entry("device", b"")],
        [Entry("file", b"", size=-1)],
        [Entry("file", b"", size=1001)],
        [Entry("directory", b""), *(Entry("file", b"%d" % n, size=400) for n in range(3))],
        [Entry("directory", b""), *(Entry("directory", b"%d" % n) for n in range(20))],
    ],
)
def test_a_hostile_order_of_entries(tmp_path: Path, root: int, entries: list[Entry]) -> None:
    with pytest.raises(UnsafePathError):
        write(root, entries, most=1000)
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}


def test_entries_that_are_there_already(root: int) -> None:
    for kind in ("file", "directory"):
        with pytest.raises(FileExistsError):
            write(root, [Entry("directory", b""), Entry("file", b"a"), Entry(kind, b"a")])
        (Path(f"/proc/self/fd/{root}") / "out/a").unlink()
        (Path(f"/proc/self/fd/{root}") / "out").rmdir()


def test_a_parent_that_is_missing(root: int) -> None:
    with pytest.raises(FileNotFoundError):
        write(root, [Entry("directory", b""), Entry("file", b"a/b")])


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 11), (10, 1), (1 << 62, 1)])
def test_data_outside_its_file(root: int, offset: int, length: int) -> None:
    writer = TreeWriter(root, b"out", maximum_bytes=10)
    writer.add(Entry("file", b"", 0o600, 10))
    with pytest.raises(UnsafePathError, match="outside the file"):
        writer.write(offset, bytes(length))
    writer.close()


def test_data_without_a_file(root: int) -> None:
    writer = TreeWriter(root, b"out", maximum_bytes=10)
    writer.add(Entry("directory", b""))
    with pytest.raises(UnsafePathError, match="outside the file"):
        writer.write(0, b"x")
    writer.close()


def test_a_nameless_file_has_no_name_until_it_is_finished(tmp_path: Path, root: int) -> None:
    writer = TreeWriter(root, b"out", maximum_bytes=10, nameless=True)
    writer.add(Entry("file", b"", 0o640, 10))
    writer.write(5, b"later")
    assert list(tmp_path.iterdir()) == []
    writer.finish()
    assert (tmp_path / "out").read_bytes() == bytes(5) + b"later"
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_a_tree_survives_a_walk_and_a_writer(tmp_path: Path, root: int) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_bytes(b"x" * 1000)
    (tree / "sub/file").chmod(0o4755)
    (tree / "sub/link").symlink_to("file")
    (tree / "read-only").mkdir()
    (tree / "read-only/file").touch()
    (tree / "read-only").chmod(0o555)
    writer = TreeWriter(root, b"out", maximum_bytes=1 << 40)
    for entry, descriptor in filetree.walk(root, b"tree"):
        writer.add(entry)
        if descriptor >= 0:
            writer.write(0, os.pread(descriptor, 2000, 0))
    writer.finish()
    out = tmp_path / "out"
    assert (out / "sub/file").read_bytes() == b"x" * 1000
    assert stat.S_IMODE((out / "sub/file").stat().st_mode) == 0o755  # no set-user-id bit
    assert (out / "sub/link").readlink() == Path("file")
    assert stat.S_IMODE((out / "read-only").stat().st_mode) == 0o555
    assert (out / "read-only/file").exists()


def test_the_holes_of_a_file_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(1 << 20)
        file.write(b"data")
        file.truncate(1 << 30)
    with path.open("rb") as file:
        found = list(filetree.extents(file.fileno(), 1 << 30))
        assert sum(length for _, length in found) < 1 << 20
        assert any(start <= 1 << 20 < start + length for start, length in found)
        assert list(filetree.extents(file.fileno(), 1 << 10)) == []


@pytest.mark.parametrize("path", [b"link", b"link/file", b"directory/link"])
def test_a_walk_follows_no_link(tmp_path: Path, root: int, path: bytes) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory/file").touch()
    (tmp_path / "directory/link").symlink_to("file")
    (tmp_path / "link").symlink_to("directory")
    with pytest.raises(UnsafePathError, match="is a symbolic link"):
        list(filetree.walk(root, path))


def test_a_walk_refuses_what_is_no_file(tmp_path: Path, root: int) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsafePathError, match="pipe is not a regular file"):
        list(filetree.walk(root, b"pipe"))
    with pytest.raises(UnsafePathError, match="pipe is not a regular file"):
        filetree.open_file(root, b"pipe")


def test_a_walk_ends_at_its_depth(tmp_path: Path, root: int) -> None:
    (tmp_path / "/".join("d" * 66)).mkdir(parents=True)
    with pytest.raises(UnsafePathError, match="more than 64 directories deep"):
        list(filetree.walk(root, b"d"))


@pytest.mark.parametrize("path", [b"a", b"a b", b"new\nline", b"\xff", b"\x1b[31m", b""])
def test_what_is_shown_is_one_printable_line(path: bytes) -> None:
    assert filetree.shown(path).isprintable()
    assert filetree.shown(path)
