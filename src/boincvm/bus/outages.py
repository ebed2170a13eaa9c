"""Report on standard error that a broker has gone away, and that it is back."""

from boincvm.bus.client import StompBus
from boincvm.standard_error import write_line


def report_outages(bus: StompBus) -> None:
    """Write one line each time that the connection of `bus` is lost, and when there is one again.

    Why it cannot be made again meanwhile is for `on_trouble`.
    """
    bus.on_lost = lambda why: write_line(f"{why}; connecting again until that succeeds")
    bus.on_back = lambda: write_line("the broker is there again")
