"""job.toml: valid files become a Job; anything else becomes a JobFileError."""

import re
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boincvm.errors import JobFileError
from boincvm.exit_codes import ExitCode
from boincvm.job import toml
from boincvm.job.model import (
    GIB,
    MIB,
    CheckpointNeed,
    DriverRequest,
    InputFile,
    Job,
    Limits,
    MachineShape,
    MachineTask,
    OutputFile,
)
from boincvm.job.toml import read_job

DOCS = Path(__file__).parents[3] / "docs"
MESSAGE = re.compile(r"[^\n]*job\.toml:\d+: found [^\n]+, expected [^\n]+")


@pytest.fixture
def written(tmp_path):
    def write(content: str | bytes) -> Path:
        path = tmp_path / "job.toml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_the_smallest_job_has_the_models_defaults(written):
    path = written('[[task]]\ncommand = ["uname", "-a"]\n')
    assert read_job(path) == Job(tasks=(MachineTask(argv=("uname", "-a")),), directory=path.parent)


def test_the_manuals_whole_example(written):
    example = (DOCS / "job-toml.md").read_text().split("```toml\n")[2].split("```")[0]
    path = written(example)
    assert read_job(path) == Job(
        tasks=(
            MachineTask(
                argv=("ecm", "-c", "10", "1e5"),
                stdin=Path("number.txt"),
                stdout=Path("factors.txt"),
                time_limit=7200.0,
            ),
            MachineTask(
                argv=(
                    "sh",
                    "-c",
                    "wc -c tables/small.bin > result.txt; mkdir logs; date > logs/end",
                ),
                environment={"LC_ALL": "C", "OMP_NUM_THREADS": "2"},
                time_limit=7200.0,
            ),
        ),
        directory=path.parent,
        machines={"": MachineShape(image="sci", memory=GIB, cpus=2, disk=8 * GIB, network=False)},
        inputs=(
            InputFile(Path("number.txt"), PurePosixPath("number.txt")),
            InputFile(Path("/data/tables/small.bin"), PurePosixPath("tables/small.bin")),
        ),
        outputs=(
            OutputFile(PurePosixPath("result.txt"), PurePosixPath("result.txt")),
            OutputFile(PurePosixPath("logs"), PurePosixPath("results/logs")),
        ),
        limits=Limits(boot=120.0),
        name="factors-1e5",
    )


def test_the_manuals_smallest_example(written):
    example = (DOCS / "job-toml.md").read_text().split("```toml\n")[1].split("```")[0]
    assert read_job(written(example)).tasks[0].argv == ("uname", "-a")


def test_every_other_key(written):
    job = read_job(
        written(
            '[machine]\nmemory="64M"\nnetwork=true\ncheckpoint="none"\ndriver="uml"\n'
            '[limits]\nrun=0.5\nboot="1m30s"\nsilence=3\nstop="250s"\n'
            '[[task]]\ncommand="a \'b c\' \\"\\""\nstderr="e/f"\ndirectory="/srv/x"\n'
            'environment.EMPTY=""\n'
        )
    )
    assert job.machine == MachineShape(memory=64 * MIB, network=True)
    assert job.driver_request() == DriverRequest("uml", CheckpointNeed.NONE)
    assert job.limits == Limits(boot=90.0, silence=3.0, stop=250.0)
    assert job.tasks == (
        MachineTask(
            argv=("a", "b c", ""),
            environment={"EMPTY": ""},
            directory=PurePosixPath("/srv/x"),
            stderr=Path("e/f"),
            time_limit=0.5,
        ),
    )


@pytest.mark.parametrize("text", ["0000:0A:1f.7", "0a:1F.7"])
def test_a_graphics_card(written, text):
    job = read_job(written(f"machine.gpu = '{text}'{TASK}"))
    assert job.gpu == "0000:0a:1f.7"
    assert job.machine == MachineShape()


def test_outputs_by_pattern(written):
    path = written(
        "files.output = ['plots/*.png', 'run?.log', 'a[1]', {pattern='[0-9]*', to='numbers/'},"
        f" {{from='*', to='star'}}]{TASK}stdout = 'run1.log'"
    )
    star, plots = PurePosixPath("*"), PurePosixPath("plots/*.png")
    here = PurePosixPath()
    assert read_job(path).outputs == (
        OutputFile(plots, here, is_pattern=True),
        OutputFile(PurePosixPath("run?.log"), here, is_pattern=True),
        OutputFile(PurePosixPath("a[1]"), PurePosixPath("a[1]")),
        OutputFile(
            PurePosixPath("[0-9]*"), PurePosixPath("numbers"), is_pattern=True, keeps_path=False
        ),
        OutputFile(star, PurePosixPath("star")),
    )


