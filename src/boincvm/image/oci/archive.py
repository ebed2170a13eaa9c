"""The files in a container's archive: a tar archive, which may be compressed.

The archive may be anybody's. It is read once to learn where its files lie, and nothing is unpacked:
its blobs are read where they are.
"""

import gzip
import hashlib
import io
import json
import os
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, cast

from boincvm.errors import ImageBuildError, InputFileError
from boincvm.host.files import open_regular
from boincvm.image.tools import search_path
from boincvm.json_value import fault_of
from boincvm.tar_reader import Readable, TarError, TarReader

MOST_BYTES = 16 << 30
"""The largest archive, in bytes, once it has been decompressed."""
MOST_JSON = 4 << 20
"""The largest JSON file in it, in bytes."""
_MOST_FILES = 10_000
_MOST_LINKS = 8
_CHUNK = 1 << 20
AGAIN = "it may have been cut off: save it again"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ALGORITHMS = {"sha256": 64, "sha512": 128}
"""Digests that the OCI image specification has (descriptor.md), and their lengths in digits."""


def refused(reason: str, hint: str = "") -> ImageBuildError:
    """Return the error for an archive that is not used, which says why."""
    return ImageBuildError(f"the container's archive is refused: {reason}", hint=hint)


class Piece(NamedTuple):
    """Where a file lies in the archive."""

    offset: int
    size: int


class Archive:
    """The archive in a seekable file. Everything raises ImageBuildError."""

    def __init__(self, file: BinaryIO) -> None:
        """Find the files."""
        self._file = file
        self._pieces: dict[str, Piece] = {}
        self._links: dict[str, str] = {}
        try:
            self._read(_Positioned(file))
        except TarError as error:
            raise refused(
                str(error),
                "it has to be what docker save, podman save, or skopeo copy to oci-archive: write",
            ) from error

    def _read(self, stream: "_Positioned") -> None:
        reader = TarReader(stream, most_members=_MOST_FILES)
        for member in reader:
            name = os.path.normpath(os.fsdecode(member.name))
            if name in self._pieces or name in self._links:
                raise refused(f"it has two files {name[:200]!a}")
            if member.kind == "file":
                self._pieces[name] = Piece(stream.position, member.size)
            elif member.kind in ("link", "hard link"):
                above = name.rpartition("/")[0] if member.kind == "link" else ""
                target = os.fsdecode(member.target)
                self._links[name] = os.path.normpath(f"{above}/{target}" if above else target)
            elif member.kind != "directory":
                raise refused(f"{name[:200]!a} is a device or a pipe")

    def find(self, name: str) -> Piece | None:
        """Return where the file `name` lies, or None if the archive lacks it."""
        for _ in range(_MOST_LINKS):
            if name not in self._links:
                return self._pieces.get(name)
            name = self._links[name]
        raise refused(f"a loop of links at {name[:200]!a}")

    def require(self, name: str, what: str) -> Piece:
        """Return where the file `name` lies; `what` names it for people."""
        found = self.find(name)
        if found is None:
            raise refused(f"it lacks {what}: {name[:200]!a}", AGAIN)
        return found

    def open(self, piece: Piece) -> "Part":
        """Open a file for reading."""
        return Part(self._file, piece)

    def small(self, piece: Piece, what: str) -> bytes:
        """Return a JSON file's content; `what` names it for people."""
        if piece.size > MOST_JSON:
            raise refused(f"{what} has {piece.size} bytes, and may have {MOST_JSON}")
        return self.open(piece).read()


