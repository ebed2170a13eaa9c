"""Wait between `quiesce` and `attach`, while the agent sends nothing.

Meanwhile the machine may be saved to disk, and resumed with another host at its port. The kernel
reports that as a hang-up that persists, so the port is watched edge-triggered: each change wakes us
once, and we do not spin while there is no host.
"""

from __future__ import annotations

import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from boincvm.bus.stomp import Frame
    from boincvm_agent.link import Link

_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET


class Quiesce:
    """The quiesced state, entered by `begin`. `wake`: a descriptor that wakes the agent.

    The host saves the machine as soon as it receives `quiesced`. Every copy of the machine repeats
    what the agent does after that message, so that should be as little as possible.
    """

    def __init__(self, link: Link, wake: int) -> None:
        self.is_on = False
        self._link = link
        self._wake = wake
        self._events = select.epoll()
        self._events.register(link.descriptor, _EVENTS)
        self._events.register(wake, select.EPOLLIN)

    def begin(self) -> None:
        """Send all that is queued, followed by `quiesced`."""
        self.is_on = True
        self._link.send("quiesced", "0", {})
        self._link.hold()
        self._link.write()

    def wait(self) -> tuple[bool, list[Frame]]:
        """Wait for an event; return whether `wake` is readable, and the host's frames."""
        woken = False
        frames: list[Frame] = []
        for descriptor, events in self._events.poll():
            if descriptor == self._wake:
                woken = True
                continue
            if events & select.EPOLLOUT:
                self._link.write()
            if events & select.EPOLLIN:
                # What follows `attach` is read once we are no longer quiesced.
                frames += self._link.read_all("attach")
        return woken, frames

    def end(self) -> None:
        """Send what was held back."""
        self.is_on = False
        self._link.go_on()
