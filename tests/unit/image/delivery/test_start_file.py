"""The file with which a machine on demand starts: what is damaged or hostile is refused."""

import io
import lzma
import struct
from array import array
from pathlib import Path

import pytest

from boincvm.errors import ImageDamagedError
from boincvm.image.delivery import start_file
from boincvm.image.delivery.blocks import PackedBlock, write_blocks
from boincvm.image.delivery.start_file import RootBlocks, read_start, write_start
from boincvm.image.manifest import INITRD, KERNEL, ROOT, Manifest
from support.packed_images import manifest_of
from support.versions import noise

BLOCK = 4096
ROOT_CONTENT = b"".join(
    [bytes(BLOCK), noise("a", BLOCK), b"x" * BLOCK, noise("a", BLOCK), noise("b", BLOCK)[:2048]]
)
FILES = {INITRD: noise("initrd", 3000), KERNEL: b"x" * BLOCK + noise("k", 900), ROOT: ROOT_CONTENT}
MAGIC = b"boincvm start 1\n"


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    (tmp_path / "image").mkdir()
    for name, content in FILES.items():
        (tmp_path / "image" / name).write_bytes(content)
    return manifest_of(FILES)


@pytest.fixture
def blocks(manifest: Manifest, tmp_path: Path) -> tuple[list[PackedBlock], bytes]:
    packed = io.BytesIO()
    packed_blocks = write_blocks(tmp_path / "image", manifest, io.BytesIO(), packed)
    return packed_blocks, packed.getvalue()


@pytest.fixture
def plain(manifest: Manifest, blocks: tuple[list[PackedBlock], bytes], tmp_path: Path) -> bytes:
    """Return what is compressed in the file."""
    stream = io.BytesIO()
    write_start(tmp_path / "image", manifest, blocks[0], stream)
    data = stream.getvalue()
    assert data.startswith(MAGIC)
    return lzma.decompress(data[len(MAGIC) :])


def read(data: bytes, manifest: Manifest, size: int, target: Path) -> RootBlocks:
    target.mkdir()
    found, root = read_start(io.BytesIO(data), manifest.digest, size, target, "a file")
    assert found == manifest
    return root


def packed(plain: bytes) -> bytes:
    return MAGIC + lzma.compress(plain, check=lzma.CHECK_NONE)


def test_there_and_back(manifest, blocks, plain, tmp_path):
    packed_blocks, content = blocks
    root = read(packed(plain), manifest, len(content), tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {INITRD, KERNEL}
    for name in (INITRD, KERNEL):
        assert (tmp_path / "new" / name).read_bytes() == FILES[name]
    assert list(root.offsets()) == [block.offset for block in packed_blocks]
    assert list(root.sizes) == [block.size for block in packed_blocks]
    # The third one is a block of the kernel, and the fourth is the second one again.
    assert root.offsets()[2] < root.offsets()[0]
    assert root.offsets()[3] == root.offsets()[1]
    for number in range(5):
        assert root.is_block(number, ROOT_CONTENT[number * BLOCK :][:BLOCK])
        assert not root.is_block(number, b"x")


def test_equal_images_make_equal_files(manifest, blocks, tmp_path):
    one, two = io.BytesIO(), io.BytesIO()
    for stream in (one, two):
        write_start(tmp_path / "image", manifest, blocks[0], stream)
    assert one.getvalue() == two.getvalue()


def test_what_is_cut_off_is_refused(manifest, blocks, plain, tmp_path):
    data = packed(plain)
    for length in [*range(0, len(data), 401), len(data) - 1]:
        target = tmp_path / f"cut-{length}"
        with pytest.raises(ImageDamagedError, match="a file is damaged"):
            read(data[:length], manifest, len(blocks[1]), target)


def test_no_flipped_bit_changes_the_image(manifest, blocks, plain, tmp_path):
    right = read(packed(plain), manifest, len(blocks[1]), tmp_path / "right")
    for at in range(0, len(plain), 97):
        data = bytearray(plain)
        data[at] ^= 1 << at % 8
        target = tmp_path / f"flipped-{at}"
        try:
            root = read(packed(bytes(data)), manifest, len(blocks[1]), target)
        except ImageDamagedError:
            continue
        # Only the list of blocks is left, whose digest is in the index.
        assert at >= len(plain) - len(right.encode())
        assert root != right


def test_no_byte_too_many(manifest, blocks, plain, tmp_path):
    size = len(blocks[1])
    with pytest.raises(ImageDamagedError, match="too long"):
        read(packed(plain + b"x"), manifest, size, tmp_path / "one")
    with pytest.raises(ImageDamagedError, match="something follows"):
        read(packed(plain) + b"x", manifest, size, tmp_path / "two")
    with pytest.raises(ImageDamagedError, match="something follows"):
        read(packed(plain) + bytes(1 << 21), manifest, size, tmp_path / "three")


def test_another_image_is_refused(blocks, plain, tmp_path):
    other = manifest_of({**FILES, INITRD: b"another"})
    with pytest.raises(ImageDamagedError, match="of another image"):
        read(packed(plain), other, len(blocks[1]), tmp_path / "new")


def test_a_long_manifest_is_not_read(manifest, tmp_path):
    bomb = packed(struct.pack("<I", (1 << 32) - 1) + bytes(1 << 24))
    with pytest.raises(ImageDamagedError, match="its manifest is too large"):
        read(bomb, manifest, 1, tmp_path / "new")


def test_much_memory_is_not_taken(manifest, plain, tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    data = MAGIC + lzma.compress(plain, check=lzma.CHECK_NONE, filters=filters)
    with pytest.raises(ImageDamagedError, match="emory"):
        read(data, manifest, 1, tmp_path / "new")


def _with_columns(plain: bytes, sizes: list[int], jumps: list[int]) -> bytes:
    columns = array("H", sizes).tobytes() + array("q", jumps).tobytes()
    return plain[: -5 * 26] + columns + plain[-5 * start_file.DIGEST_BYTES :]


@pytest.mark.parametrize(
    ("sizes", "jumps"),
    [
        ([10, 10, 10, 10, 0], [0] * 5),
        ([10] * 5, [0, 0, -100, 0, 0]),
        ([10] * 5, [1 << 40, 0, 0, 0, 0]),
        ([10] * 5, [(1 << 63) - 1] * 5),
        ([10] * 5, [-(1 << 63)] * 5),
        ([60000, 10, 10, 10, 10], [0] * 5),
    ],
)
def test_blocks_outside_of_the_file_of_blocks(sizes, jumps, manifest, plain, tmp_path):
    data = packed(_with_columns(plain, sizes, jumps))
    with pytest.raises(ImageDamagedError, match="a block is"):
        read(data, manifest, 100, tmp_path / "new")


def test_a_large_image_is_not_offered(manifest, monkeypatch):
    assert start_file.can_be_on_demand(manifest)
    monkeypatch.setattr(start_file, "MOST_IMAGE_BYTES", manifest.size - 1)
    assert not start_file.can_be_on_demand(manifest)
    odd = manifest_of({**FILES, ROOT: ROOT_CONTENT[:-1]})
    monkeypatch.undo()
    assert not start_file.can_be_on_demand(odd)
