"""A regular file, opened with care, and the digest of its content."""

import hashlib
import os
import stat
from io import FileIO
from pathlib import Path

_CHUNK = 1 << 20


def open_regular(path: Path) -> FileIO:
    """The regular file `path`, for reading; no link is followed, nothing waited for.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path.name} is no regular file")
    return FileIO(descriptor)


def digest_of(path: Path, *, drop_cache: bool = False) -> tuple[int, str]:
    """Bytes of the regular file `path`, and their BLAKE2b digest of 256 bits in hexadecimal.

    `drop_cache`: it is read from the disk, as far as the kernel can be asked to. Raises OSError.
    """
    with open_regular(path) as file:
        if drop_cache:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        digest, size = hashlib.blake2b(digest_size=32), 0
        buffer = memoryview(bytearray(_CHUNK))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            size += count
    return size, digest.hexdigest()
