"""A QEMU process begun by a plan that was made before, with nothing imported but what starts it.

The modules that make plans take as long to import as QEMU takes to start (docs/checkpoints.md),
and so do `socket`, `subprocess` and `signal`; what is used here is what these are made of. To fork
is safe: so early nobody has other threads.
"""

from __future__ import annotations

import _signal
import _socket
import fcntl
import os

from boincvm.sparse_files import make_sparse_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    Plan = tuple[list[str], dict[str, str], list[tuple[str, int, list[tuple[int, bytes]]]], str]
    """How a copy of a golden snapshot is begun: the command, with DIRECTORY and PARENT in it; its
    environment; files that it needs in the directory: name, size, and what is written where; and
    the path of the snapshot's state."""

WINDOW, LOG = "window", "qemu.log"
"""Files in the directory that we have open too; the log is no part of a plan."""
DIRECTORY = "@directory@"
"""In a plan: the directory in which it is followed."""
PARENT = "@parent@"
"""In a plan: the process that follows it."""
QMP, LINK, CONSOLE, STATE = 20, 21, 22, 23
"""In a plan: the process's descriptors."""
_ABOVE = 64
ASKING_SIGNALS = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM)
_NOT_EXECUTED = 127
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+@ ")


class EarlyQemu:
    """Runs from the constructor on, in the directory `place`, as QemuProcess would have it run
    (processes.py: deaf to what asks to end, killed with us).

    qmp, link, console: our ends of its channels. window, log, state: descriptors of the files.
    Whoever takes these owns them.
    """

    def __init__(self, plan: Plan, place: str) -> None:
        """Raises OSError, and ValueError for what is no plan, or no directory for one."""
        command, self._environment, files, state = plan
        if not _PLAIN.issuperset(place):
            raise ValueError("QEMU's command line would have to escape the directory's name")
        parent = str(os.getpid())
        self._command = [part.replace(DIRECTORY, place).replace(PARENT, parent) for part in command]
        self.plan, self.place = plan, place
        self.window = self.log = self.state = -1
        pairs = [_socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM, 0) for _ in range(3)]
        (self.qmp, qmp), (self.link, link), (self.console, console) = pairs
        try:
            for name, size, pieces in files:
                make_sparse_file(f"{place}/{name}", size, pieces)
            self.window = os.open(f"{place}/{WINDOW}", os.O_RDWR | os.O_CLOEXEC)
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self.log = os.open(f"{place}/{LOG}", flags, 0o600)
            self.state = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
            ends = {
                QMP: qmp.fileno(), LINK: link.fileno(), CONSOLE: console.fileno(),
                STATE: self.state,
            }  # fmt: skip
            self.pid = self._fork(ends)
        except BaseException:
            self._close()
            raise
        finally:
            for _, far in pairs:
                far.close()

    def _fork(self, ends: dict[int, int]) -> int:
        former = _signal.pthread_sigmask(_signal.SIG_BLOCK, ASKING_SIGNALS)  # exec keeps it
        try:
            pid = os.fork()
            if pid == 0:
                try:
                    self._become_qemu(ends)
                finally:
                    os._exit(_NOT_EXECUTED)
            return pid
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, former)

    def _become_qemu(self, ends: dict[int, int]) -> None:
        os.setsid()
        os.chdir(self.place)
        nothing = os.open(os.devnull, os.O_RDWR)
        wanted = {0: nothing, 1: nothing, 2: self.log, **ends}
        # All out of the way first: a descriptor may have a number that another is to get.
        above = {
            number: fcntl.fcntl(descriptor, fcntl.F_DUPFD, _ABOVE)
            for number, descriptor in wanted.items()
        }
        for number, descriptor in above.items():
            os.dup2(descriptor, number)
        os.closerange(3, QMP)
        os.closerange(STATE + 1, max(map(int, os.listdir("/proc/self/fd"))) + 1)
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
            _signal.signal(number, _signal.SIG_DFL)  # Python ignores them
        os.execve(self._command[0], self._command, self._environment)  # noqa: S606

    def follows(self, plan: Plan) -> bool:
        """Whether the process lives, with that plan, and has the state that the plan names now."""
        try:
            # Whatever ended it may have to do with how it was begun, which is not everybody's way.
            is_over = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            same_state = os.path.samestat(os.fstat(self.state), os.stat(plan[3]))
        except OSError:
            return False
        return self.plan == plan and same_state and is_over is None

    def end(self) -> None:
        """Kills the process, if nobody has taken it, and lets go of all."""
        try:
            os.kill(self.pid, _signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # we were started deaf to SIGCHLD, and it is gone
        self._close()

    def _close(self) -> None:
        for channel in (self.qmp, self.link, self.console):
            channel.close()
        for descriptor in (self.window, self.log, self.state):
            if descriptor >= 0:
                os.close(descriptor)
