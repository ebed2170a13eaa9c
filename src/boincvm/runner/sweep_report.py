"""Tells the user how a sweep proceeds, and prints what its programs have written."""

import asyncio
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import monotonic

from boincvm.durations import format_duration
from boincvm.errors import BoincvmError
from boincvm.guestlink.display import printable, shown
from boincvm.host.files import open_regular, read_regular
from boincvm.job.sweep import Item
from boincvm.machine.streams import DescriptorSink
from boincvm.runner.status_line import StatusLine
from boincvm.runner.sweep_results import STDERR, STDOUT, ItemEnd, SweepResults
from boincvm.standard_error import write_line

_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2
_PIECE = 1 << 16
_CAPTURED = 1 << 20
"""Bytes of each stream of a program that a result in JSON has."""
_MOST_SHOWN = 20
"""Failures that the summary names."""
_LONGEST_COMMAND = 60


class TextReport:
    """Writes one line for each item to standard error, and counts the results.

    What an item's program has written is printed when it has ended, so that programs do not mix.
    """

    def __init__(
        self,
        items: Sequence[Item],
        results: SweepResults,
        *,
        keeps_order: bool,
        is_json: bool,
        is_quiet: bool,
        on_terminal: bool,
    ) -> None:
        """Take the items that will run, in their order."""
        self._results = results
        self._keeps_order = keeps_order
        self._is_json = is_json
        self._is_quiet = is_quiet
        self._line = StatusLine(self._status) if on_terminal and not is_quiet else None
        self._order = [item.number for item in items]
        self._count = len(items)
        self._printed = 0
        """Items whose output has been printed, when the order is kept."""
        self._waiting: dict[int, ItemEnd] = {}
        self._printing = asyncio.Lock()
        self._begin = monotonic()
        self._running: set[int] = set()
        self.done = 0
        """Items that have succeeded."""
        self.failures: list[ItemEnd] = []

    @property
    def left(self) -> int:
        """Return how many items have not ended."""
        return self._count - self.done - len(self.failures)

    def open(self) -> None:
        """Show on a terminal from now on how the sweep proceeds: its machines start."""
        self._draw()

    def begin(self, item: Item) -> None:
        self._running.add(item.number)
        self._draw()

    async def end(self, end: ItemEnd) -> None:
        self._running.discard(end.item.number)
        if end.exit_code == 0:
            self.done += 1
        else:
            self.failures.append(end)
        self._show_end(end)
        async with self._printing:
            if not self._keeps_order:
                await self._print(end)
                return
            self._waiting[end.item.number] = end
            while self._printed < self._count:
                following = self._waiting.pop(self._order[self._printed], None)
                if following is None:
                    break
                self._printed += 1
                await self._print(following)

    def note(self, text: str) -> None:
        self._clear()
        write_line(f"boincvm: {text}")
        self._draw()

    async def finish(self) -> None:
        """Print what still waits for items that have not ended, and name those that failed."""
        async with self._printing:
            for number in sorted(self._waiting):
                await self._print(self._waiting.pop(number))
        self._clear()
        if self._is_json:
            return
        failures = sorted(self.failures, key=lambda end: end.item.number)
        for end in failures[:_MOST_SHOWN] if self._count > 1 else ():
            write_line(f"boincvm: failed ({end.exit_code}): {end.item.number}: {_command(end)}")
        if len(self.failures) > _MOST_SHOWN:
            write_line(f"boincvm: and {len(self.failures) - _MOST_SHOWN} more")
        if (self.failures or self.left) and self._count > 1:
            parts = [f"{self.done} done", f"{len(self.failures)} failed"]
            parts += [f"{self.left} not run"] if self.left else []
            write_line(f"boincvm: {', '.join(parts)}")
            if self._results.are_kept:
                again = "--resume" if self.left else "--resume-failed"
                write_line(f"  the same command with {again} runs the others")
        if self._results.are_kept and self._count and not self._is_quiet:
            write_line(f"boincvm: the results are in {shown(self._results.directory)}")
        self._show_ended_before()

    def _show_ended_before(self) -> None:
        """Tell what an earlier sweep leaves no work for, and what has failed in it."""
        failures = sorted(self._failed_before())
        if self._count == 0 and not self._is_quiet and self._results.ended_before:
            write_line("boincvm: all inputs have ended before: nothing was left to run")
        if failures:
            shown = ", ".join(
                f"{number} ({self._results.ended_before[number]})"
                for number in failures[:_MOST_SHOWN]
            )
            more = len(failures) - _MOST_SHOWN
            shown += f" and {more} more" if more > 0 else ""
            what = "an input" if len(failures) == 1 else f"{len(failures)} inputs"
            write_line(f"boincvm: not run again, {what} that failed before: {shown}")
            write_line("  the same command with --resume-failed runs what has failed")

    def _failed_before(self) -> list[int]:
        return [number for number, code in self._results.ended_before.items() if code]

    def close(self) -> None:
        """Remove the line on the terminal, whatever has happened."""
        self._clear()

    # What standard error gets.

    def _show_end(self, end: ItemEnd) -> None:
        self._clear()
        has_failed = end.exit_code != 0
        if not self._is_json and (has_failed or not self._is_quiet):
            how = f"failed ({end.exit_code})" if has_failed else "done"
            line = f"boincvm: {_command(end)}: {how} in {end.seconds:.1f} s"
            write_line(line if self._is_quiet else f"{line} ({self._counts()})")
            if end.message:
                write_line(f"  {end.message}")
            if end.hint:
                write_line(f"  {end.hint}")
        self._draw()

    def _counts(self) -> str:
        ended = self.done + len(self.failures)
        parts = [f"{self.done} done", f"{len(self.failures)} failed", f"{self.left} left"]
        if self.left and ended:
            rest = (monotonic() - self._begin) / ended * self.left
            parts.append(f"about {_duration(rest)} to go")
        return ", ".join(parts)

    def _status(self) -> str:
        has_begun = self._running or self.done or self.failures
        what = f"{len(self._running)} running" if has_begun else "starting machines"
        return f"boincvm: {what}, {self._counts()}; {_duration(monotonic() - self._begin)} so far"

    def _draw(self) -> None:
        if self._line is not None and self.left:  # the last machines end without a word
            self._line.draw()

    def _clear(self) -> None:
        if self._line is not None:
            self._line.clear()

    # What standard output gets.

    async def _print(self, end: ItemEnd) -> None:
        """Print what the program has written. Raises OutputClosedError, HostError."""
        self._clear()
        if self._is_json:
            line = json.dumps(self._table(end)).encode() + b"\n"
            await _write(_STANDARD_OUTPUT, [line])
        else:
            for name, descriptor in ((STDOUT, _STANDARD_OUTPUT), (STDERR, _STANDARD_ERROR)):
                await _copy(end.directory / name, descriptor)
        self._results.forget(end)
        self._draw()

    def _table(self, end: ItemEnd) -> dict[str, object]:
        table: dict[str, object] = {
            "number": end.item.number,
            "inputs": list(end.item.values),
            "command": list(end.command),
            "exit_code": end.exit_code,
            "seconds": round(end.seconds, 3),
        }
        if end.host:
            table["host"] = end.host
        if end.signal:
            table["signal"] = end.signal
        if end.message:
            name = "error" if end.exit_code else "note"
            table[name] = (
                {"message": end.message, "hint": end.hint} if end.exit_code else end.message
            )
        if self._results.are_kept:
            table["results"] = str(end.directory)
        for name in (STDOUT, STDERR):
            path = end.directory / name
            data = read_regular(path, _CAPTURED + 1) if path.exists() else b""
            table[name] = data[:_CAPTURED].decode(errors="replace")
            if len(data) > _CAPTURED:
                table[f"{name}_truncated"] = True
        return table

    def summary(self) -> dict[str, object]:
        """Return the counts, as the last line of the results in JSON."""
        counts = {"done": self.done, "failed": len(self.failures), "left": self.left}
        before = len(self._failed_before())
        return {**counts, "failed_before": before} if before else {**counts}


async def _copy(path: Path, descriptor: int) -> None:
    """Write the content of a program's output file to `descriptor`, if it has written any."""
    if not path.exists():
        return
    with open_regular(path) as file:
        await _write(descriptor, iter(lambda: file.read(_PIECE), b""))


async def _write(descriptor: int, pieces: Iterable[bytes]) -> None:
    """Write `pieces` to `descriptor`, at the pace of its reader.

    Raises OutputClosedError, HostDiskFullError, HostError.
    """
    failures: list[BoincvmError] = []
    sink = DescriptorSink(descriptor, lambda _: None, failures.append)
    for piece in pieces:
        sink.write(piece)
        await sink.flush()
        if failures:
            raise failures[0]


def _command(end: ItemEnd) -> str:
    text = printable(shlex.join(end.command).encode(errors="surrogateescape"))
    return text if len(text) <= _LONGEST_COMMAND else text[: _LONGEST_COMMAND - 1] + "…"


def _duration(seconds: float) -> str:
    return format_duration(float(round(seconds)))
