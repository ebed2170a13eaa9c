"""The error for what boincvm cannot do on every operating system yet."""

import sys

from boincvm.errors import UnsupportedHostError

_NAMES = {"win32": "Windows", "darwin": "macOS", "linux": "Linux"}


def not_yet(what: str) -> UnsupportedHostError:
    """Return the error for `what`, which boincvm cannot do on this operating system yet."""
    name = _NAMES.get(sys.platform, sys.platform)
    return UnsupportedHostError(f"not yet supported on {name}: {what}", hint="run boincvm on Linux")
