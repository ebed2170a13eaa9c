"""Packed images: the same bytes each time, and complete when unpacked, whatever happens."""

import errno
import gzip
import lzma
import multiprocessing
import os
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.cli.main import main
from boincvm.errors import (
    HostDiskFullError,
    HostError,
    ImageDamagedError,
    UsageError,
)
from boincvm.image import pack, pack_format, verify
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, ContentFile
from boincvm.image.names import check_image_name
from boincvm.image.pack import (
    open_packed,
    pack_image,
    packed_manifest,
    packed_name,
    unpack_image,
)
from boincvm.image.store import ImageStore
from support.packed_images import (
    CONTENTS,
    manifest_of,
    member,
    members,
    publish,
    publish_odd,
    state,
    tar,
)

pytestmark = pytest.mark.usefixtures("own_home")


def test_an_image_comes_back_whole(packed, store):
    digest = unpack_image(packed, "sci", store)
    with store.open("sci") as image:
        assert image.digest == digest == manifest_of(CONTENTS).digest
        for name, content in CONTENTS.items():
            path = image.directory / name
            assert path.read_bytes() == content
            assert path.stat().st_mode & 0o777 == 0o444
    objects = f"objects/{digest}"
    inside = [f"{objects}/{name}" for name in (INITRD, KERNEL, MANIFEST, ROOT)]
    assert state(store) == ["names", "names/sci", "objects", objects, *inside]


