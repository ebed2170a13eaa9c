"""The stand-in for libboinc in Python; it sends the same messages as the one in C."""

import os
import sys
from pathlib import Path

import pytest

from support.libboinc.listener import Result, run

LIBRARY = Path(__file__).parents[3] / "guest/libboinc"
ISOLATED = {"PYTHONPATH": str(LIBRARY), "PYTHONDONTWRITEBYTECODE": "1"}
UPPER_CASE = """
import os, sys, boinc
boinc.init()
stop_at = int(sys.argv[1]) if len(sys.argv) > 1 else -1
done = 0
state = boinc.resolve_filename("state")
if os.path.exists(state):
    done = int(open(state).read())
out_path = boinc.resolve_filename("out")
with open(boinc.resolve_filename("in")) as file, open(out_path, "ab") as out:
    text = file.read()
    out.truncate(done)
    while done < len(text):
        out.write(text[done:done + 100].upper().encode())
        done += 100
        boinc.fraction_done(done / len(text))
        if boinc.time_to_checkpoint():
            out.flush()
            open("temp", "w").write(str(done))
            os.rename("temp", state)
            boinc.checkpoint_completed()
        if done == stop_at:
            os._exit(9)
boinc.ops_cumulative(done, 2 * done)
sys.stdout.write("done")
boinc.finish(0)
"""


def python(work: Path, program: str, *arguments: str, status_channel: bool = True) -> Result:
    command = [sys.executable, "-W", "error::SyntaxWarning", "-c", program, *arguments]
    return run(command, work, status_channel=status_channel, environment=ISOLATED)


@pytest.fixture
def slot(work: Path) -> Path:
    (work / "in").write_text("abcdefghij" * 10_000)
    (work / "out").write_text("<soft_link>../out_17</soft_link>\n")
    (work / "init_data.xml").write_text(
        "<app_init_data><checkpoint_period>0.001</checkpoint_period></app_init_data>"
    )
    return work


def test_an_application_says_what_it_does(slot: Path) -> None:
    received = python(slot, UPPER_CASE)
    assert (received.code, received.stdout, received.stderr) == (0, "done", "")
    fractions = [float(word) for word in received.values_of("fraction-done")]
    assert fractions == sorted(fractions)
    assert 90 <= len(fractions) <= 110
    assert received.lines[-2:] == ["operations 100000 200000", "finish 0 0 "]
    assert (slot.parent / "out_17").read_bytes() == b"ABCDEFGHIJ" * 10_000


def test_the_same_without_anybody_who_listens(slot: Path) -> None:
    received = python(slot, UPPER_CASE, status_channel=False)
    assert (received.code, received.stdout, received.stderr) == (0, "done", "")
    assert (slot.parent / "out_17").read_bytes() == b"ABCDEFGHIJ" * 10_000


def test_it_goes_on_from_a_checkpoint(slot: Path) -> None:
    first = python(slot, UPPER_CASE, "90000")
    assert (first.code, first.values_of("finish")) == (9, [])
    assert first.values_of("checkpoint-completed") != []
    saved = int((slot / "state").read_text())
    second = python(slot, UPPER_CASE)
    assert float(second.values_of("fraction-done")[0]) > saved / 1e5 > 0
    assert (slot.parent / "out_17").read_bytes() == b"ABCDEFGHIJ" * 10_000


@pytest.mark.parametrize(
    ("call", "code", "lines"),
    [
        ("boinc.finish(3, 'all\\nfinish 0', notice=True)", 3, ["finish 3 1 all finish 0"]),
        ("boinc.finish(0, '\\u00fc' * 3000)", 0, ["finish 0 0 " + "ü" * 2041]),
        ("boinc.finish(0, '\\ud800')", 0, ["finish 0 0  "]),
        ("boinc.temporary_exit(-5, 'wait')", 0, ["temporary-exit 0 0 wait"]),
        ("boinc.want_checkpoint()", 0, ["checkpoint-wanted"]),
        ("boinc.upload_file('out_1')", 0, ["upload out_1"]),
        ("boinc.fraction_done(7)", 0, ["fraction-done 1.000000"]),
        ("boinc.fraction_done(-1)", 0, []),
        ("boinc.ops_cumulative(1e20, 5)", 0, ["operations 100000000000000000000 5"]),
        ("[boinc.fraction_done(i % 2) for i in range(1000)]", 0, 2),
        ("[boinc.want_checkpoint() for i in range(5000)]", 0, 5000),
    ],
)
def test_words(work: Path, call: str, code: int, lines: list[str] | int) -> None:
    received = python(work, f"import boinc; boinc.init(); {call}")
    assert (received.code, received.stderr) == (code, "")
    assert (received.lines if isinstance(lines, list) else len(received.lines)) == lines


@pytest.mark.parametrize(
    "call",
    [
        "upload_file('a/b')",
        "upload_file('')",
        "upload_status('a\\nb')",
        "send_trickle_up('two words', '')",
        "fraction_done(float('nan'))",
        "ops_cumulative(-1, 0)",
    ],
)
def test_what_is_refused(work: Path, call: str) -> None:
    received = python(work, f"import boinc; boinc.{call}")
    assert received.stderr.splitlines()[-1].startswith("ValueError: ")
    assert received.lines == []


def test_trickles_and_uploads(work: Path) -> None:
    (work / "boinc_ufs_out").write_text("<status>-5</status>\n")
    program = (
        "import boinc; boinc.init(); boinc.send_trickle_up('kind', 'ein Gruß\\n');"
        "print(boinc.receive_trickle_down(), boinc.upload_status('out'), boinc.upload_status('x'));"
        "open('my_trickle_down', 'w').close(); print(boinc.receive_trickle_down())"
    )
    received = python(work, program)
    assert received.stdout == "None -5 None\nmy_trickle_down\n"
    ((variety, path),) = (word.split(" ", 1) for word in received.values_of("trickle-up"))
    assert (variety, Path(path).read_text()) == ("kind", "ein Gruß\n")


def test_what_is_known_of_the_task(work: Path) -> None:
    (work / "init_data.xml").write_text(
        "<app_init_data><host_info><userid>5</userid></host_info><userid> 7 </userid>"
        "<wu_name>a&amp;lt;</wu_name><wu_cpu_time>1.5</wu_cpu_time></app_init_data>"
    )
    os.mkfifo(work / "pipe")
    program = (
        "import boinc; boinc.init(); data = boinc.init_data();"
        "print(data['userid'], data['wu_name'], data['host_info'], boinc.wu_cpu_time() >= 1.5);"
        "print(boinc.is_standalone(), *map(boinc.resolve_filename, ['pipe', '.', 'none']))"
    )
    received = python(work, program)
    assert received.stdout == "7 a&lt; <userid>5</userid> True\nFalse pipe . none\n"
    assert python(work, program, status_channel=False).stdout.splitlines()[1].startswith("True ")
