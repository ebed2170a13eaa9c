"""The last bytes of what a child writes to its standard error."""

import sys

if sys.platform == "win32":
    from boincvm.host.child_output_windows import TAIL_SIZE, ChildOutput
else:
    from boincvm.host.child_output_posix import TAIL_SIZE, ChildOutput

__all__ = ["TAIL_SIZE", "ChildOutput"]
