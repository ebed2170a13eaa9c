"""The stand-in for libboinc in C and C++: what a program sends, and what it receives."""

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.killed_on_failure import killed_on_failure
from support.libboinc.listener import LIMIT, run

TEXT = "The quick brown fox; schöne Grüße.\n" * 3000
UPPER = TEXT.encode().upper()
INIT_DATA = """\
<app_init_data>
<major_version>8</major_version>
<wu_name>wu &lt;1&gt; &amp; more</wu_name>
<project_preferences><userid>13</userid></project_preferences>
<user_name>Ann</user_name>
<userid>7</userid>
<slot>99999999999</slot>
<using_sandbox/>
<checkpoint_period>0.500000</checkpoint_period>
<rsc_fpops_bound>1.25e+10</rsc_fpops_bound>
<wu_cpu_time>12.500000</wu_cpu_time>
<fraction_done_end>1</fraction_done_end>
<host_info><p_ncpus>2</p_ncpus><userid>14</userid></host_info>
</app_init_data>
"""


@pytest.fixture
def slot(work: Path) -> Path:
    """Make a slot like BOINC's client: the files are elsewhere."""
    project = work.parent / "project"
    project.mkdir()
    (project / "in_17").write_text(TEXT)
    (work / "in").write_text("<soft_link>../project/in_17</soft_link>\n")
    (work / "out").write_text("<soft_link>../project/out_17</soft_link>\n")
    (work / "init_data.xml").write_text(INIT_DATA.replace("0.500000", "0.02"))
    return work


def test_an_application_runs_and_says_what_it_does(upper_case: Path, slot: Path) -> None:
    received = run([upper_case], slot)
    assert (received.code, received.stderr) == (0, "")
    assert received.stdout == f"{len(UPPER)} letters"
    assert (slot.parent / "project/out_17").read_bytes() == UPPER
    fractions = [float(word) for word in received.values_of("fraction-done")]
    assert fractions == sorted(fractions)
    assert 90 <= len(fractions) <= 110
    assert fractions[-1] == 1
    assert received.values_of("operations")[-1] == f"{len(UPPER)} {2 * len(UPPER)}"
    assert received.lines[-1] == "finish 0 0 "


def test_the_same_without_anybody_who_listens(upper_case: Path, slot: Path) -> None:
    (slot / "init_data.xml").unlink()
    before = set(slot.iterdir())
    received = run([upper_case], slot, status_channel=False)
    assert (received.code, received.stdout, received.stderr) == (0, f"{len(UPPER)} letters", "")
    assert (slot.parent / "project/out_17").read_bytes() == UPPER
    assert set(slot.iterdir()) == before


def test_it_goes_on_from_a_checkpoint(upper_case: Path, slot: Path) -> None:
    large = TEXT * 100
    (slot.parent / "project/in_17").write_text(large)
    received = run([upper_case, str(len(large) - 5)], slot)
    assert received.code in (-signal.SIGABRT, -signal.SIGSEGV)
    assert received.values_of("checkpoint-completed") != []
    assert received.values_of("finish") == []
    done = int((slot / "upper_case_state").read_text())
    assert 0 < done <= len(large)
    again = run([upper_case], slot)
    assert again.code == 0
    assert float(again.values_of("fraction-done")[0]) >= done / len(large.encode()) - 0.01
    assert (slot.parent / "project/out_17").read_bytes() == large.encode().upper()


def test_ten_million_reports_are_quick_and_few(calls: Path, work: Path) -> None:
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    received = run([calls, "loop"], work)
    taken, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert received.code == 0
    assert len(received.values_of("fraction-done")) <= 101 + taken / 0.4
    computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert computed < 10  # it is 0.2 s, and other programs may keep it waiting


def test_reports_from_several_threads_stay_whole(calls: Path, work: Path) -> None:
    received = run([calls, "threads"], work)
    assert received.lines[-1] == "finish 0 0 "
    assert {line.split(" ")[0] for line in received.lines[:-1]} == {"fraction-done"}
    assert all(0 <= float(word) <= 1 for word in received.values_of("fraction-done"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<soft_link>../p/f</soft_link>\n", "0 ../p/f"),
        (" \n<soft_link> ../a b/f \n</soft_link>", "0 ../a b/f"),
        ("<soft_link></soft_link>", "0 file"),
        ("<soft_link>../p/f", "0 file"),
        ("data <soft_link>../p/f</soft_link>", "0 file"),
        ("", "0 file"),
        (f"<soft_link>{'x' * 64}</soft_link>", "-118 file"),
        (f"<soft_link>{'x' * 63}</soft_link>", f"0 {'x' * 63}"),
    ],
)
def test_soft_links(calls: Path, work: Path, content: str, expected: str) -> None:
    (work / "file").write_text(content)
    assert run([calls, "resolve", "file"], work).stdout == f"{expected}\n"


def test_no_file_a_pipe_and_a_symbolic_link_are_no_soft_links(calls: Path, work: Path) -> None:
    os.mkfifo(work / "pipe")
    (work / "target").write_text("<soft_link>elsewhere</soft_link>")
    (work / "symbolic").symlink_to("target")
    for name in ("none", "pipe", "symbolic", "."):
        assert run([calls, "resolve", name], work).stdout == f"0 {name}\n"


