"""Each header of the stand-in for libboinc, and each declared function, in a program."""

import random
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from support.libboinc.compiling import LIBRARY, SANITIZED, STRICT, compile_program
from support.libboinc.listener import run

HERE = Path(__file__).parent
C_PROGRAM = HERE / "every_function.c"
CPP_PROGRAM = HERE / "every_function.cpp"
INTERNAL = {"boinc_init_data.h", "boinc_status_channel.h"}
CPP_ONLY = {"mfile.h", "miofile.h", "parse.h", "proc_control.h", "procinfo.h", "url.h"}
HEADERS_OF_BOINC = (
    "app_ipc.h",
    "boinc_api.h",
    "boinc_stdio.h",
    "boinc_zip.h",
    "common_defs.h",
    "config.h",
    "coproc.h",
    "diagnostics.h",
    "error_numbers.h",
    "filesys.h",
    "graphics2.h",
    "gutil.h",
    "hostinfo.h",
    "md5.h",
    "md5_file.h",
    "mfile.h",
    "miofile.h",
    "parse.h",
    "prefs.h",
    "proc_control.h",
    "procinfo.h",
    "proxy_info.h",
    "shmem.h",
    "std_fixes.h",
    "str_replace.h",
    "str_util.h",
    "url.h",
    "util.h",
)

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_DECLARED = re.compile(r"^(?:extern|(?:static )?inline)\b[^;{()]*?\b(\w+)\s*\(", re.MULTILINE)


