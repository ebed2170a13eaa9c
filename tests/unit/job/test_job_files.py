"""Where inputs are placed and what outputs may be named."""

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.errors import ProgramStartError
from boincvm.job.files import (
    check_program,
    input_file,
    input_files,
    output_file,
    output_of_option,
    own_program_hint,
    relative_path,
    repeated_destination,
    unsent_files,
)
from boincvm.job.model import Job, MachineShape, MachineTask, OutputFile
from boincvm.job.values import UnexpectedValueError

HERE = Path("/home/ann/jobs")


@pytest.mark.parametrize(
    ("text", "lands_at"),
    [
        ("data.txt", "data.txt"),
        ("./data.txt", "data.txt"),
        ("a//b/./c", "a/b/c"),
        ("a/../b", "b"),
        ("tree/", "tree"),
        ("..x/y", "..x/y"),
        ("a b\nc", "a b\nc"),
        ("/etc/passwd", "passwd"),
        ("/home/ann/jobs/a/b", "b"),
        ("//net/x", "x"),
        ("../other/data.txt", "data.txt"),
        ("a/../../other", "other"),
    ],
)
def test_an_input(text, lands_at):
    file = input_file(text, HERE)
    assert file.destination == PurePosixPath(lands_at)
    assert file.source == Path(text)


@pytest.mark.parametrize(
    "text", ["", ".", "./", "a/..", "/", "../../..", "a\0b", "/..", "..", "a/../.."]
)
def test_an_input_without_a_name_of_its_own(text):
    with pytest.raises(UnexpectedValueError):
        input_file(text, HERE)


def test_a_relative_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert input_file("../a/../b/", Path()).destination == PurePosixPath("b")


@given(st.text(alphabet="ab./ \n\0", min_size=0, max_size=12))
def test_no_text_makes_a_destination_that_leads_out(text):
    for make in (lambda: input_file(text, HERE).destination, lambda: output_file(text).destination):
        try:
            destination = make()
        except UnexpectedValueError:
            continue
        assert not destination.is_absolute()
        assert destination.parts
        assert ".." not in destination.parts
        assert "\0" not in str(destination)
        assert os.path.normpath(f"/job/{destination}").startswith("/job/")


def test_an_output():
    file = output_file("out/./a b")
    assert file.source == file.destination == PurePosixPath("out/a b")


@pytest.mark.parametrize("text", ["", ".", "..", "/", "/x", "a/../b", "a\0", 7])
def test_what_is_not_beneath(text):
    with pytest.raises(UnexpectedValueError):
        relative_path(text)


def test_repetition():
    paths = [PurePosixPath(text) for text in ("a", "b", "a/b", "./b")]
    assert repeated_destination(paths) == 3
    assert repeated_destination(paths[:3]) is None


@pytest.mark.parametrize(
    ("program", "name"),
    [("ecm", "ecm"), ("./a", "./a"), ("/usr/bin/a", "/usr/bin/a"), ("/work/d/a", "d/a")],
)
def test_a_program_is_called_as_its_job_calls_it(program, name):
    assert MachineTask((program, "x")).name == name


def test_a_job_with_one_machine_has_the_machine():
    job = Job((), Path(), {"a": MachineShape(cpus=2)})
    assert job.machine == MachineShape(cpus=2)
    with pytest.raises(ValueError, match="unpack"):
        _ = job._replace(machines={**job.machines, "b": MachineShape()}).machine


