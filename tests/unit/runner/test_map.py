"""What `boincvm map` tells beside the ends of its inputs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pytest

from boincvm.job.sweep import Item, read_sweep
from boincvm.runner.map import MapOptions, run_sweep
from boincvm.runner.sweep_report import TextReport
from boincvm.runner.sweep_results import ItemEnd, Resume, SweepResults

pytestmark = pytest.mark.timeout(30)
_OPTIONS = (
    "input output env stdin directory image memory cpus disk network boot_limit silence_limit"
    " time_limit"
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def run(
    code: int, *, is_json: bool = False, is_quiet: bool = False, resume: Resume = Resume.NONE
) -> None:
    """Run a sweep whose items all end with `code`, on files that exist and are not sent."""
    sweep = read_sweep(("prog", "{}", ":::", "m1.csv", "m2.csv"))
    arguments = argparse.Namespace(**dict.fromkeys(_OPTIONS.split()), replace=False)
    results = None if resume is Resume.NONE else Path("results")
    options = MapOptions(None, None, results, resume, False, is_json, is_quiet, False)

    async def run_items(items: Sequence[Item], results: SweepResults, report: TextReport) -> None:
        for item in items:
            end = ItemEnd(item, ("prog", *item.values), results.make_directory(item), code)
            results.record(end)
            await report.end(end)

    assert run_sweep(sweep, arguments, options, run_items) == (2 if code else 0)


def test_inputs_that_were_forgotten(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    line = (
        "boincvm: 'm1.csv' exists here, but was not sent to the machine\n  send it with --input {}"
    )
    run(1)
    assert "exists here" not in capfd.readouterr().err
    for name in ("m1.csv", "m2.csv"):
        (tmp_path / name).touch()
    run(1)
    errors = capfd.readouterr().err
    assert errors.endswith(f"{line}\n")
    assert errors.count("exists here") == 1
    run(0)
    run(1, is_json=True)
    assert "exists here" not in capfd.readouterr().err


def test_nothing_to_go_on_from(capfd: pytest.CaptureFixture[str]) -> None:
    line = "boincvm: no results to go on from in "
    run(1, resume=Resume.UNFINISHED)
    assert line in capfd.readouterr().err
    run(1, resume=Resume.FAILED)
    assert line not in capfd.readouterr().err


def test_nothing_to_go_on_from_is_no_failure(capfd: pytest.CaptureFixture[str]) -> None:
    run(0, resume=Resume.UNFINISHED, is_quiet=True)
    assert capfd.readouterr().err == ""
