"""File trees in transit: nothing is written outside, whatever the other side sends."""

import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from boincvm import tree_entries
from boincvm.host import filetree
from boincvm.host.filetree import TreeWriter
from boincvm.tree_entries import Entry, UnsafePathError
from support.hostile.contained import check_contained

parts = st.sampled_from([b"a", b"b", b"..", b".", b"", b"c d", b"\n"])
paths = st.lists(parts, max_size=5).map(b"/".join)


def open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def writer(directory: Path, name: bytes = b"tree", maximum_bytes: int = 1 << 20) -> TreeWriter:
    parent = open_directory(directory)
    try:
        return TreeWriter(parent, name, maximum_bytes=maximum_bytes)
    finally:
        os.close(parent)


def copy(source: Path, path: bytes, target: Path) -> None:
    """Do in one process what host and guest do together."""
    root = open_directory(source)
    receiver = writer(target, b"copy", 1 << 40)
    try:
        for entry, descriptor in filetree.walk(root, path):
            receiver.add(entry)
            for start, length in filetree.extents(descriptor, entry.size):
                receiver.write(start, os.pread(descriptor, length, start))
        receiver.finish()
    finally:
        receiver.close()
        os.close(root)


def test_a_tree_arrives_as_it_was(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    deep = source / "tree" / "sub dir" / "new\nline"
    deep.mkdir(parents=True)
    target.mkdir()
    (deep / "file").write_bytes(b"content")
    (deep / "file").chmod(0o751)
    (deep / os.fsdecode(b"\xff-not-utf-8")).write_bytes(b"")
    (deep / "up").symlink_to("../other")
    deep.chmod(0o500)
    with (source / "tree" / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)
        sparse.seek(1 << 29)
        sparse.write(b"x" * 4096)
    try:
        copy(source, b"tree", target)
        there = target / "copy" / "sub dir" / "new\nline"
        assert stat.S_IMODE(there.stat().st_mode) == 0o500
        assert stat.S_IMODE((there / "file").stat().st_mode) == 0o751
        assert (there / "file").read_bytes() == b"content"
        assert (there / os.fsdecode(b"\xff-not-utf-8")).exists()
        assert (there / "up").readlink() == Path("../other")
        sparse_copy = (target / "copy" / "sparse").stat()
        assert sparse_copy.st_size == 1 << 30
        assert sparse_copy.st_blocks * 512 < 1 << 20
    finally:
        deep.chmod(0o700)
        (target / "copy" / "sub dir" / "new\nline").chmod(0o700)


def test_special_bits_do_not_travel(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "file").chmod(0o4755)
    copy(tmp_path, b"file", tmp_path)
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o755


@pytest.mark.parametrize("path", [b"/etc/passwd", b"..", b"a/../b", b"a\0b", b"a/" * 65 + b"a"])
def test_paths_that_are_refused(path: bytes) -> None:
    with pytest.raises(UnsafePathError):
        tree_entries.components(path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "file").symlink_to(outside / "secret")
    (inside / "directory").symlink_to(outside)
    root = open_directory(inside)
    try:
        for path in (b"file", b"directory", b"directory/secret"):
            with pytest.raises(UnsafePathError, match="symbolic link"):
                list(filetree.walk(root, path))
        with pytest.raises(UnsafePathError, match="symbolic link"):
            filetree.open_parent(root, [b"directory", b"new"], create=True)
    finally:
        os.close(root)


def test_pipes_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    root = open_directory(tmp_path)
    try:
        with pytest.raises(UnsafePathError, match="not a regular file"):
            list(filetree.walk(root, b"pipe"))
    finally:
        os.close(root)


@given(paths, paths)
@settings(max_examples=300)
def test_an_accepted_link_cannot_lead_out(path: bytes, target: bytes) -> None:
    """Compare with the definition: no `..` of the target is reached at or above the tree's root."""
    try:
        tree_entries.check_link(path, target)
    except UnsafePathError:
        return
    depth = path.count(b"/")
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
        elif part not in (b"", b"."):
            depth += 1
        assert depth >= 0
    assert not target.startswith(b"/")


entries = st.builds(
    Entry,
    st.sampled_from(["file", "directory", "link", "door"]),
    paths,
    st.just(0o755),
    st.integers(-1, 40),
    st.one_of(paths, st.just(b"/etc")),
)


@given(st.lists(entries, max_size=8), st.binary(max_size=50), st.integers(-5, 60))
@example([Entry("directory", b""), Entry("link", b"a", target=b"a")], b"", 0)
@settings(max_examples=300, deadline=None)
def test_a_hostile_sender_writes_nothing_outside(
    tmp_path_factory: pytest.TempPathFactory, sent: list[Entry], data: bytes, offset: int
) -> None:
    directory = tmp_path_factory.mktemp("hostile")
    (directory / "inside").mkdir()
    (directory / "bystander").write_bytes(b"untouched")
    receiver = writer(directory / "inside")
    try:
        for entry in sent:
            receiver.add(entry)
            if entry.kind == "file":
                receiver.write(offset, data)
        receiver.finish()
    except (UnsafePathError, OSError):
        pass
    finally:
        receiver.close()
    assert sorted(os.listdir(directory)) == ["bystander", "inside"]
    check_contained(directory)


def test_more_bytes_than_allowed(tmp_path: Path) -> None:
    receiver = writer(tmp_path, maximum_bytes=10)
    try:
        receiver.add(Entry("directory", b""))
        receiver.add(Entry("file", b"a", size=6))
        with pytest.raises(UnsafePathError, match="larger"):
            receiver.add(Entry("file", b"b", size=6))
    finally:
        receiver.close()


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "file").write_bytes(b"x")
    before = os.listdir("/proc/self/fd")
    copy(tmp_path, b"tree", tmp_path)
    assert os.listdir("/proc/self/fd") == before


