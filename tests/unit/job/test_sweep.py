"""How the command line of `boincvm map` is read: inputs, combinations and placeholders."""

import argparse
import io
import sys
from pathlib import Path, PurePosixPath

import pytest

from boincvm.errors import InputFileError, UsageError
from boincvm.job import sweep
from boincvm.job.sweep import Item, expand, expand_command, job_of_item, read_sweep, unsent_file

ALONE = Item(7, ("data/a b.tar.gz",))
TWO = Item(2, ("x", "y z"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "data/a b.tar.gz"),
        ("{.}", "data/a b.tar"),
        ("{/}", "a b.tar.gz"),
        ("{//}", "data"),
        ("{/.}", "a b.tar"),
        ("{#}-{%}", "7-3"),
        ("{1/.}.png", "a b.tar.png"),
        ("{x} {} { }", "{x} data/a b.tar.gz { }"),
    ],
)
def test_a_placeholder(text: str, expected: str) -> None:
    assert expand(text, ALONE, "3") == expected


def test_placeholders_of_several_inputs() -> None:
    words = ["prog", "{}", "{2}", "--all={}", "{//}"]
    assert expand_command(words, TWO) == ["prog", "x", "y z", "y z", "--all=x y z", ". ."]


def values(*words: str) -> list[tuple[str, ...]]:
    return [item.values for item in read_sweep(("prog", *words)).items]


def test_lists_of_inputs(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"one\n\ntwo words\r\nlast \xff")
    assert values(":::", "1", "2") == [("1",), ("2",)]
    assert values(":::", "1", "2", ":::", "a", "b") == [
        ("1", "a"), ("1", "b"), ("2", "a"), ("2", "b"),
    ]  # fmt: skip
    assert values(":::", "1", "2", ":::+", "a", "b", "c") == [("1", "a"), ("2", "b")]
    assert values("::::", str(lines)) == [("one",), ("two words",), ("last \udcff",)]
    assert values(":::", "1", "::::+", str(lines), ":::", "x", "y") == [
        ("1", "one", "x"), ("1", "one", "y"),
    ]  # fmt: skip


def test_inputs_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ((), ("::::", "-")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1\n2\n")))
        assert values(*words) == [("1",), ("2",)]


def test_a_command_without_a_placeholder_gets_the_input_last() -> None:
    assert read_sweep(("prog", ":::", "1")).words == ("prog", "{}")
    assert read_sweep(("prog", "{#}", ":::", "1")).words == ("prog", "{#}")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((":::", "1"), "no command"),
        (("prog", ":::"), "no inputs"),
        (("prog", "{2}", ":::", "1"), "found {2}, but the inputs are 1 list, expected"),
        (("prog", "{0}", ":::", "1"), "found {0}"),
        (("prog", *[":::", *"0123456789"] * 7), "10000000 combinations"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_sweep(words)
    assert complaint in refused.value.message
    assert "boincvm map" in refused.value.hint


def test_a_file_of_inputs_that_is_missing_or_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputFileError, match="No such file"):
        read_sweep(("prog", "::::", str(tmp_path / "no-such")))
    monkeypatch.setattr(sweep, "_MOST_BYTES", 10)
    (tmp_path / "long").write_text("x" * 11)
    with pytest.raises(InputFileError, match="more than"):
        read_sweep(("prog", "::::", str(tmp_path / "long")))


def arguments(**given: object) -> argparse.Namespace:
    names = "input output env stdin directory publish image memory cpus disk network"
    limits = "boot_limit silence_limit time_limit"
    nothing = dict.fromkeys(f"{names} {limits}".split())
    return argparse.Namespace(**{**nothing, "replace": False, **given})


def test_the_job_of_an_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prog.sh").touch()
    given = arguments(
        input=["common", "{1}.csv"], output=["{1}-{2}.out"], env=["SEED={#}"], stdin="{2}.in"
    )
    command = read_sweep(("./prog.sh", "{1}", "{2}", ":::", "a", "b", ":::", "8", "9"))
    job = job_of_item(given, command, command.items[2], "1")
    (task,) = job.tasks
    assert task.argv == ("./prog.sh", "b", "8")
    assert dict(task.environment) == {"SEED": "3"}
    assert task.stdin == Path("8.in")
    assert [str(file.source) for file in job.inputs] == ["common", "b.csv", "prog.sh"]
    assert [file.destination for file in job.outputs] == [PurePosixPath("b-8.out")]


def test_results_are_inputs_only_if_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is here is a natural input, and what other items write meanwhile is not."""
    monkeypatch.chdir(tmp_path)
    for name in ("data", "results"):
        (tmp_path / name).mkdir()
    command = read_sweep(("prog", ":::", "1"))

    def sources(*inputs: str, results: Path | None = Path("results")) -> list[str]:
        given = arguments(input=list(inputs), results=results)
        return [
            str(file.source) for file in job_of_item(given, command, command.items[0], "1").inputs
        ]

    assert sources(".") == sources(".", results=tmp_path / "results") == ["data"]
    assert sources("*") == ["data"]
    assert sources("./results/") == ["results"]
    assert sources(".", results=None) == ["data", "results"]


def test_an_option_that_is_wrong_for_one_input() -> None:
    command = read_sweep(("prog", ":::", "/etc/x"))
    with pytest.raises(UsageError, match="a path beneath the job's directory") as refused:
        job_of_item(arguments(output=["{}"]), command, command.items[0], "1")
    assert "boincvm map" in refused.value.hint
    with pytest.raises(UsageError, match=r"found \{3\}"):
        job_of_item(arguments(output=["{3}"]), command, command.items[0], "1")


@pytest.mark.parametrize(
    ("words", "inputs", "found"),
    [
        (("./ana", "{}", ":::", "m.csv"), (), ("m.csv", "{}")),
        (("./ana", ":::", "m.csv"), (), ("m.csv", "{}")),
        (("./ana", "{.}.csv", ":::", "m.x"), (), ("m.csv", "'{.}.csv'")),
        (("./ana", "{}", ":::", "1", ":::", "m.csv"), (), ("m.csv", "{2}")),
        (("./ana", "m.csv", "{}", ":::", "1"), (), ("m.csv", "m.csv")),
        (("./ana", "{}", ":::", "m.csv"), ("{}",), None),
        (("./ana", "{}", ":::", "absent"), (), None),
    ],
)
def test_a_file_that_an_input_names_and_nobody_sends(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    inputs: tuple[str, ...],
    found: tuple[str, str] | None,
) -> None:
    (tmp_path / "m.csv").touch()
    (tmp_path / "ana").touch()
    monkeypatch.chdir(tmp_path)
    command = read_sweep(words)
    assert unsent_file(arguments(input=list(inputs)), command, command.items[0]) == found
