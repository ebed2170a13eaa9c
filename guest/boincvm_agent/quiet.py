"""The time between `quiesce` and `attach`, in which the agent hears and says nothing.

The machine may be put on a disk meanwhile, and wake up with another host at its port. What the
kernel's port tells of that is a hang-up that stays, so the port is watched edge-triggered: each
change wakes us once, and a host that is gone is nothing to spin on.
"""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boincvm.bus.stomp import Frame
    from boincvm_agent.link import Link

_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET


class Quiet:
    """Begins with the constructor: all that is queued goes out, and `quiet` after it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        link.send("quiet", "0", {})
        link.hold()
        link.write()
        self._port = select.epoll()
        self._port.register(link.descriptor, _EVENTS)

    def wait(self, wake: int) -> tuple[bool, list[Frame]]:
        """Whether the descriptor `wake` can be read, and what the host has said."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(self._port.fileno(), select.POLLIN)
        woken = any(descriptor == wake for descriptor, _ in poll.poll())
        frames: list[Frame] = []
        for _, events in self._port.poll(0):
            if events & select.EPOLLOUT:
                self._link.write()
            if events & select.EPOLLIN:
                frames += self._link.read_all()
        return woken, frames

    def end(self) -> None:
        """What was held back goes out again."""
        self._port.close()
        self._link.go_on()