# Times.

NEVER_ROUND = 1_234_567_890_123_456_789


@pytest.mark.parametrize("text", ["", "-", "1.5", "1e9", " 1", "+1", "--1", "²", "9" * 41])
def test_a_time_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="mtime-ns"):
        tree_entries.time_of(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, None),
        ("0", 0),
        ("-1", -1),
        (str(NEVER_ROUND), NEVER_ROUND),
        ("9" * 40, tree_entries.MOST_TIME),
        ("-" + "9" * 39, -tree_entries.MOST_TIME),
    ],
)
def test_a_time_is_brought_back_to_what_can_be(text: str | None, value: int | None) -> None:
    assert tree_entries.time_of(text) == value


def test_a_tree_keeps_its_times(tmp_path: Path) -> None:
    """This includes directories, links, and a single file that has no name while it is received."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(b"x" * 5000)
    (tree / "sub" / "link").symlink_to("file")
    times: dict[str, int] = {}
    for number, name in enumerate(("sub/link", "sub/file", "sub", "."), 1):
        times[name] = NEVER_ROUND + number
        os.utime(tree / name, ns=(0, times[name]), follow_symlinks=False)
    copy_by_headers(tmp_path, b"tree", tmp_path, b"copy")
    found = {name: (tmp_path / "copy" / name).lstat().st_mtime_ns for name in times}
    assert found == times
    copy_by_headers(tmp_path, b"tree/sub/file", tmp_path, b"alone", nameless=True)
    assert (tmp_path / "alone").stat().st_mtime_ns == times["sub/file"]


@pytest.mark.parametrize("modified", [-(1 << 90), -1, 0, 1 << 90, None])
def test_a_time_that_no_disk_has_does_no_harm(tmp_path: Path, modified: int | None) -> None:
    before = time.time_ns()
    parent = os.open(tmp_path, os.O_RDONLY)
    try:
        writer = TreeWriter(parent, b"t", maximum_bytes=1)
        writer.add(Entry("directory", b"", 0o755, modified=modified))
        writer.add(Entry("file", b"f", 0o644, 1, modified=modified))
        writer.write(0, b"x")
        writer.add(Entry("link", b"l", target=b"f", modified=modified))
        writer.finish()
    finally:
        os.close(parent)
    for path in (tmp_path / "t", tmp_path / "t" / "f", tmp_path / "t" / "l"):
        found = path.lstat().st_mtime_ns
        if modified is None:
            assert found > before - 10**9
        elif modified > 0:
            assert found > NEVER_ROUND
        else:
            assert found <= 0


def copy_by_headers(
    source: Path, path: bytes, target: Path, name: bytes, *, nameless: bool = False
) -> None:
    """Copy as both sides of the guest link do it."""
    root, parent = os.open(source, os.O_RDONLY), os.open(target, os.O_RDONLY)
    try:
        writer = TreeWriter(parent, name, maximum_bytes=1 << 20, nameless=nameless)
        for entry, descriptor in filetree.walk(root, path):
            headers = entry.headers()
            modified = tree_entries.time_of(headers["mtime-ns"])
            size = int(headers["size"])
            mode = int(headers["mode"], 8)
            writer.add(Entry(headers["kind"], entry.path, mode, size, entry.target, modified))
            if descriptor >= 0:
                writer.write(0, os.pread(descriptor, size, 0))
        writer.finish()
    finally:
        os.close(root)
        os.close(parent)
