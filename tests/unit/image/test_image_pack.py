"""Packed images: the same bytes again, back whole, and nothing hostile gets in."""

import errno
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import struct
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.cli.main import main
from boincvm.errors import (
    HostDiskFullError,
    HostError,
    ImageDamagedError,
    ImageMissingError,
    UsageError,
)
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.qcow2 import write_overlay
from boincvm.image import pack, pack_format, verify
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, ContentFile, Manifest, Recipe
from boincvm.image.names import check_image_name
from boincvm.image.pack import (
    open_packed,
    pack_image,
    packed_manifest,
    packed_name,
    unpack_image,
)
from boincvm.image.store import ImageStore


def disk(content: bytes) -> bytes:
    """A qcow2 file with no more in it than `content` behind its tables."""
    with tempfile.TemporaryDirectory() as directory:
        write_overlay(Path(directory, "disk"), 1 << 30)
        return Path(directory, "disk").read_bytes() + content


CONTENTS = {
    INITRD: b"initrd" * 100,
    KERNEL: bytes(3 << 20) + b"kernel",  # several pieces, and well compressed
    ROOT: disk(hashlib.shake_128(b"root").digest(512 * 700)),  # no padding, not to be compressed
}
Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))


@pytest.fixture
def store(tmp_path) -> ImageStore:
    return ImageStore(tmp_path / "store")


def manifest_of(contents: dict[str, bytes]) -> Manifest:
    return Manifest(
        architecture="amd64",
        recipe=Recipe(1, "bookworm", (), "0" * 64),
        kernel_release="6.1.0",
        agent_version="1",
        agent_sha256="1" * 64,
        packages=(),
        files=tuple(
            ContentFile(name, len(content), hashlib.sha256(content).hexdigest())
            for name, content in contents.items()
        ),
    )


def publish(store: ImageStore, name: str = "base") -> str:
    directory = store.builds / "object"
    directory.mkdir(parents=True)
    manifest = manifest_of(CONTENTS)
    for file, content in {**CONTENTS, MANIFEST: manifest.encode()}.items():
        (directory / file).write_bytes(content)
    return store.publish(name, directory, manifest)


@pytest.fixture
def packed(tmp_path) -> Path:
    """A packed image, as `pack_image` makes it from another store."""
    source = ImageStore(tmp_path / "source")
    publish(source)
    with source.open("base") as image:
        pack_image(image, tmp_path / "base.tar.gz")
    return tmp_path / "base.tar.gz"


def member(name: str, content: bytes, **fields: object) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o444
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def members() -> list[Member]:
    """What a packed image consists of."""
    files = {MANIFEST: manifest_of(CONTENTS).encode(), **CONTENTS}
    return [member(name, content) for name, content in files.items()]


def tar(members: list[Member]) -> bytes:
    archive = io.BytesIO()
    for info, content in members:
        archive.write(info.tobuf(tarfile.USTAR_FORMAT))
        archive.write(content + bytes(-len(content) % 512))
    return archive.getvalue() + bytes(1024)


def state(store: ImageStore) -> list[str]:
    """All files and directories of the store but the locks."""
    found = (str(path.relative_to(store.root)) for path in store.root.rglob("*"))
    return sorted(path for path in found if path not in ("lock", "unpack.lock"))


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


def test_whoever_packs_it_otherwise_but_with_the_same_content_is_welcome(store, tmp_path):
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
        ("_é.x", "x"),
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


def altered(contents: dict[str, bytes], **fields: object) -> bytes:
    return replace(manifest_of(contents), **fields).encode()


def with_manifest(text: bytes) -> list[Member]:
    return [member(MANIFEST, text), *members()[1:]]


def hostile() -> Iterator[tuple[str, list[Member], str]]:
    """(what it is, its members, a part of the message)"""
    manifest, initrd, kernel, root = members()
    yield "nothing", [], "begin with"
    yield "no manifest", [initrd, kernel, root], "begin with"
    yield "another order", [manifest, kernel, initrd, root], "header of initrd"
    yield "a file is missing", [manifest, initrd, kernel], "header of root"
    yield "a file twice", [manifest, initrd, kernel, kernel, root], "header of root"
    yield "a file too many", [manifest, initrd, kernel, root, member("x", b"x")], "its end"
    for name in ("../kernel", "/kernel", "./kernel", "Kernel"):
        yield name, [manifest, initrd, member(name, CONTENTS[KERNEL]), root], "header of kernel"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"x", b"S"):
        odd = member(KERNEL, CONTENTS[KERNEL], type=kind, linkname="/etc/passwd")
        yield f"type {kind!r}", [manifest, initrd, odd, root], "header of kernel"
    set_user = member(KERNEL, CONTENTS[KERNEL], mode=0o4755)
    yield "mode", [manifest, initrd, set_user, root], "header of kernel"
    for content in (CONTENTS[ROOT] + b"x", CONTENTS[ROOT][1:]):
        odd = member(ROOT, content)
        yield f"size {len(content)}", [manifest, initrd, kernel, odd], "header of root"
    yield "content", [manifest, initrd, kernel, member(ROOT, CONTENTS[ROOT][::-1])], "altered"

    text = manifest[1]
    yield "manifest's type", [member(MANIFEST, text, type=tarfile.SYMTYPE)], "begin with"
    yield "manifest too large", [member(MANIFEST, b"", size=1 << 30)], "begin with"
    yield "no JSON", with_manifest(b"x"), "cannot be read by this version"
    yield "another format", with_manifest(text.replace(b'"format":1', b'"format":2')), "version"
    yield "not canonical", with_manifest(text.replace(b":", b": ")), "canonical"
    yield "field added", with_manifest(text.replace(b"{", b'{"a":1,', 1)), "canonical"
    escape = altered(CONTENTS, kernel_release="\x1b[2J")
    yield "terminal's escape", with_manifest(escape), "canonical"
    huge = (*manifest_of(CONTENTS).files[:2], ContentFile(ROOT, 1 << 60, "0" * 64))
    yield "bomb", with_manifest(altered(CONTENTS, files=huge)), "claims to hold"