def test_names_may_hold_blanks(written):
    job = read_job(written('files.input=["a b/c d"]\n[[task]]\ncommand="x"\n'))
    assert job.inputs[0].destination == PurePosixPath("a b/c d")


def test_line_ends_of_windows(written):
    path = written(b'[machine]\r\ncpus = 2\r\nmemory = 3\r\n[[task]]\r\ncommand = "x"\r\n')
    with pytest.raises(JobFileError, match=r"job\.toml:3: found 3, "):
        read_job(path)


def test_the_directory_is_absolute(written, monkeypatch):
    path = written('[[task]]\ncommand="x"')
    monkeypatch.chdir(path.parent)
    assert read_job(Path("job.toml")).directory == path.parent


TASK = '\n[[task]]\ncommand = "x"\n'
FAULTS = {
    "": (1, "no task", "at least one [[task]]"),
    "task = 3": (1, "3", "tables, each beginning with [[task]]"),
    '[task]\ncommand = "x"': (1, "a table", "tables, each beginning with [[task]]"),
    "[[task]]\n[[task]]": (1, "no command", "the key command"),
    f'{TASK}[[task]]\nstdin = "x"': (4, "no command", "the key command"),
    "\ntask = [\n 1,\n]": (3, "1", "a table"),
    "[[task]]\ncommand = []": (2, "no program to run", "a command"),
    "[[task]]\ncommand = ''": (2, "no program to run", "a command"),
    "[[task]]\ncommand = 'a \"b'": (2, "'a \"b'", "a command"),
    "[[task]]\ncommand = ['a', 7]": (2, "7", "a text in quotes"),
    "[[task]]\ncommand = ['a', 'b\\n']\n[[task]]\ncommand = 4": (4, "4", "a command"),
    '[[task]]\ncommand = ["a\\u0000"]': (2, r"'a\x00'", "a text without a NUL"),
    f"machine = 1{TASK}": (1, "1", "a table"),
    f"[machine]\n\nmemory = 512{TASK}": (3, "512", "a size from 64.0 MiB to 1.0 TiB"),
    f"[machine]\nmemory = '63M'{TASK}": (2, "'63M'", "a size from 64.0 MiB"),
    f"[machine]\nmemory = '2T'{TASK}": (2, "'2T'", "a size from 64.0 MiB"),
    f"[machine]\nmemory = '{'9' * 400}G'{TASK}": (2, "'9999", "a size from 64.0 MiB"),
    f"[machine]\nmemory = '500\u212a'{TASK}": (2, "'500", "a size from 64.0 MiB"),
    f"[machine]\ndisk = '1M'{TASK}": (2, "'1M'", "a size from 64.0 MiB to 16.0 TiB"),
    f"[machine]\ncpus = 0{TASK}": (2, "0", "a whole number from 1 to 256"),
    f"[machine]\ncpus = true{TASK}": (2, "true", "a whole number from 1 to 256"),
    f"[machine]\ncpus = 257{TASK}": (2, "257", "a whole number from 1 to 256"),
    f"[machine]\ncpus = 0x{'f' * 5000}{TASK}": (2, "a very large number", "a whole number"),
    f"[machine]\nnetwork = 'no'{TASK}": (2, "'no'", "true or false"),
    f"[machine]\ncheckpoint = 'no'{TASK}": (2, "'no'", "'required', 'wanted' or 'none'"),
    f"[machine]\ncheckpoint = false{TASK}": (2, "false", "a text in quotes"),
    f"[machine]\ngpu = '01:00'{TASK}": (2, "'01:00'", "the address of a PCI device, like"),
    f"[machine]\ngpu = '0000:01:20.0'{TASK}": (2, "'0000:01:20.0'", "the address of a PCI device"),
    f"[machine]\ngpu = '01:00.0,x=y'{TASK}": (2, "'01:00.0,x=y'", "the address of a PCI device"),
    f'[machine]\ngpu = "01:00.0\\n"{TASK}': (2, "'01:00.0", "the address of a PCI device"),
    f"[machine]\ngpu = true{TASK}": (2, "true", "the address of a PCI device"),
    f"[machine]\ncheckpoint = 'required'\ngpu = '01:00.0'{TASK}": (
        3,
        "both gpu and checkpoint = 'required'",
        "one of them: a machine with a graphics card",
    ),
    f"[machine]\ndriver = '../up'{TASK}": (2, "'../up'", "the name of a driver"),
    f"[machine]\ndriver = ''{TASK}": (2, "''", "the name of a driver"),
    f"[machine]\nimage = '../up'{TASK}": (2, "'../up'", "an image's name"),
    f"[machine]\nimage = 1979-05-27{TASK}": (2, "a date or time", "a text in quotes"),
    f"[limits]\nrun = 0{TASK}": (2, "0", "a duration above 0"),
    f"[limits]\nrun = nan{TASK}": (2, "nan", "a duration above 0"),
    f"[limits]\nboot = inf{TASK}": (2, "inf", "a duration above 0"),
    f"[limits]\nstop = '1 week'{TASK}": (2, "'1 week'", "a duration above 0"),
    f"[limits]\nsilence = '0s'{TASK}": (2, "'0s'", "a duration above 0"),
    f"[limits]\nrun = true{TASK}": (2, "true", "a duration above 0"),
    f"files.input = 'x'{TASK}": (1, "'x'", "an array of files"),
    f"files.input = [\n'x',\n'']{TASK}": (3, "an empty text", "one that is not empty"),
    f"files.input = ['.']{TASK}": (1, "'.'", "a file or a directory with a name"),
    f"files.input = ['/']{TASK}": (1, "'/'", "a file or a directory with a name"),
    f"files.input = [\n'a', 'b',\n'./a']{TASK}": (
        3,
        "a second file with the destination 'a'",
        "one file",
    ),
    f"files.input = [\n{{from = 'a', to = '../b'}}]{TASK}": (2, "'../b'", "a path beneath"),
    f"files.input = [{{from = 'a', to = '/b'}}]{TASK}": (1, "'/b'", "a path beneath"),
    f"files.input = [{{to = 'b'}}]{TASK}": (1, "no from", "the key from"),
    f"[files]\noutput = [{{pattern='*.c', from='a'}}]{TASK}": (2, "both from and pattern", "one"),
    f"[files]\noutput = [{{pattern='/*'}}]{TASK}": (2, "'/*'", "a path beneath"),
    f"[files]\noutput = [{{pattern='*', to='a:b'}}]{TASK}": (2, "'a:b'", "a name that Windows"),
    f"[files]\noutput = ['../*']{TASK}": (2, "'../*'", "a path beneath"),
    f"[files]\noutput = ['a',\n'b']{TASK}stdout = 'b'": (3, "'b', where a task's", "of its own"),
    f"[files]\noutput = ['b/c']{TASK}stderr = 'b'": (2, "'b/c', where a task's", "of its own"),
    f"[files]\noutput = ['B']{TASK}{TASK}stdout = 'b/c'": (2, "'B', where a task's", "its own"),
    f"[files]\noutput = [\n'a/b',\n'a']{TASK}": (4, "'a' after an output", "the directory"),
    f"{TASK}stdout = 'a'\nstderr = './a'": (5, "the file of stdout", "another file"),
    f"{TASK}stdin = 'a'\nstdout = 'a'": (5, "the file of stdin", "another file"),
    f"files.input = [{{from='a', two='b'}}]{TASK}": (1, "the unknown key 'two'", "from, to"),
    f"[files]\noutput = ['/etc/x']{TASK}": (2, "'/etc/x'", "a path beneath"),
    f"[files]\noutput = ['a/../../x']{TASK}": (2, "'a/../../x'", "a path beneath"),
    f"[files]\noutput = [{{from='a',to='..'}}]{TASK}": (2, "'..'", "a path beneath"),
    f"{TASK}stdout = '/etc/x'": (4, "'/etc/x'", "a path beneath"),
    f"{TASK}stderr = '../x'": (4, "'../x'", "a path beneath"),
    f"{TASK}environment = {{ A = 1 }}": (4, "1", "a text in quotes"),
    f"{TASK}[task.environment]\nA = 'b'\n'C=D' = 'e'": (6, "'C=D'", "a variable's name"),
    f"{TASK}[task.environment]\n'' = 'e'": (5, "an empty text", "one that is not empty"),
    # Keys that are unknown here
    f"[machine]\nmemroy = '1G'{TASK}": (2, "the unknown key 'memroy'", "(did you mean memory?)"),
    f"image = 'sci'{TASK}": (1, "the unknown key 'image'", "(did you mean image in [machine]?)"),
    f"'a\\n\\u001b' = 1{TASK}": (1, "the unknown key", "machine, limits, task, files"),
    f"limit.run = 1{TASK}": (1, "the unknown key 'limit'", "(did you mean limits?)"),
    # Not TOML at all
    f"[machine]\nmemory = 512M{TASK}": (2, "'memory = 512M'", "valid TOML (Expected newline"),
    "a = 1\na = 2\n": (2, "'a = 2'", "valid TOML (Cannot overwrite a value)"),
    "[[task]]\ncommand = [\n'x',\n": (3, "\"'x',\"", "valid TOML (Invalid value)"),
    "\ufeffa = 1": (1, r"'\ufeffa = 1'", "valid TOML (Invalid statement)"),
    "x = " + "[" * 5000: (1, "too many brackets", "a few"),
    "\nx = " + "1" * 5000: (2, "a number that is too long", "a shorter one"),
    "\n" + "a." * 30_000 + "a = 1": (2, "a key with 30000 dots", "at most 16"),
}