def test_equal_images_have_equal_files(packed, store, tmp_path):
    with open_packed(packed, store) as image:
        pack_image(image, tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == packed.read_bytes()
    assert packed.read_bytes()[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


def test_the_format_is_that_of_tar(packed):
    with tarfile.open(packed) as archive:
        assert [entry.name for entry in archive] == [MANIFEST, INITRD, KERNEL, ROOT]
    assert gzip.decompress(packed.read_bytes()) == tar(members())


def test_the_end_of_the_name_asks_for_xz(packed, store, tmp_path):
    path, again = tmp_path / "base.tar.xz", tmp_path / "AGAIN.TXZ"
    with open_packed(packed, store) as image:
        pack_image(image, path)
        pack_image(image, again)
    assert lzma.decompress(path.read_bytes()) == tar(members())
    assert again.read_bytes() == path.read_bytes()
    assert packed_manifest(path) == manifest_of(CONTENTS)
    other = ImageStore(tmp_path / "other")
    unpack_image(path, "base", other)
    with other.open("base") as image:
        assert image.root.read_bytes() == CONTENTS[ROOT]


def test_the_same_content_packed_in_another_way_is_welcome(store, tmp_path):
    path = tmp_path / "base.tar.gz"
    path.write_bytes(gzip.compress(tar(members())))
    assert unpack_image(path, "base", store) == manifest_of(CONTENTS).digest


def test_the_manifest_is_read_from_the_beginning(packed, tmp_path):
    beginning = tmp_path / "beginning"
    beginning.write_bytes(packed.read_bytes()[:2048])
    assert packed_manifest(beginning) == manifest_of(CONTENTS)


def test_an_existing_file_is_replaced_only_by_force(store, tmp_path):
    publish(store)
    path = tmp_path / "base.tar.gz"
    path.write_text("precious")
    with store.open("base") as image:
        with pytest.raises(UsageError, match="already exists") as caught:
            pack_image(image, path)
        assert "--force" in caught.value.hint
        assert path.read_text() == "precious"
        with pytest.raises(UsageError, match="already exists"):
            pack_image(image, tmp_path, force=True)
        pack_image(image, path, force=True)
    assert packed_manifest(path) == manifest_of(CONTENTS)


def test_an_image_altered_since_it_was_opened_is_not_packed(store, tmp_path):
    publish(store)
    target = tmp_path / "target"
    target.mkdir()
    with store.open("base") as image:
        image.root.write_bytes(CONTENTS[ROOT][::-1])
        with pytest.raises(ImageDamagedError, match=ROOT):
            pack_image(image, target / "base.tar.gz")
    assert list(target.iterdir()) == []


def test_an_image_too_large_to_be_packed_is_refused(store, tmp_path, monkeypatch):
    publish(store)
    monkeypatch.setattr(pack, "MOST_IMAGE_BYTES", 1 << 20)
    with store.open("base") as image, pytest.raises(UsageError, match="too large to pack"):
        pack_image(image, tmp_path / "base.tar.gz")


@pytest.mark.parametrize("oddity", ["spaced", "accent"])
def test_an_image_that_nobody_could_unpack_is_not_packed(oddity, store, tmp_path):
    publish_odd(store, "odd", oddity)
    path = tmp_path / "odd.tar.gz"
    with store.open("odd") as image, pytest.raises(UsageError, match="image odd would be refused"):
        pack_image(image, path)
    assert not path.exists()


def test_packing_to_where_nobody_can_write_says_so(store, tmp_path):
    publish(store)
    path = tmp_path / "missing" / "base.tar.gz"
    with store.open("base") as image, pytest.raises(HostError, match="No such file") as caught:
        pack_image(image, path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("base.tar.gz", "base"),
        ("My App_1.0.TGZ", "my-app_1.0"),
        ("image_1.0", "image_1.0"),
        ("image_1.0.tar.xz", "image_1.0"),
        ("_é.x", "x"),
        ("image..tgz", "image"),
        ("x" * 80 + "_1.0.tar.gz", "x" * 60 + "_1.0"),
    ],
)
def test_the_name_that_goes_with_a_file(file, name):
    assert packed_name(Path("directory") / file) == name


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_no_name_of_a_file_gives_a_bad_name(name):
    try:
        found = packed_name(Path("/", name))
    except UsageError:
        return
    assert check_image_name(found) == found


def test_a_second_opening_unpacks_nothing(packed, store):
    with open_packed(packed, store) as image:
        directory = image.directory
        before = directory.stat().st_ino
    packed.write_bytes(packed.read_bytes()[:2048])  # enough for the manifest
    with open_packed(packed, store) as image:
        assert image.name == "base"
        assert image.directory.stat().st_ino == before


def test_another_image_of_that_name_gives_way(packed, store, tmp_path):
    other = {**CONTENTS, INITRD: b"another"}
    path = tmp_path / "other" / "base.tar.gz"
    path.parent.mkdir()
    files = {MANIFEST: manifest_of(other).encode(), **other}
    path.write_bytes(gzip.compress(tar([member(*file) for file in files.items()])))
    open_packed(path, store).close()
    with open_packed(packed, store) as image:
        assert image.initrd.read_bytes() == CONTENTS[INITRD]
    assert len(list((store.root / "objects").iterdir())) == 1


@pytest.mark.parametrize("name", [KERNEL, MANIFEST])
def test_a_damaged_image_in_the_store_is_unpacked_again(name, packed, store):
    with open_packed(packed, store) as image:
        path = image.directory / name
    path.chmod(0o644)
    path.write_bytes(b"x")
    with open_packed(packed, store) as image:
        verify.forget(image.digest)
        assert image.kernel.read_bytes() == CONTENTS[KERNEL]
    store.open("base").close()


def test_an_image_that_is_replaced_meanwhile_is_not_taken_for_it(packed, store, monkeypatch):
    monkeypatch.setattr(store, "publish", lambda *given: None)
    with pytest.raises(HostError, match="was replaced"):
        open_packed(packed, store)
    assert state(store) == []


def test_too_small_a_disk_is_reported_before_anything_is_written(packed, store, monkeypatch):
    real = os.statvfs(packed)
    values = [*real]
    values[4] = 1  # f_bavail
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(values))
    with pytest.raises(HostDiskFullError, match=r"needs 19\.6 MiB") as caught:
        open_packed(packed, store)
    assert str(store.root) in caught.value.message
    assert state(store) == []


class TerminatedError(BaseException):
    """Like KeyboardInterrupt."""


