"""Streams in one direction between processes, either of whose ends can be given to one of them."""

import sys

if sys.platform == "win32":
    from boincvm.host.shared_pipes_windows import PipeEnd, SharedPipe, StreamHelper, open_given
else:
    from boincvm.host.shared_pipes_posix import PipeEnd, SharedPipe, StreamHelper, open_given

__all__ = ["PipeEnd", "SharedPipe", "StreamHelper", "open_given"]
