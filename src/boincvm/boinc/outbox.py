"""Messages waiting to be sent to the client, since a channel holds only one message."""

from boincvm.boinc.channels import APP_STATUS, GRAPHICS_REPLY, TRICKLE_UP, Channel


class Outbox:
    """Messages to the client. Without memory (standalone, or closed) all are dropped."""

    def __init__(self, memory: memoryview | None) -> None:
        self.status: str | None = None
        self.graphics: dict[str, str] = {}
        """The latest message of each kind."""
        self._flags: list[str] = []
        self._flags_sent: list[str] = []
        self._channels: dict[int, Channel] = {}
        if memory is not None:
            numbers = (APP_STATUS, TRICKLE_UP, GRAPHICS_REPLY)
            self._channels = {number: Channel(memory, number) for number in numbers}

    @property
    def is_status_taken(self) -> bool:
        """Return True if the client has read the last status, or there is no client."""
        if not self._channels:
            return True
        return self.status is None and not self._channels[APP_STATUS].is_full

    def flag(self, word: str) -> None:
        """Queue `word` for the trickle channel."""
        if word not in self._flags:
            self._flags.append(word)

    def send(self) -> tuple[int, ...]:
        """Send what can be sent; return the numbers of the channels for which more is waiting."""
        if not self._channels:
            self._drop()
            return ()
        if self.status is not None and self._channels[APP_STATUS].send(self.status):
            self.status = None
        if self._flags and self._channels[TRICKLE_UP].send(_lines(self._flags)):
            self._flags, self._flags_sent = [], self._flags
        for kind, text in self.graphics.items():
            if self._channels[GRAPHICS_REPLY].send(text):
                del self.graphics[kind]
                break
        waits = {APP_STATUS: self.status, TRICKLE_UP: self._flags, GRAPHICS_REPLY: self.graphics}
        return tuple(number for number, waiting in waits.items() if waiting)

    def send_last(self) -> None:
        """Send the last messages of a process that ends; the client polls once more after that.

        Newer messages replace those that the client has not read.
        """
        if not self._channels:
            return
        if self.status is not None:
            self._channels[APP_STATUS].overwrite(self.status)
            self.status = None
        if self._flags:
            unread = self._flags_sent if self._channels[TRICKLE_UP].is_full else []
            self._channels[TRICKLE_UP].overwrite(_lines([*self._flags, *unread]))
            self._flags = []
        self.send()

    def close(self) -> None:
        """Drop everything: the memory is about to be released."""
        self._channels = {}
        self._drop()

    def _drop(self) -> None:
        self.status = None
        self._flags = []
        self.graphics = {}


def _lines(flags: list[str]) -> str:
    return "".join(f"{flag}\n" for flag in flags)
