"""Which machine a run will want, from what its options led to before; a shell stands in for it."""

import marshal
import os
import signal
from pathlib import Path

import pytest

from boincvm.paths import cache_directory, runs_directory
from boincvm.processes import ASKING_SIGNALS
from boincvm.wrapper.guess import Guess

OPTIONS = ["--memory", "256M"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BOINCVM_GOLDEN", raising=False)
    cache_directory().mkdir(parents=True)
    (tmp_path / "state").touch()
    return tmp_path


def plan_of(home, name="a"):
    return ["/bin/sleep", "1000"], {"NAME": name}, [("window", 4096, [])], str(home / "state")


def remember(home, plan, options=OPTIONS):
    directory = home / "directory"
    directory.mkdir(exist_ok=True)
    with Guess(options, is_early=False) as guess:
        guess.remember(plan, directory)
    assert list(directory.iterdir()) == []


def guessed(options):
    """The plan that is followed for these options."""
    with Guess(options, is_early=True) as guess:
        qemu = guess.qemu
    assert not runs_directory().exists() or not any(runs_directory().iterdir())
    if qemu is None:
        return None
    assert_gone(qemu)
    return qemu.plan


def assert_gone(qemu):
    with pytest.raises(ChildProcessError):
        os.waitpid(qemu.pid, os.WNOHANG)


def test_the_same_options_lead_to_the_same_machine(home):
    assert guessed(OPTIONS) is None
    remember(home, plan_of(home))
    assert guessed(OPTIONS) == plan_of(home)


@pytest.mark.parametrize("options", [["--memory", "257M"], [*OPTIONS, "--network"], []])
def test_other_options_lead_nowhere(home, options):
    remember(home, plan_of(home))
    assert guessed(options) is None


def test_who_is_not_early_or_wants_no_snapshots_guesses_nothing(home, monkeypatch):
    remember(home, plan_of(home))
    with Guess(OPTIONS, is_early=False) as guess:
        assert guess.qemu is None
    monkeypatch.setenv("BOINCVM_GOLDEN", "no")
    assert guessed(OPTIONS) is None


def test_the_latest_are_kept(home):
    for number in range(20):
        remember(home, plan_of(home, str(number)), [str(number)])
    remember(home, plan_of(home, "new"), ["15"])
    kept = [number for number in range(20) if guessed([str(number)])]
    assert kept == list(range(12, 20))
    assert guessed(["15"]) == plan_of(home, "new")


def test_the_right_one_is_taken_and_lives_on(home):
    remember(home, plan_of(home))
    with Guess(OPTIONS, is_early=True) as guess:
        taken = guess.take(plan_of(home))
    assert taken is not None
    qemu, directory = taken
    assert os.waitpid(qemu.pid, os.WNOHANG) == (0, 0)
    assert [path.name for path in runs_directory().iterdir()] == [Path(directory.place).name]
    qemu.end()
    directory.close()
    assert list(runs_directory().iterdir()) == []


def no_plan(home):
    return None


def another_plan(home):
    return plan_of(home, "b")


def another_state(home):
    (home / "new").touch()
    (home / "new").rename(home / "state")
    return plan_of(home)


@pytest.mark.parametrize("found", [no_plan, another_plan, another_state])
def test_a_wrong_one_is_ended_at_once(home, found):
    remember(home, plan_of(home))
    with Guess(OPTIONS, is_early=True) as guess:
        qemu = guess.qemu
        assert guess.take(found(home)) is None
        assert_gone(qemu)
        assert list(runs_directory().iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xff",
        b"x" * (1 << 17),
        marshal.dumps(5),
        marshal.dumps([5]),
        marshal.dumps([()]),
        marshal.dumps([(OPTIONS, 5)]),
        marshal.dumps([(OPTIONS, (["x"], {}, [("window", 0, [(0, "")])], "/"))]),
        marshal.dumps([(OPTIONS, ([5], {}, [], "/"))]),
        marshal.dumps([(OPTIONS, (["x"], {}, [], "/nowhere"))]),
    ],
    ids=range(10),
)
def test_what_makes_no_sense_is_no_guess_and_is_written_anew(home, content):
    (cache_directory() / "run-plans").write_bytes(content)
    assert guessed(OPTIONS) is None
    remember(home, plan_of(home))
    assert guessed(OPTIONS) == plan_of(home)


def test_a_cache_that_cannot_be_written_costs_nothing_else(home):
    (cache_directory() / "run-plans").mkdir()
    with Guess(OPTIONS, is_early=True) as guess:
        assert guess.qemu is None
        guess.remember(plan_of(home), home)


def test_signals_wait_while_there_is_something_to_tidy_up(home):
    def blocked():
        return signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {*ASKING_SIGNALS}

    with Guess(OPTIONS, is_early=True):
        assert blocked() == set()
    remember(home, plan_of(home))
    with Guess(OPTIONS, is_early=True):
        assert blocked() == {*ASKING_SIGNALS}
    assert blocked() == set()