def test_what_is_known_of_the_task(calls: Path, work: Path) -> None:
    (work / "init_data.xml").write_text(INIT_DATA)
    expected = "wu <1> & more|Ann|7|0.500|12.5|2147483647|1|2|<userid>13</userid>|1|12.5\n0\n"
    assert run([calls, "data"], work).stdout == f"0 standalone\n{expected}"
    assert run([calls, "data"], work, status_channel=False).stdout == f"1 standalone\n{expected}"


@pytest.mark.parametrize(
    ("content", "result"),
    [
        (b"", -112),
        (b"<app_init_data><wu_name>x</wu_name>", -112),
        (b"\0\xff<<<>>&", -112),
        (b"<app_init_data>" + b" " * (1 << 20) + b"</app_init_data>", -131),
    ],
)
def test_a_file_that_says_nothing(calls: Path, work: Path, content: bytes, result: int) -> None:
    (work / "init_data.xml").write_bytes(content)
    expected = f"1 standalone\n||0|300.000|0.0|0|0|0|none|1|0.0\n{result}\n"
    assert run([calls, "data"], work).stdout == expected


def test_an_element_longer_than_its_place_is_cut(calls: Path, work: Path) -> None:
    content = INIT_DATA.replace("Ann", "&amp;" * 4000)
    (work / "init_data.xml").write_text(content)
    assert run([calls, "data"], work).stdout.split("|")[1] == "&" * 255


def test_trickles(calls: Path, work: Path) -> None:
    (work / "x_trickle_down_1").touch()
    received = run([calls, "trickle", "kind", "a text\nof two lines"], work)
    assert received.stdout.split() == ["0", "0", "1", "x_trickle_down_1"]
    first, second = (word.split(" ", 1) for word in received.values_of("trickle-up"))
    assert first[0] == second[0] == "kind"
    assert first[1] != second[1]
    for _, path in (first, second):
        assert Path(path).parent == work
        assert Path(path).read_text() == "a text\nof two lines"


@pytest.mark.parametrize("variety", ["", "two words", "line\nfinish 0 0", "x" * 256])
def test_a_variety_that_is_no_word(calls: Path, work: Path, variety: str) -> None:
    received = run([calls, "trickle", variety, "text"], work)
    assert received.stdout.split("\n")[0] == "-178 "
    assert received.lines == []


def test_uploads(calls: Path, work: Path) -> None:
    assert run([calls, "upload", "out_1"], work).stdout == "0 \n-161 \n"
    (work / "boinc_ufs_out_1").write_text("<status>-5</status>\n")
    received = run([calls, "upload", "out_1"], work)
    assert (received.stdout, received.lines) == ("0 \n-5 \n", ["upload out_1"])
    assert run([calls, "upload", "../out"], work).stdout == "-178 \n-178 \n"


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["finish", "all is lost\nfinish 0 0"], 3, "finish 3 0 all is lost finish 0 0"),
        (["finish", ""], 3, "finish 3 0 "),
        (["finish", "long"], 3, "finish 3 0 " + "x" * (4094 - 11)),
        (["finish", "ü" * 3000], 3, "finish 3 0 " + "ü" * 2040),
        (["finish", b"Gru\xdf \xc3\xbc \xed\xa0\x80 \xc3"], 3, "finish 3 0 Gru? ü ??? ?"),
        (["temporary", "60", "wait"], 0, "temporary-exit 60 1 wait"),
        (["temporary", "-1", ""], 0, "temporary-exit 0 1 the application gave no reason"),
    ],
)
def test_ends(calls: Path, work: Path, arguments: list[str | bytes], code: int, line: str) -> None:
    received = run([calls, *arguments], work)
    assert received.code == code
    assert len(received.lines) == 1
    assert len(received.lines[0].encode()) < 4095
    assert received.lines[0][: len(line)] == line


def test_a_status_with_a_new_checkpoint_time_is_a_checkpoint(calls: Path, work: Path) -> None:
    received = run([calls, "status"], work)
    assert received.lines == ["checkpoint-completed", "fraction-done 0.500000"]


def test_operations_by_processor_time(calls: Path, work: Path) -> None:
    received = run([calls, "rates"], work)
    assert received.lines[1] == "checkpoint-completed"
    floating, integer = map(float, received.values_of("operations")[0].split())
    assert floating >= 0
    assert integer == 0


def test_a_flood_is_held_back_and_nothing_is_lost(calls: Path, work: Path) -> None:
    received = run([calls, "flood"], work)
    assert received.lines == ["checkpoint-wanted"] * 5000 + ["finish 0 0 "]


def test_a_listener_that_goes_does_not_end_the_program(calls: Path, work: Path) -> None:
    fifo = work.parent / "status-channel"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with killed_on_failure(
        subprocess.Popen(
            [calls, "gone"],
            cwd=work,
            env={**os.environ, "BOINCVM_STATUS_CHANNEL": str(fifo)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.close(reader)
        assert process.communicate(b"\n", timeout=LIMIT)[0] == b"alive\n"
    assert process.returncode == 0


@pytest.mark.parametrize("kind", ["missing", "file", "unread"])
def test_a_status_channel_that_is_no_fifo(calls: Path, work: Path, kind: str) -> None:
    location = work.parent / "status-channel"
    if kind == "file":
        location.write_text("before")
    elif kind == "unread":
        os.mkfifo(location)
    received = run(
        ["env", f"BOINCVM_STATUS_CHANNEL={location}", str(calls), "finish", "message"],
        work,
        status_channel=False,
    )
    assert (received.code, received.stderr) == (3, "")
    if kind == "file":
        assert location.read_text() == "before"