def test_files_that_were_forgotten(tmp_path):
    for name in ("sent.txt", "forgotten.txt", "tree/in.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    argv = ("cat", "sent.txt", "forgotten.txt", "tree/in.txt", "nowhere.txt", "-n", "a\0b")
    sent = tuple(input_file(name, tmp_path) for name in ("sent.txt", "tree"))
    job = Job(tasks=(MachineTask(argv),), directory=tmp_path, inputs=sent)
    assert unsent_files(job) == ["forgotten.txt"]


def test_inputs_by_pattern_and_all_of_them(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", ".hidden", "c.txt", "[x]"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/d.csv").touch()

    def names(text: str) -> list[str]:
        return [str(file.destination) for file in input_files(text, tmp_path)]

    assert names("*.csv") == ["a.csv", "b.csv"]
    assert names("sub/*") == ["sub/d.csv"]
    assert names(f"{tmp_path}/*.csv") == ["a.csv", "b.csv"]
    assert names(".") == names("./") == [".hidden", "[x]", "a.csv", "b.csv", "c.txt", "sub"]
    assert names("[x]") == ["[x]"]  # it exists
    assert names("*.none") == ["*.none"]  # the transfer says that it does not


@pytest.mark.parametrize(
    ("text", "source", "destination", "is_pattern", "keeps_path"),
    [
        ("a/b", "a/b", "a/b", False, True),
        ("a/b:c", "a/b", "c", False, False),
        ("a/b:c/", "a/b", "c/b", False, False),
        ("a/*", "a/*", ".", True, True),
        ("a/*:c", "a/*", "c", True, False),
        ("colon:", "colon:", "colon:", False, True),
        (":colon", ":colon", ":colon", False, True),
    ],
)
def test_an_output_of_the_command_line(
    text: str, source: str, destination: str, is_pattern: bool, keeps_path: bool
) -> None:
    output = output_of_option(text, replaces=True)
    assert output == OutputFile(
        PurePosixPath(source), PurePosixPath(destination), is_pattern, keeps_path, replaces=True
    )


@pytest.mark.parametrize(
    ("program", "inputs", "directory", "is_refused"),
    [
        ("./nosuch", [], None, True),
        ("bin/nosuch", ["./here"], None, True),
        ("./here", [], None, False),
        ("./nosuch", ["/elsewhere/nosuch"], None, False),
        ("bin/nosuch", ["bin"], None, False),
        ("./nosuch", [], "sub", False),
        ("a/../nosuch", [], None, False),
        ("/nosuch", [], None, False),
        ("nosuch", [], None, False),
    ],
)
def test_a_program_that_cannot_be_in_the_guest(
    tmp_path: Path, program: str, inputs: list[str], directory: str | None, is_refused: bool
) -> None:
    (tmp_path / "here").touch()
    where = None if directory is None else PurePosixPath(directory)
    task = MachineTask((program,), directory=where)
    sent = tuple(input_file(text, tmp_path) for text in inputs)
    job = Job((task,), tmp_path, inputs=sent)
    if not is_refused:
        check_program(job)
        return
    with pytest.raises(ProgramStartError, match="does not exist in") as refused:
        check_program(job)
    assert program in refused.value.message
    assert refused.value.exit_code == 127


def test_a_script_that_names_no_interpreter_is_an_input_of_one(tmp_path: Path) -> None:
    def hint(name: str) -> str:
        return own_program_hint(Job((MachineTask((name,)),), tmp_path), MachineTask((name,)))

    assert hint("analyse.py") == ""  # not here
    (tmp_path / "analyse.py").write_text("print(1)\n")
    assert hint("analyse.py") == (
        "there is 'analyse.py', a script: hand it in, and name the program that reads it:"
        " --input analyse.py -- python3 analyse.py"
    )
    (tmp_path / "analyse.py").write_text("#!/usr/bin/python3\n")
    assert hint("analyse.py").startswith("there is './analyse.py', did you mean that?")


def test_what_a_program_that_is_named_by_a_path_lacks(tmp_path: Path) -> None:
    def hint(program: str, directory: str | None = None) -> str:
        where = None if directory is None else PurePosixPath(directory)
        task = MachineTask((program,), directory=where)
        return own_program_hint(Job((task,), tmp_path), task)

    assert hint("./prog") == (
        "an input, or an earlier program, must bring it; its path begins in the job's directory"
    )
    assert hint("./prog", "sub").endswith("begins in 'sub', where the program starts")
    assert hint("/opt/prog") == hint("prog") == hint("prog", "sub") == ""
