"""The archive format of a packed image: tar (POSIX.1-1988, ustar) within gzip (RFC 1952) or xz.

Nothing in it is left open: manifest.json comes first, then the image's files in its order, and all
headers have the same mode, owner and time. So equal images have equal archives (with the same zlib
or liblzma), and the reader interprets no headers: it knows each of them before it reads it.
"""

import hashlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Protocol

from boincvm.errors import HostError, ImageDamagedError, ImageMissingError, host_error
from boincvm.host.files import open_descriptor, set_mode
from boincvm.image.manifest import MANIFEST, MOST_BYTES, ContentFile, Manifest, decode_manifest
from boincvm.sizes import format_size

MOST_IMAGE_BYTES = (8 << 30) - 1
"""The largest total size of an image's files; also the limit of a header's size field."""
LEVEL = 6
"""gzip's compression level, chosen by measurement: docs/images.md."""
_PRESET = 6
_DICTIONARY = 32 << 20
"""xz's preset and the bytes of its window, chosen in the same way."""
_MOST_MEMORY = 40 << 20
"""Bytes that unpacking xz may take, whatever window a file claims."""
PIECE = 1 << 20
"""Bytes that are processed at a time, at most."""

_BLOCK = 512
_END = bytes(2 * _BLOCK)
_READ_SIZE = 1 << 17
# RFC 1952, 2.3: magic, deflate; no flags, no time, no level, unknown system.
_GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
_XZ_MAGIC = b"\xfd7zXZ\0"


def header_of(name: str, size: int) -> bytes:
    """Return the tar header of a regular file of `size` bytes: mode 0444, user 0, time 0."""
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (0o444, 0, 0, size, 0)
    before = name.encode("ascii").ljust(100, b"\0") + numbers
    # A regular file, not a link; format and version; no owner names, device or prefix.
    after = (b"0" + bytes(100) + b"ustar\0" + b"00").ljust(_BLOCK - 156, b"\0")
    checksum = sum(before) + sum(b" " * 8) + sum(after)
    return before + b"%06o\0 " % checksum + after


class Compression(StrEnum):
    """How an archive is compressed."""

    GZIP = "gzip"
    XZ = "xz"
    """Smaller, but it takes ten times as long to pack."""

    @property
    def suffix(self) -> str:
        """Return the end of such a file's name."""
        return ".tar.gz" if self is Compression.GZIP else ".tar.xz"


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Gzip:
    """Makes a gzip stream whose header is always the same."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._head = _GZIP_HEADER
        self._checksum = 0
        self._size = 0

    def compress(self, data: bytes, /) -> bytes:
        head, self._head = self._head, b""
        self._checksum = zlib.crc32(data, self._checksum)
        self._size += len(data)
        return head + self._deflate.compress(data)

    def flush(self) -> bytes:
        trailer = struct.pack("<II", self._checksum, self._size & 0xFFFFFFFF)
        return self._deflate.flush() + trailer


def compressor(compression: Compression) -> _Compressor:
    if compression is Compression.GZIP:
        return _Gzip()
    import lzma  # a task that unpacks nothing does without

    return lzma.LZMACompressor(
        format=lzma.FORMAT_XZ,
        check=lzma.CHECK_CRC32,  # each file's SHA-256 is in the manifest
        # The first makes absolute addresses of relative ones, as x86's calls have.
        filters=[
            {"id": lzma.FILTER_X86},
            {"id": lzma.FILTER_LZMA2, "preset": _PRESET, "dict_size": _DICTIONARY},
        ],
    )


class Packer:
    """Writes an archive to `stream`."""

    def __init__(self, stream: BinaryIO, compression: Compression = Compression.GZIP) -> None:
        self._stream = stream
        self._compressor = compressor(compression)

    def add(self, name: str, size: int, pieces: Iterator[bytes]) -> None:
        """Write the next member; `pieces` have `size` bytes in total."""
        self._write(header_of(name, size))
        for piece in pieces:
            self._write(piece)
        self._write(_padding(size))

    def finish(self) -> None:
        """Write the archive's end."""
        self._write(_END)
        self._stream.write(self._compressor.flush())

    def _write(self, data: bytes) -> None:
        self._stream.write(self._compressor.compress(data))


