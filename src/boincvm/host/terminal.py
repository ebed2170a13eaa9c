"""The user's terminal: job control and raw mode."""

import sys

if sys.platform == "win32":
    from boincvm.host.terminal_windows import RESIZE_SIGNAL, is_background_job, raw
else:
    from boincvm.host.terminal_posix import RESIZE_SIGNAL, is_background_job, raw

__all__ = ["RESIZE_SIGNAL", "is_background_job", "raw"]