class _Positioned:
    """Knows how far a stream has been read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self.position += len(data)
        return data


class Part:
    """A stream of one piece, however the file is read besides."""

    def __init__(self, file: BinaryIO, piece: Piece) -> None:
        self._file = file
        self._at = piece.offset
        self._left = piece.size

    def read(self, size: int = -1, /) -> bytes:
        """Read `size` bytes, or all that is left if it is negative; fewer only at the end."""
        wanted = self._left if size < 0 else min(size, self._left)
        self._file.seek(self._at)
        data = self._file.read(wanted)
        self._at += len(data)
        self._left -= len(data)
        return data


class Digest(NamedTuple):
    """A digest of a blob, and what names the blob."""

    algorithm: str
    digits: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digits}"

    @classmethod
    def parse(cls, text: object) -> "Digest":
        """Read `sha256:0123...`. Raises ImageBuildError."""
        algorithm, _, digits = text.partition(":") if isinstance(text, str) else ("", "", "")
        if len(digits) != _ALGORITHMS.get(algorithm) or not set(digits) <= set("0123456789abcdef"):
            raise refused(f"{str(text)[:100]!a} is no digest that this version knows")
        return cls(algorithm, digits)


class Checked:
    """Passes on what it reads from `stream`, and tells in the end whether that was the right thing.

    `most`: bytes that may come.
    """

    def __init__(self, stream: Readable, digest: Digest, what: str, *, most: int) -> None:
        self._stream = stream
        self._digest = digest
        self._hash = hashlib.new(digest.algorithm)
        self._what = what
        self._most = most
        self._read = 0

    def read(self, size: int = -1, /) -> bytes:
        """Read `size` bytes, or all. Raises ImageBuildError if more come than may."""
        data = self._stream.read(size if size >= 0 else self._most - self._read + 1)
        self._hash.update(data)
        self._read += len(data)
        if self._read > self._most:
            raise refused(f"{self._what} has more than {self._most} bytes")
        return data

    def finish(self) -> None:
        """Read what is left, and check the whole. Raises ImageBuildError."""
        while self.read(_CHUNK):
            pass
        if self._hash.hexdigest() != self._digest.digits:
            raise refused(
                f"{self._what} does not have the digest {self._digest}",
                "it was altered or damaged on its way: save or copy it again",
            )


def check(content: bytes, digest: Digest, what: str) -> None:
    """Check the digest of a small file. Raises ImageBuildError."""
    if hashlib.new(digest.algorithm, content).hexdigest() != digest.digits:
        raise refused(f"{what} does not have the digest {digest}")


def read_json(content: bytes, what: str) -> object:
    """Parse a JSON file. Raises ImageBuildError."""
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise refused(f"{what} is not JSON: {fault_of(error)}") from error
    return value


@contextmanager
def opened(path: Path, directory: Path) -> Iterator[Archive]:
    """Open the archive `path`; if it is compressed, `directory` takes what is in it meanwhile.

    Raises InputFileError, ImageBuildError, OSError.
    """
    try:
        file = io.BufferedReader(open_regular(Path(os.path.realpath(path))), _CHUNK)
    except OSError as error:
        raise InputFileError(
            f"the container's archive {str(path)!r} cannot be read: {error.strerror or error}",
            hint="docker save -o app.tar IMAGE writes one",
        ) from error
    with file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(4)
        whole = Part(file, Piece(0, size))
        if not start.startswith((_GZIP, _ZSTD)):
            file.seek(0)
            yield Archive(file)
            return
        copy = directory / "archive.tar"
        with copy.open("w+b") as unpacked:
            with decompressed(whole, directory) as stream:
                while data := stream.read(_CHUNK):
                    if unpacked.tell() + len(data) > MOST_BYTES:
                        raise refused(f"it has more than {MOST_BYTES} bytes")
                    unpacked.write(data)
            unpacked.seek(0)
            yield Archive(unpacked)
        copy.unlink()


@contextmanager
def decompressed(stream: Readable, directory: Path) -> Iterator[Readable]:
    """Decompress gzip or zstd, which the first bytes tell; anything else is passed on.

    `directory` takes a temporary file. Read it to its end. Raises ImageBuildError.
    """
    start = stream.read(4)
    whole = _Prefixed(start, stream)
    if start.startswith(_GZIP):
        yield _Gzip(whole)
    elif start.startswith(_ZSTD):
        with _zstd(whole, directory) as output:
            yield output
    else:
        yield whole


class _Prefixed:
    """A stream of which the beginning has been read already."""

    def __init__(self, start: bytes, stream: Readable) -> None:
        self._start = start
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        if not self._start:
            return self._stream.read(size)
        data, self._start = self._start, b""
        if 0 <= size < len(data):
            data, self._start = data[:size], data[size:]
        return data


class _Gzip:
    def __init__(self, stream: Readable) -> None:
        self._file = gzip.GzipFile(fileobj=cast(BinaryIO, stream), mode="rb")

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._file.read(size)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise refused(f"what is compressed with gzip is damaged: {error}") from error


@contextmanager
def _zstd(stream: Readable, directory: Path) -> Iterator[Readable]:
    copy = directory / "compressed.zst"
    with copy.open("w+b") as file:
        while data := stream.read(_CHUNK):
            file.write(data)
        file.flush()
        file.seek(0)
        with subprocess.Popen(
            ["zstd", "-dcq"],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": search_path(), "LC_ALL": "C.UTF-8"},
        ) as process:
            try:
                yield cast(IO[bytes], process.stdout)
            except BaseException:
                process.kill()
                raise
    copy.unlink()
    if process.returncode != 0:
        raise refused("what is compressed with zstd is damaged")
