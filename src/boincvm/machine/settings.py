"""What a machine's owner wants of the engine."""

from typing import NamedTuple

from boincvm.guestlink.attach_frame import BEAT
from boincvm.job.model import Limits


class Settings(NamedTuple):
    """How patient a machine's owner is, and how much it wants to hear."""

    limits: Limits = Limits()
    """Of which `boot`, `silence` and `stop` count here; time while it is paused does not."""
    report_period: float = BEAT
    """Seconds between two times that the guest tells what its programs have used."""
    boot_hint: str = "the host may be too busy, or too slow"
    """What to do where the guest's agent says nothing within `limits.boot`."""
