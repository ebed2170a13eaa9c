"""Tells when a file is written to."""

import sys

if sys.platform == "linux":
    from boincvm.host.file_changes_linux import FileWatch
else:
    from boincvm.host.file_changes_unsupported import FileWatch

__all__ = ["FileWatch"]
