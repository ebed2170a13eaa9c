"""Java's trust store (JKS), which records when each certificate was added."""

import hashlib
import struct

from boincvm.errors import ImageBuildError

_MAGIC = 0xFEEDFEED
_VERSION = 2
_TRUSTED = 2
_SALT = "changeit".encode("utf-16-be") + b"Mighty Aphrodite"
"""Salt of the store's digest: the password that Debian sets, and a constant of the format."""
_TIME = 1704067200_000


def without_times(store: bytes) -> bytes:
    """Return the store with its entries sorted and all times equal.

    Anything but a JKS store of trusted certificates is returned unchanged. Raises ImageBuildError
    if the store is damaged.
    """
    if len(store) < 32 or struct.unpack_from(">II", store) != (_MAGIC, _VERSION):
        return store
    (count,) = struct.unpack_from(">I", store, 8)
    entries: list[bytes] = []
    offset = 12
    try:
        for _ in range(count):
            begin = offset
            (tag, length) = struct.unpack_from(">IH", store, offset)
            if tag != _TRUSTED:
                return store
            offset += 6 + length
            head = store[begin:offset]
            offset += 8
            rest = offset
            offset += 2 + struct.unpack_from(">H", store, offset)[0]
            offset += 4 + struct.unpack_from(">I", store, offset)[0]
            entries.append(head + struct.pack(">Q", _TIME) + store[rest:offset])
    except struct.error as error:
        raise ImageBuildError("Java's certificates are damaged") from error
    if offset != len(store) - 20:
        raise ImageBuildError("Java's certificates are damaged")
    body = store[:12] + b"".join(sorted(entries))
    return body + hashlib.sha1(_SALT + body, usedforsecurity=False).digest()
