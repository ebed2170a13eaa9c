"""BOINC has no encoding: names, messages and arguments of a job on the host are bytes, in every
locale."""

import os
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from boincvm.boinc.testing import EndKind
from boincvm.wrapper.slot.archives import LIST_FILE
from support.host_slot import HostSlot, task

pytestmark = pytest.mark.timeout(90)

E = b"\xe9"
"""é in Latin-1; in UTF-8 no character."""
NO_MODE = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Python then has the encoding that the locale says."""
CHARMAP = Path("/usr/share/i18n/charmaps/ISO-8859-1.gz")
LOCALES = {
    "UTF-8": {"LC_ALL": "C.UTF-8"},
    "C": {"LC_ALL": "C"},
    "ASCII": {"LC_ALL": "POSIX", **NO_MODE},
    **({"Latin-1": {"LC_ALL": "en_US.ISO-8859-1", **NO_MODE}} if CHARMAP.exists() else {}),
}


@pytest.fixture(params=LOCALES)
def locale(request: pytest.FixtureRequest, tmp_path: Path) -> Mapping[str, str]:
    """Return the environment for a locale; that of Latin-1 is made here."""
    if request.param == "Latin-1":
        made = tmp_path / "en_US.ISO-8859-1"
        subprocess.run(
            [shutil.which("localedef") or "localedef", "-i", "en_US", "-f", "ISO-8859-1", made],
            check=True,
            timeout=60,
        )
    return {"LOCPATH": str(tmp_path), **LOCALES[request.param]}


class Archive:
    """Bytes of a zip archive with one stored member with any name."""

    def __init__(self, path: bytes, name: bytes, content: str) -> None:
        text = "x" * len(name)
        with zipfile.ZipFile(os.fsdecode(path), "w") as made:
            made.writestr(text, content)
        with open(path, "rb") as file:  # noqa: PTH123 - bytes
            data = file.read().replace(text.encode(), name)
        write(path, data)


def write(path: bytes, data: bytes) -> None:
    with open(path, "wb") as file:  # noqa: PTH123 - bytes
        file.write(data)


def read(path: bytes) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 - bytes
        return file.read()


async def test_from_the_job_file_to_program_archive_and_log(
    slot: HostSlot, locale: Mapping[str, str]
) -> None:
    here, project = os.fsencode(slot.path), os.fsencode(slot.slot.project)
    write(here + b"/app" + E, b'#!/bin/sh\nprintf "%s\\n" "$@"; env | grep -a ^V=;cat;cp m? r\xe9')
    os.chmod(here + b"/app" + E, 0o755)  # noqa: PTH101 - bytes
    write(project + b"/wu" + E, b"input\n")
    write(here + b"/in" + E, b"<soft_link>../../projects/%b/wu\xe9</soft_link>\n"
          % os.path.basename(project))  # fmt: skip  # noqa: PTH119
    Archive(here + b"/a" + E, b"m" + E, "member\n")
    write(
        here + b"/job.xml",
        b"<job_desc><!-- \xe9 -->"
        b"<unzip_input><zipfilename>a&#233;</zipfilename></unzip_input>"
        b"<zip_output><zipfilename>z\xe9</zipfilename><filename>^r.$</filename></zip_output>"
        b"<task><application>app&#233;</application>"
        b"<command_line>caf&#195;&#169; caf\xc3\xa9 na\xefve boinc_resolve(in\xe9)</command_line>"
        b"<setenv>V=\xff\xc3\xa9</setenv><stdin_filename>in\xe9</stdin_filename>"
        b"<stdout_filename>out\xe9</stdout_filename></task></job_desc>",
    )
    await slot.ends_well(**locale)
    location = b"../../projects/" + os.path.basename(project) + b"/wu" + E  # noqa: PTH119
    assert read(here + b"/out" + E).split(b"\n") == [
        *(b"caf\xc3\xa9", b"caf\xc3\xa9", b"na\xefve", location),
        *(b"V=\xff\xc3\xa9", b"input", b""),
    ]
    stderr = read(here + b"/stderr.txt")
    assert b"running app\xe9 caf\xc3\xa9 caf\xc3\xa9 na\xefve " + location + b"\n" in stderr
    assert b"app\xe9 ended successfully\n" in stderr
    assert b"m" + E in read(here + b"/" + LIST_FILE.encode()).split(b"\n")
    made = read(here + b"/z" + E)
    assert made.count(b"r" + E) == 2  # at the member, and in the index
    with zipfile.ZipFile(slot.path / os.fsdecode(b"z" + E), metadata_encoding="latin-1") as opened:
        assert opened.namelist() == ["ré"]
        assert opened.read("ré") == b"member\n"


@pytest.mark.parametrize("name", [b"no\xe9", "nö".encode(), b"n\xc3\xa9\xe9"])
async def test_what_is_reported_of_a_failure(
    slot: HostSlot, locale: Mapping[str, str], name: bytes
) -> None:
    """The finish file and the log contain the name unchanged."""
    write(
        os.fsencode(slot.path) + b"/job.xml",
        b"<job_desc><task><application>" + name + b"</application></task></job_desc>",
    )
    end = await slot.run(**locale)
    assert (end.kind, end.status) == (EndKind.FAILED, 206)
    line = b"the application %b is missing: there is no %b; " % (name, name)
    assert line in read(os.fsencode(slot.path) + b"/boinc_finish_called")
    assert b"failed with 206: " + line in read(os.fsencode(slot.path) + b"/stderr.txt")


async def test_a_fault_in_the_job_file_is_one_sound_line(
    slot: HostSlot, locale: Mapping[str, str]
) -> None:
    write(
        os.fsencode(slot.path) + b"/job.xml",
        b"<job_desc><\xe9/><task><application>/bin/true</application>"
        b"<stdout_filename>../\xc3\xa9\xe9</stdout_filename></task></job_desc>",
    )
    end = await slot.run(**locale)
    assert (end.kind, end.status) == (EndKind.FAILED, 206), slot.stderr
    assert "job.xml:1: found <stdout_filename> '../" in end.text
    assert "Traceback" not in slot.stderr


async def test_a_zip_of_utf_8_names_says_so(slot: HostSlot, locale: Mapping[str, str]) -> None:
    """Other programs then need not guess."""
    slot.job(
        task("echo a >r\xe9"),
        more="<zip_output><zipfilename>z</zipfilename><filename>^r</filename></zip_output>",
    )
    await slot.ends_well(**locale)
    with zipfile.ZipFile(slot.path / "z") as made:
        assert made.namelist() == ["ré"]
