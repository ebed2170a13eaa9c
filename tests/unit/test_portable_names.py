"""Names that Windows would read in another way are refused on every host."""

from pathlib import Path, PurePosixPath

import pytest

from boincvm.errors import JobFileError
from boincvm.job.job_xml import read_job_xml
from boincvm.job.toml import read_job
from boincvm.portable_names import first_clash, is_portable

ODD = [
    "a\\b", "..\\secret", "C:\\x", "C:x", "a:stream", "a::$DATA", "NUL", "nul.txt", "dir/CON",
    "Aux .c", "com1", "LPT9.log", "COM¹", "conin$", "a.", "a ", "a./b", "dir /b", "what?", "*.txt",
    'a"b', "a<b", "a|b", "a\tb", "a\nb", "PROGRA~1", "a~1", "dir/LONGFI~2.TXT", "ab1c2d~3.h",
    "A~123456.",
]  # fmt: skip
FINE = [
    "a", "a.b", ".hidden", "a b/c d", "console", "nullable.txt", "COM10", "COM", "lpt", "a-NUL",
    "ä/ß", "x.nul", "a'b", "a%b", "(1)", "~1", "a~", "a~b", "x~1~", "long-name~1", "report~1.final",
    "a.b~1",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_windows_reads_in_another_way(name: str) -> None:
    assert not is_portable(PurePosixPath(name))


@pytest.mark.parametrize("name", FINE)
def test_a_name_that_is_the_same_everywhere(name: str) -> None:
    assert is_portable(PurePosixPath(name))


def test_names_that_differ_by_case_only() -> None:
    paths = [PurePosixPath(text) for text in ("a/b", "a/c", "A/B", "a/c")]
    assert first_clash(paths) == 2
    assert first_clash(paths[:2]) is None
    assert first_clash([PurePosixPath("straße"), PurePosixPath("STRASSE")]) is None
    assert first_clash([PurePosixPath("ä"), PurePosixPath("Ä")]) == 1


def toml(directory: Path, files: str, task: str = "") -> Path:
    path = directory / "job.toml"
    path.write_text(f'[[task]]\ncommand = ["true"]\n{task}\n[files]\n{files}\n')
    return path


@pytest.mark.parametrize("name", ["a:b", "..\\x", "aux", "x."])
@pytest.mark.parametrize(
    ("files", "task"),
    [
        ("output = ['{}']", ""),
        ("output = [{{ from = 'fine', to = '{}' }}]", ""),
        ("input = ['{}']", ""),
        ("input = ['/data/{}']", ""),
        ("", "stdout = '{}'"),
        ("", "stderr = '{}'"),
        ("", "stdin = '{}'"),
    ],
)
def test_a_job_file_with_it(tmp_path: Path, name: str, files: str, task: str) -> None:
    path = toml(tmp_path, files.format(name), task.format(name))
    with pytest.raises(JobFileError, match="a name that Windows can store"):
        read_job(path)


def test_what_stays_in_the_guest_may_have_any_name(tmp_path: Path) -> None:
    files = "output = [{ from = 'a:b', to = 'ab' }]\ninput = [{ from = '../x', to = 'NUL' }]"
    job = read_job(toml(tmp_path, files))
    assert [str(file.source) for file in job.outputs] == ["a:b"]
    assert [str(file.destination) for file in job.inputs] == ["NUL"]


def test_outputs_that_differ_by_case_only(tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match="which Windows does not distinguish"):
        read_job(toml(tmp_path, "output = ['Result', 'result']"))


@pytest.mark.parametrize("name", ["a:b", "aux.dat", "x.", "a*b"])
def test_a_job_xml_with_it(name: str) -> None:
    text = (
        "<job_desc><task><application>app</application>"
        f"<stdout_filename>{name}</stdout_filename></task></job_desc>"
    )
    with pytest.raises(JobFileError, match="one that Windows can store"):
        read_job_xml(text.encode(), "job.xml")
