"""What a benchmark gives, and what it is asked to do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from boincvm.image.store import Image

Say = Callable[[str], None]
"""Shows one line of progress."""


@dataclass(frozen=True, slots=True)
class Result:
    """One figure. `versus` is in the same unit; `target` is the most that the ratio may be.

    `against` says what `versus` is: the other side of the comparison, or a stated limit.
    """

    name: str
    value: float
    unit: str
    versus: float | None = None
    against: str = ""
    target: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.versus if self.versus else None

    @property
    def verdict(self) -> str:
        """ "ok" or "over"; empty where nothing is promised."""
        if self.target is None or self.ratio is None:
            return ""
        return "ok" if self.ratio <= self.target else "over"


@dataclass(frozen=True, slots=True)
class Laboratory:
    """What benchmarks work with: the images, how QEMU runs here, how long to go on.

    `repeat`: None lets each benchmark choose; `directory` is for temporary files.
    """

    base: Image
    sci: Image
    accelerator: str
    repeat: int | None
    quick: bool
    directory: Path
    say: Say

    def times(self, usual: int, quick: int) -> int:
        """How often to repeat."""
        return self.repeat or (quick if self.quick else usual)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """`names`: the results that `run` gives, together."""

    names: tuple[str, ...]
    run: Callable[[Laboratory], list[Result]]
