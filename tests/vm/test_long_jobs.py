"""Jobs that are kept on disk and go on: the manual's chapter, and what can go wrong."""

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bench import LIMIT, Bench, finish, machines_beneath, read_line, until
from support.counting import RESUMED
from support.golden_home import GoldenHome

pytestmark = pytest.mark.timeout(120)

GUIDE = Path(__file__).parents[2] / "docs/user-guide.md"
OFTEN = (
    "import sys; from boincvm.machine import checkpoint_schedule;"
    " checkpoint_schedule.LEAST_PERIOD = 0.5; from boincvm.cli.main import main; sys.exit(main())"
)
"""Makes checkpoints more often than users may."""
SIMULATION = f"""\
#!/bin/sh
cat
first=$(cat /etc/machine-id)
i=0
while [ $i -lt $1 ]; do
    i=$((i + 1)); echo "step $i"; echo $i >>steps.txt
    [ $i -lt 4 ] || sleep 0.5
    [ $i != $(($1 - 3)) ] || until {RESUMED}; do sleep 0.1; done
done
"""
"""It does not end before it was kept, however slow the host is."""


@pytest.fixture
def bench(base_image: Path, tmp_path: Path) -> Iterator[Bench]:
    """A user with a store of images, and so of jobs, of his own."""
    home = tmp_path / "home"
    GoldenHome(home).take_snapshot()
    bench = Bench(tmp_path / "bench", data=home)
    (bench.work / "simulation").write_text(SIMULATION)
    (bench.work / "simulation").chmod(0o755)
    yield bench
    bench.stop_all()
    assert bench.left_overs() == []
    assert machines_beneath(tmp_path) == []
    assert list((home / "boincvm/jobs").glob("*")) == []


def chapter() -> list[list[str]]:
    """The words of the commands in the manual's chapter, without `boincvm run`."""
    text = GUIDE.read_text().split("\n## Long jobs\n")[1].split("\n## ")[0]
    block = re.search(r"```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    lines = [shlex.split(line, comments=True) for line in block[1].splitlines()]
    assert all(words[:2] == ["boincvm", "run"] for words in lines)
    return [words[2:] for words in lines]


def wait_for_step(process: subprocess.Popen[bytes], number: int) -> list[bytes]:
    lines: list[bytes] = []
    while not lines or lines[-1] != b"step %d\n" % number:
        lines.append(read_line(process.stdout))
        assert lines[-1], finish(process).stderr
    return lines


def test_the_chapter(bench: Bench) -> None:
    """Ctrl-C at the third step: not one is lost, and none is done again."""
    begin, resume = chapter()
    process = bench.start("--memory", "256M", *begin)
    lines = wait_for_step(process, 3)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130
    assert "the job is kept on disk" in done.stderr
    assert "boincvm run --resume simulation" in done.stderr
    lines += done.stdout.splitlines(keepends=True)
    assert not (bench.work / "steps.txt").exists()
    done = bench.run(*resume)
    assert done.code == 0, done.stderr
    lines += done.stdout.splitlines(keepends=True)
    steps = range(1, int(begin[-1]) + 1)
    assert lines == [b"step %d\n" % step for step in steps]
    assert (bench.work / "steps.txt").read_text().split() == [str(step) for step in steps]
    assert "continues from its state of" in done.stderr
    bench.run(*resume).check_error(210, "there is no job to resume")


def test_killed_between_checkpoints(bench: Bench) -> None:
    """It goes on from the last checkpoint; a file of its output has each line once."""
    (bench.work / "in").write_text("hello\n")
    job = bench.work / "job.toml"
    job.write_text(
        'name = "steps"\n[machine]\nmemory = "256M"\n'
        "[[task]]\ncommand = ['sh', '-c', 'echo first']\nstdout = 'first'\n"
        "[[task]]\ncommand = ['./simulation', '20']\nstdin = 'in'\nstdout = 'second'\n"
        "[files]\ninput = ['simulation']\noutput = ['steps.txt']\n"
    )
    location = bench.work / "place"
    command = (sys.executable, "-c", OFTEN, "run", "--resumable", "--checkpoint-period", "1")
    process = subprocess.Popen(
        [*command, "--name", "./place", "job.toml"],
        cwd=bench.work,
        env=bench.environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    bench.started.append(process)

    def newest() -> int:
        found = (path.stem for path in location.glob("machine/checkpoint-*.json"))
        return max((int(stem.removeprefix("checkpoint-")) for stem in found), default=0)

    output = bench.work / "second"
    until(lambda: output.exists() and "step 4\n" in output.read_text())
    before = newest()
    until(lambda: newest() > before + 1)  # both that there are have the program
    process.send_signal(signal.SIGSTOP)  # it neither goes on nor ends while another process starts
    bench.run("--resume", "./place").check_error(210, "the job ./place is running")
    process.kill()
    process.wait(LIMIT)
    until(lambda: not machines_beneath(location))
    done = bench.run("--resume", "./place")
    assert done.code == 0, done.stderr
    assert (bench.work / "first").read_text() == "first\n"
    steps = [f"step {number}" for number in range(1, 21)]
    assert (bench.work / "second").read_text().splitlines() == ["hello", *steps]
    assert (bench.work / "steps.txt").read_text().split() == [str(n) for n in range(1, 21)]
    assert not location.exists()


def test_a_job_that_fails_or_has_not_begun_is_not_kept(bench: Bench) -> None:
    done = bench.run("--resumable", "--memory", "256M", "--", "sh", "-c", "exit 3")
    assert (done.code, done.stderr) == (3, "")
    process = bench.start("--resumable", "--memory", "192M", "--", "true")  # it boots
    until(lambda: machines_beneath(bench.data))
    process.send_signal(signal.SIGTERM)
    finish(process).check_error(143, "nothing of the job is kept")
