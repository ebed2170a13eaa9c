"""Whether this host can store a file's name that comes from elsewhere: a guest or a server."""

import sys

from boincvm.portable_names import is_portable_part


def is_storable(name: str) -> bool:
    r"""Tell whether this host can store a file with that name, one part of a path, as it is.

    Windows would read `a:b`, `..\a`, `NUL` and others in another way.
    """
    return sys.platform != "win32" or is_portable_part(name)