CASES = list(hostile())


@pytest.mark.parametrize(("members", "reason"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_what_is_not_as_the_manifest_says_is_refused(members, reason, store, tmp_path):
    path = tmp_path / "base.tar.gz"
    path.write_bytes(gzip.compress(tar(members), 1))
    with pytest.raises(ImageDamagedError, match=reason) as caught:
        unpack_image(path, "base", store)
    assert str(path) in caught.value.message
    assert "boincvm image pack" in caught.value.hint
    assert state(store) == []


def spoil(packed: bytes, how: str) -> bytes:
    whole = gzip.decompress(packed)
    return {
        "empty": b"",
        "text": b"<html>404</html>" * 100,
        "not compressed": whole,
        "a bit": packed[:-1000] + bytes([packed[-1000] ^ 4]) + packed[-999:],
        "checksum": packed[:-8] + bytes(8),
        "truncated in its beginning": packed[:100],
        "truncated": packed[:-1000],
        "truncated in its checksum": packed[:-3],
        "a byte more": packed + b"\0",
        "another gzip member": packed + gzip.compress(b""),
        "more in the archive": gzip.compress(whole + bytes(512)),
        "less in the archive": gzip.compress(whole[:-512]),
        "something in the padding": gzip.compress(whole.replace(b"initrd\0", b"initrdX")),
        "endless zeros": gzip.compress(whole + bytes(64 << 20), 1),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        *("empty", "text", "not compressed", "a bit", "checksum", "truncated in its beginning"),
        *("truncated", "truncated in its checksum", "a byte more", "another gzip member"),
        *("more in the archive", "less in the archive", "something in the padding"),
        "endless zeros",
    ],
)
def test_a_spoiled_file_is_refused(how, packed, store):
    packed.write_bytes(spoil(packed.read_bytes(), how))
    with pytest.raises(ImageDamagedError, match=r"base\.tar\.gz is not a packed image"):
        unpack_image(packed, "base", store)
    assert state(store) == []


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_what_is_no_file_is_refused(kind, tmp_path, store):
    path = tmp_path / "thing"
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    with pytest.raises(ImageDamagedError, match="not a regular file"):
        open_packed(path, store)


def test_a_missing_file_is_an_image_missing(tmp_path, store):
    with pytest.raises(ImageMissingError, match="there is no file"):
        open_packed(tmp_path / "base.tar.gz", store)


@pytest.mark.parametrize("size", [1 << 63, 10**400, -1, 1.5, float("inf"), True, "1"])
def test_a_size_that_is_none(size, tmp_path, store):
    document = json.loads(manifest_of(CONTENTS).encode())
    document["files"][2]["size"] = size
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    files = [member(MANIFEST, text), *(member(*one) for one in CONTENTS.items())]
    path = tmp_path / "odd.tar.gz"
    path.write_bytes(gzip.compress(tar(files), mtime=0))
    with pytest.raises(ImageDamagedError, match="cannot be read by this version"):
        unpack_image(path, "base", store)
    assert state(store) == []


def naming(field: int, value: int, extension: bytes = bytes(8)) -> bytes:
    """A root disk with another value of 64 bits at that place of its header."""
    content = bytearray(CONTENTS[ROOT])
    content[field : field + 8] = struct.pack(">Q", value)
    content[104 : 104 + len(extension)] = extension
    return bytes(content)


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        (
            naming(72, 1 << 2, struct.pack(">II12s", 0x44415441, 11, b"/etc/shadow")),
            "names another file as its data file",
        ),
        (
            naming(8, 112, struct.pack(">II11s", 0, 0, b"/etc/shadow")),
            "names another file as its backing file",
        ),
        (b"KDMV" + bytes(1 << 16), "is not a qcow2 file"),
        (b"# Disk DescriptorFile\nversion=1\n" * 99, "is not a qcow2 file"),
        (b"\x7fELF" + bytes(1 << 16), "is not a qcow2 file"),
    ],
)
def test_a_disk_that_names_files_of_the_host_is_refused(root, reason, store, tmp_path):
    """Manifest and digests are right: whoever packed it meant it so."""
    contents = {**CONTENTS, ROOT: root}
    files = {MANIFEST: manifest_of(contents).encode(), **contents}
    path = tmp_path / "evil.tar.gz"
    path.write_bytes(gzip.compress(tar([member(*one) for one in files.items()]), mtime=0))
    with pytest.raises(ImageDamagedError, match=reason):
        unpack_image(path, "base", store)
    assert state(store) == []
    assert main(["image", "unpack", str(path)]) == ExitCode.IMAGE_DAMAGED


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


def test_too_small_a_disk_is_told_before_anything_is_written(packed, store, monkeypatch):
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
    told = capsys.readouterr()
    digest = store.digest_of("sci")
    assert f"image sci has been packed: {path}, " in told.out
    assert f'"size": {path.stat().st_size}' in told.out
    assert f"image sci-1.0 has been unpacked: {digest[:12]}" in told.out
    assert f'"digest": "{digest}"' in told.out
    assert "packing root.qcow2" in told.err
