"""Pauses of a thread that another thread can end."""

import sys

if sys.platform == "win32":
    from boincvm.host.pauses_windows import Pauses
else:
    from boincvm.host.pauses_posix import Pauses

__all__ = ["Pauses"]
