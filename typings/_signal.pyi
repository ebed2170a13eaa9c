# What the agent and the guard of a host task use of `_signal`; typeshed leaves it out.
from collections.abc import Callable, Iterable
from types import FrameType

SIGALRM: int
SIGCHLD: int
SIGHUP: int
SIGCONT: int
SIGINT: int
SIGKILL: int
SIGPIPE: int
SIGSTOP: int
SIGTERM: int
SIGTSTP: int
SIGXFSZ: int
SIG_DFL: int
SIG_IGN: int
SIG_BLOCK: int
SIG_SETMASK: int

def signal(number: int, handler: int | Callable[[int, FrameType | None], None], /) -> object: ...
def set_wakeup_fd(descriptor: int, /) -> int: ...
def pause() -> None: ...
def pthread_sigmask(how: int, mask: Iterable[int], /) -> set[int]: ...