@pytest.mark.parametrize(("text", "fault"), FAULTS.items(), ids=lambda value: str(value)[:40])
def test_a_fault_names_file_line_found_and_expected(written, text, fault):
    line, found, expected = fault
    path = written(text)
    with pytest.raises(JobFileError) as caught:
        read_job(path)
    message = caught.value.message
    assert MESSAGE.fullmatch(message)
    assert message.startswith(f"{path}:{line}: found {found}")
    assert expected in message.split(", expected ", 1)[1]
    assert message.isprintable()
    assert len(message) < len(str(path)) + 300
    assert caught.value.hint
    assert caught.value.exit_code is ExitCode.JOB_FILE


def test_bytes_that_are_no_text(written):
    with pytest.raises(JobFileError, match=r"job\.toml:2: found the byte 0xff, expected UTF-8"):
        read_job(written(b"# x\n\xff"))


def test_a_file_that_is_too_large(written):
    largest = TASK.encode() + b"#" * ((1 << 20) - len(TASK))
    assert read_job(written(largest)).tasks
    with pytest.raises(JobFileError, match="found more than 1 MiB"):
        read_job(written(largest + b"#"))


def test_no_file_and_a_directory(tmp_path):
    with pytest.raises(JobFileError, match=r"No such file.*expected a job file"):
        read_job(tmp_path / "absent.toml")
    with pytest.raises(JobFileError, match=r"Is a directory"):
        read_job(tmp_path)