class _DecompressorError(Exception):
    """The compressed data is damaged, or wants more memory than it may have."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def wants_input(self) -> bool: ...

    def decompress(self, data: bytes, most: int, /) -> bytes: ...


class _Gunzip:
    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    @property
    def wants_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    def decompress(self, data: bytes, most: int, /) -> bytes:
        """Return 0 to `most` bytes; `data` is only used if input is wanted."""
        try:
            return self._inflate.decompress(self._inflate.unconsumed_tail or data, most)
        except zlib.error as error:
            raise _DecompressorError from error


class _Unxz:
    def __init__(self) -> None:
        import lzma  # a task that unpacks nothing does without

        self._error = lzma.LZMAError
        self._lzma = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY)

    @property
    def eof(self) -> bool:
        return self._lzma.eof

    @property
    def unused_data(self) -> bytes:
        return self._lzma.unused_data

    @property
    def wants_input(self) -> bool:
        return self._lzma.needs_input

    def decompress(self, data: bytes, most: int, /) -> bytes:
        """Return 0 to `most` bytes; `data` is only used if input is wanted."""
        try:
            return self._lzma.decompress(data, most)
        except self._error as error:
            raise _DecompressorError from error


class Unpacker:
    """Reads an archive from `stream`, which messages call `path`.

    Any difference from what `Packer` writes is damage: ImageDamagedError. Raises HostError if
    `stream` cannot be read.
    """

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._first = b""
        self._first = self._read(_READ_SIZE)
        self._decompressor: _Decompressor = (
            _Unxz() if self._first.startswith(_XZ_MAGIC) else _Gunzip()
        )

    def manifest(self) -> Manifest:
        """Read the first member, the manifest."""
        header = b"".join(self._pieces(_BLOCK))
        field = re.fullmatch(rb"([0-7]{11})\0", header[124:136])
        size = int(field[1], 8) if field else 0
        if header != header_of(MANIFEST, size) or size > MOST_BYTES:
            raise damaged(self._path, f"it does not begin with a {MANIFEST}")
        text = b"".join(self._pieces(size))
        self._expect(_padding(size), f"what follows {MANIFEST}")
        try:
            manifest = decode_manifest(text, self._path)
        except ImageDamagedError as error:
            raise damaged(self._path, f"its {MANIFEST} cannot be read by this version") from error
        if not manifest.is_canonical(text):
            raise damaged(self._path, f"its {MANIFEST} is not canonical")
        if manifest.size > MOST_IMAGE_BYTES:
            raise damaged(self._path, f"it claims to hold {format_size(manifest.size)}")
        return manifest

    def unpack_file(self, file: ContentFile, target: Path) -> None:
        """Unpack the next member to the new file `target`, read-only and synced."""
        self._expect(header_of(file.name, file.size), f"the header of {file.name}")
        digest = hashlib.sha256()
        with target.open("xb") as stream:
            for piece in self._pieces(file.size):
                digest.update(piece)
                stream.write(piece)
            if digest.hexdigest() != file.sha256:
                raise damaged(self._path, f"{file.name} in it was altered")
            finish_file(stream)
        self._expect(_padding(file.size), f"what follows {file.name}")

    def expect_end(self) -> None:
        """Check that nothing follows but the archive's end."""
        self._expect(_END, "its end")
        if self._some(1) or self._decompressor.unused_data or self._read(1):
            raise damaged(self._path, "something follows its end")

    def _expect(self, data: bytes, what: str) -> None:
        if b"".join(self._pieces(len(data))) != data:
            raise damaged(self._path, f"{what} is not as expected")

    def _pieces(self, size: int) -> Iterator[bytes]:
        """Read the next `size` bytes."""
        while size:
            piece = self._some(min(size, PIECE))
            if not piece:
                raise damaged(self._path, "it ends too early")
            size -= len(piece)
            yield piece

    def _some(self, most: int) -> bytes:
        """Read 1 to `most` bytes, or none at the end."""
        while not self._decompressor.eof:
            compressed = b""
            if self._decompressor.wants_input:
                compressed = self._read(_READ_SIZE)
                if not compressed:
                    raise damaged(self._path, "it ends too early")
            try:
                data = self._decompressor.decompress(compressed, most)
            except _DecompressorError as error:
                raise damaged(self._path, "its compressed data is damaged") from error
            if data:
                return data
        return b""

    def _read(self, most: int) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        try:
            return self._stream.read(most)
        except OSError as error:
            raise HostError(
                f"{self._path} cannot be read: {error.strerror}", hint="check its disk"
            ) from error


@contextmanager
def reading(
    path: Path, damaged: Callable[[Path, str], ImageDamagedError], hint: str
) -> Iterator[BinaryIO]:
    """Open `path`, which comes from outside, for reading.

    Raises ImageMissingError with `hint`, what `damaged` makes if it is no regular file, HostError.
    """
    try:
        # A pipe without a writer must not block us for ever.
        descriptor = open_descriptor(path, wait=False)
    except FileNotFoundError as error:
        raise ImageMissingError(f"there is no file {path}", hint=hint) from error
    except OSError as error:
        what = f"{path} cannot be read"
        hint = "check the disk and the directory's permissions"
        raise host_error(what, error, hint=hint) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise damaged(path, "it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            yield stream
    finally:
        os.close(descriptor)


def damaged(path: Path, what: str) -> ImageDamagedError:
    """Return an error that says `what` is wrong with the packed image `path`."""
    return ImageDamagedError(
        f"{path} is not a packed image, or is damaged: {what}",
        hint="get the file again (in BOINC: reset the project), "
        "or pack it again: boincvm image pack NAME FILE",
    )


def finish_file(stream: BinaryIO) -> None:
    """Make a file read-only and sync it.

    So a named image is complete even after a power cut.
    """
    stream.flush()
    set_mode(stream.fileno(), 0o444)
    os.fsync(stream.fileno())


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)
