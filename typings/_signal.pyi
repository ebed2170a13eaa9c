# What the guest's agent uses of CPython's `_signal`, which typeshed leaves out.
from collections.abc import Callable
from types import FrameType

SIGCHLD: int
SIGPIPE: int
SIG_DFL: int

def signal(number: int, handler: int | Callable[[int, FrameType | None], None], /) -> object: ...
def set_wakeup_fd(descriptor: int, /) -> int: ...
def pause() -> None: ...
