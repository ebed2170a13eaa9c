"""The message STATE, by which a guest reports its state and load."""

from dataclasses import dataclass
from typing import ClassVar, Self

from boincvm.controller.protocol.envelope import Envelope, pack
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import GuestProtocolError

_LONGEST = 500
_MOST_BYTES = float(1 << 53)


@dataclass(frozen=True, slots=True)
class Report:
    """A guest's state, sent at each beat and when it changes. None stands for unknown."""

    NAME: ClassVar[str] = "STATE"
    state: VmState
    why: str = ""
    cpu: float | None = None
    """Processor seconds per second since the previous report."""
    memory: int | None = None
    """Bytes of the host's memory that the hypervisor uses."""
    progress: float | None = None
    """From 0 to 1, as a program reported it."""
    started_at: float | None = None
    """Seconds since 1970."""

    def encode(self) -> bytes:
        return pack(self.NAME, self.table())

    def table(self) -> dict[str, object]:
        """Return the fields as a JSON object."""
        return {
            "state": str(self.state),
            "why": self.why,
            "cpu": self.cpu,
            "memory": self.memory,
            "progress": self.progress,
            "started_at": self.started_at,
        }

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        try:
            state = VmState(str(envelope.fields.get("state")))
        except ValueError:
            raise GuestProtocolError("a guest reports an unknown state") from None
        memory = envelope.optional_number("memory", _MOST_BYTES)
        return cls(
            state,
            "".join(filter(str.isprintable, envelope.any_text("why")[:_LONGEST])),
            envelope.optional_number("cpu", 4096.0),
            None if memory is None else int(memory),
            envelope.optional_number("progress", 1.0),
            envelope.optional_number("started_at", 1e12),
        )
