"""The network of a User-mode Linux: QEMU's user-mode network, in a QEMU that has no machine.

The kernel's network card is one end of a pair of sockets; each message is a frame. At the other
end is QEMU, whose network is then the one that QEMU's own machines have. So nothing of the host's
network is in the kernel's sandbox but that socket. It is connected for good: a datagram socket
could send to any abstract address of the host's network namespace, in which it was made.
"""

from __future__ import annotations

import mmap
import os
import socket
from typing import TYPE_CHECKING

from boincvm.errors import HypervisorMissingError
from boincvm.host.process_tree import CONTINUE, STOP, own_usage, send
from boincvm.host.processes import ChildProcess
from boincvm.host.programs import find_program
from boincvm.hypervisor.contract import EndCause, MachineEnd, Usage
from boincvm.hypervisor.process_end import end_by_signal
from boincvm.hypervisor.qemu_options import common_options, user_network

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Sequence
    from pathlib import Path

    from boincvm.hypervisor.console import Console
    from boincvm.hypervisor.uml.kernel import UmlKernel
    from boincvm.job.model import PortForward

PROGRAM = "qemu-system-x86_64"
INSTALL_HINT = "install it: apt-get install --no-install-recommends qemu-system-x86"
_MARK = b"boincvm: cable"
"""In a kernel whose network card we made for this (image/kernels/changes.py)."""
_UNPLUGGED, _PLUGGED = b"\0", b"\1"
"""Frames that are too short for a network: they tell our card about its cable."""
_WARNING = ": warning: "
"""In lines of QEMU's that do not tell why it ended: one is that there is no machine."""
_PORT_TAKEN = "host forwarding rule 'tcp:127.0.0.1:"
"""What QEMU says before a port on which it cannot listen."""


def is_available(kernel: UmlKernel) -> bool:
    """Tell whether machines with that kernel can have a network here.

    Raises HypervisorMissingError, OSError.
    """
    return find_program(PROGRAM) is not None and has_card(kernel)


def has_card(kernel: UmlKernel) -> bool:
    """Tell whether our network card is in that kernel. Raises HypervisorMissingError, OSError."""
    if not kernel.is_own:
        return False
    program = kernel.open()
    try:
        if os.fstat(program).st_size == 0:
            return False
        with mmap.mmap(program, 0, access=mmap.ACCESS_READ) as content:
            return content.find(_MARK) >= 0
    finally:
        os.close(program)


class Network:
    """A QEMU that runs once constructed, and the sockets between it and the kernel."""

    def __init__(self, forwards: Sequence[PortForward], directory: Path) -> None:
        """Start QEMU in `directory`; it listens on the host's ports.

        `card` is the kernel's end: the caller closes it once the kernel has it. Raises
        HypervisorMissingError, OSError.
        """
        path = find_program(PROGRAM)
        if path is None:
            raise HypervisorMissingError(
                f"{PROGRAM} is not installed, which is the network of a User-mode Linux",
                hint=INSTALL_HINT,
            )
        self.card, self._wire = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._news = _PLUGGED
        self._waiting: AbstractEventLoop | None = None
        # A guest can have QEMU write without end. What nobody has read yet is limited by the
        # socket; for what exceeds that QEMU does not wait.
        self._output, written = socket.socketpair()
        self._console: Console | None = None
        try:
            self._wire.setblocking(False)
            written.setblocking(False)
            self.child = ChildProcess(
                _command(path, forwards, self._wire.fileno()),
                directory=directory,
                descriptors=[self._wire.fileno()],
                stderr=written.fileno(),
            )
        except BaseException:
            self._close()
            raise
        finally:
            written.close()

    def read_output(self) -> None:
        """Read QEMU's output from now on, and keep its end. An event loop must be running."""
        from boincvm.hypervisor.console import Console  # it imports asyncio

        if self._console is None:
            self._console = Console(self._output)

    def connect(self, *, connected: bool) -> None:
        """Let frames pass, or none. The guest's card has a carrier accordingly.

        An event loop must be running.
        """
        # A stopped QEMU passes nothing, whatever the guest makes of what its card is told.
        if self.child.is_running:  # else its process id may be another's
            send(self.child.pid, CONTINUE if connected else STOP)
        self._news = _PLUGGED if connected else _UNPLUGGED
        self._send_news()

    def _send_news(self) -> None:
        """Tell the card about its cable now, or as soon as the kernel has taken earlier frames."""
        from asyncio import get_running_loop  # a machine starts before it is imported

        self._wait_no_more()
        try:
            self._wire.send(self._news)
        except BlockingIOError:
            self._waiting = get_running_loop()
            self._waiting.add_writer(self._wire, self._send_news)
        except OSError:
            return  # the other end is closed: the kernel has ended, or does not want to know

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.remove_writer(self._wire)
            self._waiting = None

    def usage(self) -> Usage:
        return Usage(*own_usage(self.child.pid)) if self.child.is_running else Usage(0.0, 0)

    def machine_end(self, status: int) -> MachineEnd:
        """Return how a machine ends whose network has ended with that status: see ChildProcess."""
        if status < 0:
            end = end_by_signal(-status, "QEMU")
        else:
            why = self.last_output() or f"QEMU ended with {status}"
            end = MachineEnd(EndCause.FAILED, why)
        return end._replace(detail=f"the machine's network has ended: {end.detail}")

    def last_output(self) -> str:
        """Return the last line of what QEMU wrote and `read_output` read, or ""."""
        text = self._console.text() if self._console is not None else ""
        lines = [line for line in text.strip().splitlines() if _WARNING not in line]
        if not lines:
            return ""
        if port := lines[-1].partition(_PORT_TAKEN)[2].partition("-")[0]:
            return f"the port {port} of 127.0.0.1 cannot be used: another program may have taken it"
        from boincvm.redaction import redact  # only needed for an error

        return "".join(filter(str.isprintable, redact(lines[-1])))[:300]

    def end(self) -> None:
        """End QEMU and close the sockets. Idempotent."""
        self.child.end()
        self._close()

    def _close(self) -> None:
        self._wait_no_more()
        self.card.close()
        self._wire.close()
        if self._console is not None:
            self._console.close()
        self._output.close()


def _command(path: str, forwards: Sequence[PortForward], socket_: int) -> list[str]:
    ends = ("net", "card")
    ports = [("-netdev", f"hubport,id={end}-port,hubid=0,netdev={end}") for end in ends]
    return [
        path,
        *common_options(),
        *("-machine", "none"),
        *user_network("net", forwards),
        *("-netdev", f"dgram,id=card,local.type=fd,local.str={socket_}"),
        *(word for port in ports for word in port),
    ]
