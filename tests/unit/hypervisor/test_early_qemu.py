"""A process begun by a plan, with nothing imported: here a shell stands in for QEMU."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import boincvm
from boincvm.hypervisor.early_qemu import CONSOLE, DIRECTORY, LINK, QMP, STATE, EarlyQemu

KIB = 1 << 10
SHELL = "/bin/bash"  # dash has no descriptors beyond 9


def plan_of(script: str, state: Path, files=()):
    files = [*files, ("window", 64 * KIB, [])]
    return [SHELL, "-c", script, "--", DIRECTORY], {"ONLY": "this"}, files, str(state)


@pytest.fixture
def place(tmp_path):
    path = tmp_path / "place"
    path.mkdir()
    return path


@pytest.fixture
def state(tmp_path):
    path = tmp_path / "state"
    path.write_text("saved\n")
    return path


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def said(early: EarlyQemu) -> str:
    """All that the process says by its link."""
    with socket.socket(fileno=early.link.detach()) as link:
        link.settimeout(20)
        text = b""
        while piece := link.recv(4096):
            text += piece
    return text.decode()


def test_it_has_what_the_plan_says_and_nothing_else(place, state):
    script = f"(pwd; echo $1; cat /dev/fd/{STATE}; ls /proc/$$/fd; env; cat disk) >&{LINK}"
    inherited = os.open("/", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        early = EarlyQemu(plan_of(script, state, [("disk", 3, [(0, b"a"), (2, b"c")])]), str(place))
    finally:
        os.close(inherited)
    lines = said(early)
    early.end()
    opened = "\n".join(map(str, sorted([0, 1, 2, QMP, LINK, CONSOLE, STATE], key=str)))
    assert lines.startswith(f"{place}\n{place}\nsaved\n{opened}\n")
    assert "ONLY=this\n" in lines
    assert "HOME" not in lines
    assert lines.endswith("a\0c")
    assert (place / "window").stat().st_size == 64 * KIB


def test_each_channel_leads_to_its_end(place, state):
    script = f"echo qmp >&{QMP}; echo link >&{LINK}; echo console >&{CONSOLE}; echo log >&2"
    early = EarlyQemu(plan_of(script, state), str(place))
    assert [channel.recv(100) for channel in (early.qmp, early.link, early.console)] == [
        b"qmp\n",
        b"link\n",
        b"console\n",
    ]
    assert os.waitid(os.P_PID, early.pid, os.WEXITED | os.WNOWAIT).si_status == 0
    assert os.pread(early.log, 100, 0) == b"log\n"
    early.end()


def test_what_has_the_numbers_of_its_descriptors_already(place, state):
    """Ours may be among 20 to 23 themselves."""
    taken = [os.open("/", os.O_RDONLY) for _ in range(QMP - 2)]
    try:
        early = EarlyQemu(plan_of(f"echo link >&{LINK}; cat <&{STATE} >&{QMP}", state), str(place))
    finally:
        for descriptor in taken:
            os.close(descriptor)
    assert early.link.recv(100) == b"link\n"
    assert early.qmp.recv(100) == b"saved\n"
    early.end()


def test_it_is_deaf_to_what_asks_us_to_end_and_leads_a_session(place, state):
    script = f"(cut -d' ' -f6 /proc/$$/stat; cat /proc/$$/status) >&{LINK}"
    early = EarlyQemu(plan_of(script, state), str(place))
    session, *status = said(early).splitlines()
    early.end()
    assert int(session) == early.pid
    blocked = next(line for line in status if line.startswith("SigBlk"))
    wanted = sum(1 << (number - 1) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
    assert int(blocked.split()[1], 16) & wanted == wanted
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGTERM} == set()


def test_its_end_leaves_nothing(place, state):
    before = descriptors()
    early = EarlyQemu(plan_of("sleep 1000", state), str(place))
    early.end()
    assert descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(early.pid, os.WNOHANG)


def test_a_command_that_is_not_there(place, state):
    plan = (["/nowhere"], {}, [("window", 0, [])], str(state))
    early = EarlyQemu(plan, str(place))
    assert os.waitid(os.P_PID, early.pid, os.WEXITED | os.WNOWAIT).si_status == 127
    early.end()


@pytest.mark.parametrize(
    "plan",
    [
        (),
        5,
        (["sh"], {}, [("window", 0, [])], "/nowhere"),
        (["sh"], {}, [("window", 0, [(0, "no bytes")])], "/"),
        (["sh"], {}, [("../x/y", 0, [])], "/"),
        (["sh"], {}, [], "/"),
        ([7], {}, [("window", 0, [])], "/"),
    ],
)
def test_what_is_no_plan_starts_nothing_and_leaves_nothing_open(place, plan):
    before = descriptors()
    with pytest.raises((OSError, ValueError, TypeError, AttributeError)):
        EarlyQemu(plan, str(place))
    assert descriptors() == before


def test_one_that_has_ended_follows_no_plan(place, state):
    plan = plan_of("exit 0", state)
    early = EarlyQemu(plan, str(place))
    os.waitid(os.P_PID, early.pid, os.WEXITED | os.WNOWAIT)
    assert not early.follows(plan)
    early.end()


def test_another_plan(place, state):
    early = EarlyQemu(plan_of("sleep 1000", state), str(place))
    assert not early.follows(plan_of("sleep 1001", state))
    early.end()


def test_a_directory_that_the_command_line_would_have_to_escape(tmp_path, state):
    (tmp_path / "a,b").mkdir()
    with pytest.raises(ValueError, match="escape"):
        EarlyQemu(plan_of("true", state), str(tmp_path / "a,b"))


def test_another_state_of_the_same_name(place, state, tmp_path):
    plan = plan_of("sleep 1000", state)
    early = EarlyQemu(plan, str(place))
    assert early.follows(plan)
    (tmp_path / "new").write_text("saved\n")
    (tmp_path / "new").rename(state)
    assert not early.follows(plan)
    state.unlink()
    assert not early.follows(plan)
    early.end()


def test_it_imports_next_to_nothing():
    """That is what it is for."""
    program = (
        "import sys; before = set(sys.modules); import boincvm.wrapper.guess;"
        "print(*set(sys.modules) - before)"
    )
    place = str(Path(boincvm.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": place},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    imported = done.stdout.split()
    assert "boincvm.hypervisor.early_qemu" in imported
    assert not {"enum", "pathlib", "re", "signal", "socket", "subprocess", "typing"} & {*imported}
