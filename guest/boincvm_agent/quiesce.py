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


class Quiesce:
    """Made once; each time begins with `begin`. `wake`: a descriptor that wakes the agent.

    A machine is kept as soon as the host hears `quiet`, so whatever follows that word, each copy
    of the machine has to do: as little as can be.
    """

    def __init__(self, link: Link, wake: int) -> None:
        self.is_on = False
        self._link = link
        self._wake = wake
        self._events = select.epoll()
        self._events.register(link.descriptor, _EVENTS)
        self._events.register(wake, select.EPOLLIN)

    def begin(self) -> None:
        """All that is queued goes out, and `quiet` after it."""
        self.is_on = True
        self._link.send("quiet", "0", {})
        self._link.hold()
        self._link.write()

    def wait(self) -> tuple[bool, list[Frame]]:
        """Whether `wake` can be read, and what the host has said."""
        woken = False
        frames: list[Frame] = []
        for descriptor, events in self._events.poll():
            if descriptor == self._wake:
                woken = True
                continue
            if events & select.EPOLLOUT:
                self._link.write()
            if events & select.EPOLLIN:
                # What follows `attach` is read when we are no longer quiet.
                frames += self._link.read_all("attach")
        return woken, frames

    def end(self) -> None:
        """What was held back goes out again."""
        self.is_on = False
        self._link.go_on()
