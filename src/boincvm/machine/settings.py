"""Settings that a machine's owner gives the engine."""

from typing import NamedTuple

from boincvm.guestlink.attach_frame import BEAT
from boincvm.job.model import Limits


class Settings(NamedTuple):
    """How long a machine's owner waits, and how often it wants reports."""

    limits: Limits = Limits()
    """Only `boot`, `silence` and `stop` are used here; time while the machine is paused does not
    count."""
    report_period: float = BEAT
    """Seconds between two reports of what the guest's programs have used."""
    boot_hint: str = "the host may be too busy, or too slow"
    """What to do if the guest's agent does not answer within `limits.boot`."""
