"""The digest of a file's content."""

import hashlib
from pathlib import Path

from boincvm.host.files import drop_cached, open_regular

_CHUNK = 1 << 20


def digest_of(path: Path, *, drop_cache: bool = False) -> tuple[int, str]:
    """Return the size of the regular file `path` in bytes and its digest.

    The digest is 256-bit BLAKE2b in hexadecimal. With `drop_cache` the file is read from the disk,
    as far as the kernel can be asked to. Raises OSError.
    """
    with open_regular(path) as file:
        if drop_cache:
            drop_cached(file.fileno())
        digest, size = hashlib.blake2b(digest_size=32), 0
        buffer = memoryview(bytearray(_CHUNK))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            size += count
    return size, digest.hexdigest()