@pytest.fixture(scope="module", params=["c", "cpp", "cpp-only"])
def every_function(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    program = tmp_path_factory.mktemp("every") / "program"
    if request.param == "c":
        return compile_program(tmp_path_factory, [C_PROGRAM], "c", program, options=SANITIZED)
    source = C_PROGRAM if request.param == "cpp" else CPP_PROGRAM
    return compile_program(tmp_path_factory, [source], "cpp", program, options=SANITIZED)


def test_every_function_does_what_it_says(every_function: Path, work: Path) -> None:
    done = run([every_function], work, status_channel=False)
    assert (done.code, done.stdout) == (0, "")


def declared(header: Path) -> list[str]:
    return _DECLARED.findall(_COMMENT.sub("", header.read_text()))


def test_every_declared_function_is_called() -> None:
    called = "".join(path.read_text() for path in HERE.glob("*.c*"))
    names = {
        name
        for header in LIBRARY.glob("*.h")
        if header.name not in INTERNAL
        for name in declared(header)
    }
    assert len(names) > 200
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", called)] == []


def test_the_headers_are_those_of_boinc() -> None:
    assert sorted(path.name for path in LIBRARY.glob("*.h")) == sorted(
        {*HEADERS_OF_BOINC, *INTERNAL}
    )


@pytest.mark.parametrize("header", HEADERS_OF_BOINC)
def test_a_header_stands_alone(tmp_path: Path, header: str) -> None:
    """Included first, last, and twice, it needs no other and conflicts with none."""
    source = tmp_path / "program.c"
    source.write_text(f'#include "{header}"\n#include "boinc_api.h"\n#include "{header}"\n')
    compilers = [["g++", "-std=c++11", "-xc++"]]
    if header not in CPP_ONLY:
        compilers.append(["gcc", "-std=c99", "-xc"])
    for compiler in compilers:
        command = [*compiler, *STRICT, "-fsyntax-only", str(source)]
        subprocess.run(command, check=True, timeout=60)


def test_what_a_c_program_uses_comes_in_with_the_api(tmp_path: Path) -> None:
    """Programs for BOINC's headers do not include <string.h> and the like themselves."""
    source = tmp_path / "program.c"
    source.write_text(
        '#include "boinc_api.h"\n'
        "int main(int argc, char **argv) {\n"
        '    char *text = strdup(argc > 1 ? argv[1] : "x");\n'
        '    if (!strcmp(text, "y") || toupper(*text) == EOF || errno) exit(atoi(text));\n'
        '    fprintf(stderr, "%s", text);\n'
        "    free(text);\n"
        "    boinc_finish(0);\n"
        "    return 0;\n"
        "}\n"
    )
    for compiler in (("gcc", "-xc"), ("g++", "-xc++")):
        command = [*compiler, "-Wall", "-Werror", "-fsyntax-only", f"-I{LIBRARY}", str(source)]
        subprocess.run(command, check=True, timeout=60)


@pytest.fixture(scope="module")
def zipper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile `zipper 1 ARCHIVE FILE…`, which packs, and `zipper 0 ARCHIVE DIRECTORY`, which
    unpacks."""
    location = tmp_path_factory.mktemp("zipper")
    source = location / "zipper.c"
    source.write_text(
        '#include "boinc_api.h"\n#include "boinc_zip.h"\n'
        "int main(int argc, char **argv) {\n"
        "    if (atoi(argv[1]) == ZIP_IT)\n"
        "        return boincvm_zip(argv[2], (const char *const *)argv + 3, (size_t)argc - 3);\n"
        "    return boinc_zip(UNZIP_IT, argv[2], argv[3]);\n"
        "}\n"
    )
    return compile_program(tmp_path_factory, [source], "c", location / "zipper", options=SANITIZED)


def contents() -> dict[str, bytes]:
    chance = random.Random(1)
    return {
        "empty": b"",
        "letter": b"x",
        "noise": chance.randbytes(100_000),
        "zeros": bytes(300_000),
        "text": b"".join(b"%d squared is %d\n" % (i, i * i) for i in range(20_000)),
        "far": (remote := chance.randbytes(32_768)) + remote + remote[:5],
        "names ü": "Grüße\n".encode() * 50,
    }


def test_python_reads_the_archives(zipper: Path, work: Path) -> None:
    for name, content in contents().items():
        (work / name).write_bytes(content)
    (work / "letter").chmod(0o750)
    done = run([zipper, "1", "a.zip", *contents()], work, status_channel=False)
    assert (done.code, done.stderr) == (0, "")
    with zipfile.ZipFile(work / "a.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == contents()
        assert archive.getinfo("letter").external_attr >> 16 == 0o100750
        assert archive.getinfo("text").compress_size < len(contents()["text"]) / 2
        assert archive.getinfo("noise").compress_type == zipfile.ZIP_STORED


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_archives_of_others_are_read(zipper: Path, work: Path, method: int) -> None:
    with zipfile.ZipFile(work / "a.zip", "w", method) as archive:
        archive.writestr("inner/", "")
        for name, content in contents().items():
            archive.writestr(f"inner/{name}", content)
    done = run([zipper, "0", "a.zip", "out"], work, status_channel=False)
    assert (done.code, done.stderr) == (0, "")
    found = {path.name: path.read_bytes() for path in (work / "out/inner").iterdir()}
    assert found == contents()


@pytest.mark.parametrize("name", ["../out", "/tmp/boincvm-out", "a/../../out", "a\\..\\..\\out"])
def test_a_name_that_leads_out_is_refused(zipper: Path, work: Path, name: str) -> None:
    with zipfile.ZipFile(work / "a.zip", "w") as archive:
        archive.writestr(name, "x")
    assert run([zipper, "0", "a.zip", "inner"], work, status_channel=False).code == 2
    assert sorted(path.name for path in work.rglob("*")) == ["a.zip", "inner"]


def test_a_damaged_archive_is_refused_and_harms_nobody(zipper: Path, work: Path) -> None:
    """Truncated anywhere, or with any byte changed, it ends with 0 or 2, never by a signal."""
    with zipfile.ZipFile(work / "good.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one", "The quick brown fox. " * 20 + "jumps")
        archive.writestr("two", random.Random(2).randbytes(40))
    good = (work / "good.zip").read_bytes()
    chance = random.Random(3)
    damaged = [good[:length] for length in range(0, len(good), 7)]
    for _ in range(150):
        copy = bytearray(good)
        copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
        damaged.append(bytes(copy))
    codes = []
    for content in damaged:
        (work / "bad.zip").write_bytes(content)
        codes.append(
            subprocess.run([zipper, "0", "bad.zip", "out"], cwd=work, check=False).returncode
        )
    assert set(codes) == {0, 2}
    assert codes.count(2) > 100
