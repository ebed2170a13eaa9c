"""Outputs that would overwrite each other on the host."""

from pathlib import Path, PurePosixPath

import pytest

from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.fake.driver import FakeDriver
from boincvm.hypervisor.fake.guest import FakeCall, FakeFile, FakeGuest
from boincvm.job.files import output_of_option
from boincvm.machine.job_files import copy_out
from boincvm.machine.managed import opened
from boincvm.machine.output_destinations import Found, distinct

pytestmark = pytest.mark.timeout(30)


def found(option: str, *matches: str) -> list[Found]:
    """Return what the option finds if these are the matches of its pattern."""
    asked = output_of_option(option, replaces=False)
    if not asked.is_pattern:
        return [Found(asked, asked)]
    paths = map(PurePosixPath, matches)
    return [
        Found(
            asked,
            asked._replace(
                source=path,
                destination=asked.destination / (path if asked.keeps_path else path.name),
                is_pattern=False,
            ),
        )
        for path in paths
    ]


@pytest.mark.parametrize(
    ("wanted", "clash"),
    [
        ([*found("a/*:r/", "a/x"), *found("b/*:r/", "b/x")], "b/x would be r/x, but output a/*"),
        ([*found("a/*:r/", "a/x"), *found("y:r/x")], "a/x would be r/x, but output y puts y"),
        ([*found("*", "d"), *found("y:d/x")], "y would be d/x, but output * puts d at d"),
        ([*found("y:d/x"), *found("e*:d/", "e/x")], "e/x would be d/x, but output y"),
        ([*found("y:d"), *found("*:d/", "x")], "x would be d/x, but output y puts y at d"),
    ],
)
def test_two_that_would_overwrite_each_other(wanted: list[Found], clash: str) -> None:
    items, errors = distinct(wanted)
    assert len(items) == 1
    assert [clash in error.message for error in errors] == [True]


def test_one_that_is_found_twice() -> None:
    wanted = [*found("*/x", "d/x"), *found("d*", "d"), *found("d/x"), *found("d/[x]", "d/x")]
    items, errors = distinct(wanted)
    assert [str(item.destination) for item in items] == ["d", "d/x"]
    assert errors == []


def test_what_the_job_names_is_accepted() -> None:
    items, errors = distinct([*found("d"), *found("y:d/x")])
    assert (len(items), errors) == (2, [])


async def test_the_first_one_comes_back(tmp_path: Path) -> None:
    async def shell(guest: FakeGuest, call: FakeCall) -> int:
        name = call.argv[-1].replace(b"*", b"x")
        guest.files[name] = FakeFile("file", 0o644, name)
        call.write("stdout", name + b"\0")
        return 0

    spec = MachineSpec(tmp_path / "machine", Path(), Path(), Path(), memory=1 << 20, cpus=1)
    results = tmp_path / "results"
    results.mkdir()
    outputs = [output_of_option(option, replaces=False) for option in ("a/*:r/", "b/*:r/")]
    async with opened(FakeDriver({"sh": shell}), spec) as machine:
        missing = await machine.guard(copy_out(machine.session, results, outputs))
    assert (results / "r/x").read_text() == "a/x"
    assert missing is not None
    assert "b/x would be r/x, but output a/* puts a/x at r/x" in missing.message