FAULTS = [
    (OSError(errno.ENOSPC, "No space left on device"), HostDiskFullError),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), HostDiskFullError),
    (OSError(errno.EIO, "Input/output error"), HostError),
    (TerminatedError(), TerminatedError),
]


def fail_at_sync(number: int, fault: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync
    descriptors = []

    def fail(descriptor: int) -> None:
        descriptors.append(descriptor)
        if len(descriptors) == number:
            raise fault
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize(("fault", "expected"), FAULTS)
def test_a_fault_while_unpacking_leaves_nothing(fault, expected, packed, store, monkeypatch):
    fail_at_sync(2, fault, monkeypatch)
    with pytest.raises(expected) as caught:
        open_packed(packed, store)
    assert state(store) == []
    if isinstance(fault, OSError):
        assert f"{store.root}, where it needs 3.6 MiB: {fault.strerror}" in caught.value.message


@pytest.mark.parametrize(("fault", "expected"), FAULTS)
def test_a_fault_while_packing_leaves_nothing(fault, expected, store, monkeypatch, tmp_path):
    publish(store)
    target = tmp_path / "target"
    target.mkdir()
    fail_at_sync(1, fault, monkeypatch)
    with store.open("base") as image, pytest.raises(expected):
        pack_image(image, target / "base.tar.gz")
    assert list(target.iterdir()) == []


def test_what_a_killed_process_left_goes(packed, store):
    left = store.root / "unpacking"
    left.mkdir(parents=True)
    (left / KERNEL).write_bytes(b"half")
    open_packed(packed, store).close()
    assert not left.exists()


def _open_in_process(
    packed: Path, root: Path, ready: "threading.Barrier", found: "multiprocessing.SimpleQueue[int]"
) -> None:
    ready.wait(60)
    with open_packed(packed, ImageStore(root)) as image:
        found.put(image.kernel.stat().st_ino)


def test_of_two_processes_one_unpacks_and_both_open(packed, store):
    context = multiprocessing.get_context("spawn")
    ready, found = context.Barrier(2), context.SimpleQueue()
    given = (packed, store.root, ready, found)
    processes = [context.Process(target=_open_in_process, args=given) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert found.get() == found.get()


def test_who_waited_finds_it_done(packed, store, monkeypatch):
    unpacked = []
    begun, go_on = threading.Event(), threading.Event()
    real = pack_format.Unpacker.unpack_file

    def slow(self: object, file: ContentFile, target: Path) -> None:
        unpacked.append(file.name)
        begun.set()
        assert go_on.wait(60)
        real(self, file, target)

    monkeypatch.setattr(pack_format.Unpacker, "unpack_file", slow)
    first = threading.Thread(target=lambda: open_packed(packed, store).close())
    second = threading.Thread(target=lambda: open_packed(packed, store).close())
    first.start()
    assert begun.wait(60)
    second.start()
    go_on.set()
    first.join(60)
    second.join(60)
    assert unpacked == [INITRD, KERNEL, ROOT]


def test_the_command_line(capsys, tmp_path):
    store = ImageStore()
    publish(store, "sci")
    path = tmp_path / "sci-1.0.tar.gz"
    assert main(["image", "pack", "sci", str(path)]) == 0
    assert main(["image", "pack", "sci", str(path)]) == UsageError.exit_code
    assert main(["image", "pack", "--force", "--json", "sci", str(path)]) == 0
    assert main(["image", "unpack", str(path)]) == 0
    assert main(["image", "unpack", "--json", str(path), "other"]) == 0
    assert store.names() == ["other", "sci", "sci-1.0"]
    assert store.digest_of("other") == store.digest_of("sci")
    reported = capsys.readouterr()
    digest = store.digest_of("sci")
    assert f"image sci has been packed: {path}, " in reported.out
    assert f'"size": {path.stat().st_size}' in reported.out
    assert f"image sci-1.0 has been unpacked: {digest[:12]}" in reported.out
    assert f'"digest": "{digest}"' in reported.out
    assert "packing root.qcow2" in reported.err
