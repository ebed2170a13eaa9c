"""A benchmark, its parameters, and its results."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from boincvm.image.store import Image

Log = Callable[[str], None]
"""Shows one line of progress."""


@dataclass(frozen=True, slots=True)
class Result:
    """One figure of a benchmark."""

    name: str
    value: float
    unit: str
    versus: float | None = None
    """The figure to compare with, in the same unit."""
    against: str = ""
    """What `versus` is: the other side of the comparison, or a stated limit."""
    target: float | None = None
    """The largest ratio allowed."""

    @property
    def ratio(self) -> float | None:
        return self.value / self.versus if self.versus else None

    @property
    def verdict(self) -> str:
        """Return "ok" or "over"; empty if nothing is promised."""
        if self.target is None or self.ratio is None:
            return ""
        return "ok" if self.ratio <= self.target else "over"


@dataclass(frozen=True, slots=True)
class Laboratory:
    """What benchmarks work with: the images, how QEMU runs here, how long to go on."""

    base: Image
    sci: Image
    accelerator: str
    repeat: int | None
    """None lets each benchmark choose."""
    quick: bool
    directory: Path
    """For temporary files."""
    log: Log

    def times(self, usual: int, quick: int) -> int:
        """Return the number of repetitions."""
        return self.repeat or (quick if self.quick else usual)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A named benchmark."""

    names: tuple[str, ...]
    """The results that one call of `run` gives."""
    run: Callable[[Laboratory], list[Result]]
    by_name: bool = False
    """Whether it runs only if it is named: it takes many minutes."""
