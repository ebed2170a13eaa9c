"""The error that ends a task for now, though nothing is wrong with the job."""

from boincvm.errors import BoincvmError


class TemporaryExitError(BoincvmError):
    """The program wants to be restarted from its beginning after `delay` seconds."""

    def __init__(self, delay: float, reason: str, *, notice: bool) -> None:
        super().__init__(reason or "the program asked for it")
        self.delay = delay
        self.notice = notice
