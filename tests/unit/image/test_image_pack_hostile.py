"""Packed images that somebody else has made: what is not as it should be is refused."""

import gzip
import json
import lzma
import os
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import replace

import pytest

from boincvm.cli.main import main
from boincvm.errors import (
    ImageDamagedError,
    ImageMissingError,
)
from boincvm.exit_codes import ExitCode
from boincvm.image.manifest import KERNEL, MANIFEST, ROOT, ContentFile
from boincvm.image.pack import (
    open_packed,
    unpack_image,
)
from support.packed_images import (
    CONTENTS,
    Member,
    manifest_of,
    member,
    members,
    state,
    tar,
)

pytestmark = pytest.mark.usefixtures("own_home")


def altered(contents: dict[str, bytes], **fields: object) -> bytes:
    return replace(manifest_of(contents), **fields).encode()


def with_manifest(text: bytes) -> list[Member]:
    return [member(MANIFEST, text), *members()[1:]]


def hostile() -> Iterator[tuple[str, list[Member], str]]:
    """Yield (what it is, its members, a part of the message)."""
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
        odd = member(KERNEL, CONTENTS[KERNEL], type=kind, linkname="/nowhere/passwd")
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


def spoil_xz(whole: bytes, how: str) -> bytes:
    packed = lzma.compress(whole, preset=0)
    window = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 << 20}]
    return {
        "its beginning": packed[:6],
        "truncated": packed[:-1000],
        "truncated in its end": packed[:-3],
        "a bit": packed[:-1000] + bytes([packed[-1000] ^ 4]) + packed[-999:],
        "a byte more": packed + b"\0",
        "another stream": packed + lzma.compress(b""),
        "more in the archive": lzma.compress(whole + bytes(512), preset=0),
        "a window of 512 MiB": lzma.compress(whole, filters=window),
        "the older format": lzma.compress(whole, lzma.FORMAT_ALONE, preset=0),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        *("its beginning", "truncated", "truncated in its end", "a bit", "a byte more"),
        *("another stream", "more in the archive", "a window of 512 MiB", "the older format"),
    ],
)
def test_a_spoiled_file_of_xz_is_refused(how, store, tmp_path):
    path = tmp_path / "base.tar.xz"
    path.write_bytes(spoil_xz(tar(members()), how))
    with pytest.raises(ImageDamagedError, match=r"base\.tar\.xz is not a packed image"):
        unpack_image(path, "base", store)
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
    """Return a root disk with another value of 64 bits at that offset of its header."""
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
    """Manifest and digests are right: the author intended it."""
    contents = {**CONTENTS, ROOT: root}
    files = {MANIFEST: manifest_of(contents).encode(), **contents}
    path = tmp_path / "evil.tar.gz"
    path.write_bytes(gzip.compress(tar([member(*one) for one in files.items()]), mtime=0))
    with pytest.raises(ImageDamagedError, match=reason):
        unpack_image(path, "base", store)
    assert state(store) == []
    assert main(["image", "unpack", str(path)]) == ExitCode.IMAGE_DAMAGED
