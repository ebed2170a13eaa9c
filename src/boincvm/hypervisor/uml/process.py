"""The processes of one User-mode Linux: how they start, pause, and end together.

The first one is `bwrap`, our child. Below it is the kernel, the first process of a PID namespace,
and below that helpers of the kernel and one process for each of the guest's address spaces. If the
kernel alone were killed, these would run on as programs of the host. So they end with the
namespace.
"""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from boincvm.errors import HypervisorError
from boincvm.host.process_tree import (
    ALARM,
    CONTINUE,
    KILL,
    STOP,
    children,
    is_traced,
    own_usage,
    send,
    sleeps,
    stands_still,
    usage,
)
from boincvm.host.processes import ChildProcess, yield_processor
from boincvm.hypervisor.contract import Usage

_MANY_CHECKS, _FEW_CHECKS = 100_000, 50
"""How often to check processes that are to stop. A check takes 20 µs, and a stop less than 20 ms on
a busy host."""

CommandLine = Callable[[int, int], list[str]]
"""Returns the command line, given the descriptors of the link and of its receipts."""


class UmlProcess:
    """The processes of one User-mode Linux, running once constructed.

    `link`, `receipts` and `console` are our ends of its channels, for the caller to own.
    """

    def __init__(
        self,
        command: CommandLine,
        directory: Path,
        descriptors: Sequence[int],
        *,
        is_traced: bool,
    ) -> None:
        """Start the processes; `descriptors` are further ones that the command line refers to.

        `is_traced`: the kernel traces the guest's programs, as old ones do. Raises OSError.
        """
        self._is_traced = is_traced
        pairs = [socket.socketpair() for _ in range(3)]
        (self.link, link), (self.receipts, receipts), (self.console, console) = pairs
        try:
            self.child = ChildProcess(
                command(link.fileno(), receipts.fileno()),
                directory=directory,
                descriptors=[link.fileno(), receipts.fileno(), *descriptors],
                stderr=console.fileno(),
            )
        except BaseException:
            for ours, _ in pairs:
                ours.close()
            raise
        finally:
            for _, its in pairs:
                its.close()

    @property
    def kernel(self) -> int | None:
        """The process id of the kernel; None before it has begun and after its end."""
        return next(iter(children(self.child.pid)), None) if self.child.is_running else None

    def pause(self) -> None:
        """Pause all its processes. Raises HypervisorError."""
        kernel = self._kernel_or_wait()
        send(kernel, STOP)
        if not _until(stands_still, [kernel], _MANY_CHECKS):
            raise HypervisorError("the machine's kernel does not stop")
        # A program of the guest keeps computing without the kernel until it is interrupted. The
        # kernel expects these processes to get SIGALRM, the guest's clock: they stop at it until
        # the kernel continues. (To the kernel a SIGSTOP would be a fault.) Those that are about to
        # stop anyway are left alone: while it boots, the kernel tests how tracing behaves.
        if self._is_traced:
            programs, still = [pid for pid in children(kernel) if is_traced(pid)], stands_still
        else:
            # These wait for the kernel in a futex, so they do nothing when they sleep.
            programs, still = children(kernel), sleeps
        if _until(still, programs, _FEW_CHECKS):
            return
        for pid in programs:
            if not still(pid):
                send(pid, ALARM)
        if not _until(still, programs, _MANY_CHECKS):
            raise HypervisorError("the machine's programs do not stop")

    def _kernel_or_wait(self) -> int:
        """Return the process id of the kernel, which starts some milliseconds after our child."""
        for _ in range(_MANY_CHECKS):
            if (kernel := self.kernel) is not None:
                return kernel
            if not self.child.is_running:
                break
            yield_processor()
        raise HypervisorError("the machine is not running, so it cannot be paused")

    def resume(self) -> None:
        """Let its processes run again."""
        if (kernel := self.kernel) is not None:
            send(kernel, CONTINUE)

    def kill(self) -> None:
        """Kill all its processes now; `child.wait` returns when none is left."""
        if (kernel := self.kernel) is not None:
            send(kernel, KILL)  # and the whole namespace with it
        else:
            self.child.kill()

    def end(self) -> None:
        """Kill all its processes and close our ends of its channels, unless others took them."""
        self.kill()
        self.child.end()
        for end in (self.link, self.receipts, self.console):
            end.close()

    def usage(self) -> Usage | None:
        """Return all its processes' CPU time and the kernel's memory; None if it is not running.

        All of the guest's memory is in one mapping of the kernel's, of which the others have parts.
        """
        kernel = self.kernel
        if kernel is None:
            return None
        return Usage(usage(self.child.pid)[0], own_usage(kernel)[1])


def _until(check: Callable[[int], bool], pids: Sequence[int], times: int) -> bool:
    """Tell whether `check` holds for all of these processes within that many looks."""
    for _ in range(times):
        if all(map(check, pids)):
            return True
        yield_processor()
    return False
