"""A line on the terminal that is drawn again once a second."""

import asyncio
from collections.abc import Callable

from boincvm.standard_error import show

_CLEAR = "\r\x1b[K"


class StatusLine:
    """Draws what `text` returns on standard error, by a timer of the event loop."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text
        self._is_shown = False
        self._timer: asyncio.TimerHandle | None = None

    def draw(self) -> None:
        """Draw the line now, and again each second."""
        self._cancel()
        show(_CLEAR + self._text())
        self._is_shown = True
        self._timer = asyncio.get_running_loop().call_later(1.0, self.draw)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def clear(self) -> None:
        """Remove the line."""
        self._cancel()
        if self._is_shown:
            show(_CLEAR)
            self._is_shown = False
