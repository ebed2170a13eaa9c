"""What the user sees of a sweep: lines for each input, output in order, a summary."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

from boincvm.job.sweep import Item
from boincvm.runner.sweep_report import TextReport
from boincvm.runner.sweep_results import ItemEnd, SweepResults

pytestmark = pytest.mark.timeout(30)


class Reported:
    """A report on items that end as the test defines."""

    def __init__(
        self,
        directory: Path,
        count: int,
        ended_before: Mapping[int, int] | None = None,
        log: BinaryIO | None = None,
        **options: bool,
    ) -> None:
        self.directory = directory
        items = [Item(number, (str(number),)) for number in range(1, count + 1)]
        self.items = {item.number: item for item in items}
        results = SweepResults(
            directory, lambda item: f"prog {item.number}", log, ended_before or {}
        )
        given = {"keeps_order": False, "is_json": False, "is_quiet": False, "on_terminal": False}
        self.report = TextReport(items, results, **{**given, **options})

    async def end(self, number: int, code: int = 0, message: str = "", hint: str = "") -> None:
        directory = self.directory / str(number)
        directory.mkdir()
        (directory / "stdout").write_text(f"output {number}\n")
        item = self.items[number]
        self.report.begin(item)
        await self.report.end(
            ItemEnd(
                item, ("prog", str(number)), directory, code,
                seconds=1.5, message=message, hint=hint,
            )
        )  # fmt: skip


async def test_a_line_for_each_and_the_failures_at_the_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reported = Reported(tmp_path, 3)
    await reported.end(2, 7)
    await reported.end(1, 197, "it ran too long", "allow more")
    await reported.report.finish()
    output, errors = capfd.readouterr()
    assert output == "output 2\noutput 1\n"
    lines = errors.splitlines()
    assert lines[0].startswith(
        "boincvm: prog 2: failed (7) in 1.5 s (0 done, 1 failed, 2 left, about "
    )
    assert lines[0].endswith(" to go)")
    assert lines[1].startswith("boincvm: prog 1: failed (197) in 1.5 s (0 done, 2 failed, 1 left")
    assert lines[2:] == [
        "  it ran too long",
        "  allow more",
        "boincvm: failed (197): 1: prog 1",
        "boincvm: failed (7): 2: prog 2",
        "boincvm: 0 done, 2 failed, 1 not run",
    ]
    assert list(tmp_path.iterdir()) == []  # nothing is kept


async def test_where_the_results_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for is_quiet in (False, True):
        directory = tmp_path / str(is_quiet)
        directory.mkdir()
        with (directory / "log").open("ab") as log:
            reported = Reported(directory, 1, log=log, is_quiet=is_quiet)
            await reported.end(1)
            await reported.report.finish()
        is_shown = f"boincvm: the results are in {directory}" in capfd.readouterr().err.splitlines()
        assert is_shown is not is_quiet


async def test_no_line_once_all_have_ended(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reported = Reported(tmp_path, 1, on_terminal=True)
    await reported.end(1)
    assert "starting machines" not in capfd.readouterr().err


async def test_the_line_between_two_inputs_tells_of_no_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The machines have started long ago, or each input has its own."""
    reported = Reported(tmp_path, 2, on_terminal=True)
    await reported.end(1)
    errors = capfd.readouterr().err
    assert "boincvm: 0 running, 1 done, 0 failed, 1 left" in errors
    assert "starting machines" not in errors


async def test_output_in_the_order_of_the_inputs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reported = Reported(tmp_path, 4, keeps_order=True, is_quiet=True)
    for number, printed in ((2, ""), (1, "output 1\noutput 2\n"), (4, "")):
        await reported.end(number)
        assert capfd.readouterr().out == printed
    await reported.report.finish()  # the third was interrupted
    output, errors = capfd.readouterr()
    assert output == "output 4\n"
    assert errors == "boincvm: 3 done, 0 failed, 1 not run\n"


async def test_results_in_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reported = Reported(tmp_path, 2, is_json=True)
    await reported.end(1)
    await reported.end(2, 212, "no such file", "name another")
    await reported.report.finish()
    output, errors = capfd.readouterr()
    first, second = map(json.loads, output.splitlines())
    assert first == {
        "number": 1, "inputs": ["1"], "command": ["prog", "1"], "exit_code": 0, "seconds": 1.5,
        "stdout": "output 1\n", "stderr": "",
    }  # fmt: skip
    assert second["error"] == {"message": "no such file", "hint": "name another"}
    assert errors == ""
    assert reported.report.summary() == {"done": 1, "failed": 1, "left": 0}


async def test_the_line_on_a_terminal_gives_way_to_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reported = Reported(tmp_path, 2, on_terminal=True)
    reported.report.open()
    begun = capfd.readouterr().err
    assert "boincvm: starting machines, 0 done, 0 failed, 2 left; " in begun
    assert begun.endswith("s so far")
    await reported.end(1)
    reported.report.close()
    errors = capfd.readouterr().err
    assert "boincvm: 1 running, 0 done, 0 failed, 2 left" in errors
    assert "\r\x1b[Kboincvm: prog 1: done in 1.5 s" in errors
    assert errors.endswith("\r\x1b[K")


async def test_a_sweep_that_goes_on_tells_what_failed_before(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {number: 3 if number % 2 else 0 for number in range(10, 60)}
    reported = Reported(tmp_path, 1, {7: 1, **before}, is_quiet=True)
    await reported.end(1)
    await reported.report.finish()
    first, hint = capfd.readouterr().err.splitlines()
    assert first.startswith("boincvm: not run again, 26 inputs that failed before: 7 (1), 11 (3), ")
    assert first.endswith(" and 6 more")
    assert "--resume-failed" in hint
    assert reported.report.summary() == {"done": 1, "failed": 0, "left": 0, "failed_before": 26}

    await Reported(tmp_path, 0, {1: 0, 2: 7}).report.finish()
    assert capfd.readouterr().err.splitlines() == [
        "boincvm: all inputs have ended before: nothing was left to run",
        "boincvm: not run again, an input that failed before: 2 (7)",
        hint,
    ]
    await Reported(tmp_path, 0, {1: 0}, is_json=True).report.finish()
    assert capfd.readouterr().err == ""
