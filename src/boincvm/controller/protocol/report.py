"""What a machine's keeper tells of its state, as it travels on the bus."""

from collections.abc import Mapping
from typing import NamedTuple

from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import GuestProtocolError

_LONGEST = 500
_MOST_BYTES = float(1 << 53)


class Report(NamedTuple):
    """cpu: processor seconds per second since the report before. memory: bytes that the
    hypervisor has of the host's. progress: from 0 to 1, what a program said of itself.
    started_at: seconds since 1970. None: not known."""

    state: VmState
    why: str = ""
    cpu: float | None = None
    memory: int | None = None
    progress: float | None = None
    started_at: float | None = None

    def table(self) -> dict[str, object]:
        """For `read_report`."""
        return {**self._asdict(), "state": str(self.state)}


def read_report(table: Mapping[str, object]) -> Report:
    """Raises GuestProtocolError."""
    why = table.get("why", "")
    try:
        state = VmState(str(table.get("state")))
    except ValueError:
        raise GuestProtocolError("a guest is in a state that there is not") from None
    if not isinstance(why, str):
        raise GuestProtocolError("a guest says in no words why it is in its state")
    memory = _number(table, "memory", _MOST_BYTES)
    return Report(
        state,
        "".join(filter(str.isprintable, why[:_LONGEST])),
        _number(table, "cpu", 4096.0),
        None if memory is None else int(memory),
        _number(table, "progress", 1.0),
        _number(table, "started_at", 1e12),
    )


def _number(table: Mapping[str, object], name: str, most: float) -> float | None:
    value = table.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        raise GuestProtocolError(f"a guest tells a {name} that cannot be")
    return float(value)