def test_the_numbers_of_tasks_and_files_are_bounded(written, monkeypatch):
    monkeypatch.setattr(toml, "MOST_TASKS", 2)
    monkeypatch.setattr(toml, "MOST_FILES", 2)
    assert len(read_job(written("files.output=['a','b']" + TASK * 2)).tasks) == 2
    with pytest.raises(JobFileError, match="found an array of 3, expected at most 2"):
        read_job(written(TASK * 3))
    with pytest.raises(JobFileError, match="found an array of 3, expected at most 2"):
        read_job(written("files.output=['a','b','c']" + TASK))


PIECES = st.sampled_from(
    [
        "[[task]]", "[machine]", "[limits]", "[files]", "[task.environment]", "[task]", "[x]",
        "command", "memory", "cpus", "disk", "image", "network", "run", "boot", "stdin", "stdout",
        "environment", "directory", "input", "output", "from", "to", "a", "'k'", '"k\\u00e9"',
        "=", "=", "=", "\n", "\n", "\n", ",", ".", "{", "}", "[", "]", " ", "\t", "#", "\r\n",
        '"x"', "'y'", '"""z\n"""', "'''w\n'''", '"512M"', "'2h'", '"a b"', '"/x"', '"../x"', "''",
        "1", "-1", "1.5", "inf", "nan", "true", "false", "1979-05-27", "07:32:00", "0xff", "1e400",
        '"\\u0000"', '"\\"', "\\", '"""', "'''", "\x00", "\ud7ff", "é",
    ]
)  # fmt: skip
VALUES = st.recursive(
    st.sampled_from(
        [
            "'x'", "''", "'2G'", "'1h'", "'..'", "'/'", "1", "0", "-1", "2.5", "nan", "true",
            "[]", "{}",
        ]
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.tuples(st.sampled_from(["from", "to", "A"]), inner).map(
            lambda p: f"{{{p[0]} = {p[1]}}}"
        ),
    ),
    max_leaves=4,
)  # fmt: skip
KEYS = st.sampled_from([*toml._MACHINE, *toml._LIMITS, *toml._TASK, *toml._FILES, "other"])
HEADERS = st.sampled_from(["[machine]", "[limits]", "[[task]]", "[files]", "[task.environment]"])
LINES = st.lists(
    st.one_of(HEADERS, st.tuples(KEYS, VALUES).map(" = ".join)), min_size=1, max_size=12
)


@pytest.mark.parametrize(
    "texts",
    [st.text(), st.lists(PIECES, max_size=40).map("".join), LINES.map("\n".join)],
    ids=["any text", "pieces of TOML", "nearly a job"],
)
def test_any_text_is_a_job_or_a_job_file_error(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("any") / "job.toml"

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(texts)
    def check(text):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            message = f"job.toml:1: found {type(read_job(path)).__name__}, expected Job"
        except JobFileError as error:
            message = error.message
        assert MESSAGE.fullmatch(message)

    check()


@settings(max_examples=100, deadline=None)
@given(st.binary())
def test_any_bytes_are_a_job_or_a_job_file_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "job.toml"
    path.write_bytes(content)
    with pytest.raises(JobFileError):
        read_job(path)
