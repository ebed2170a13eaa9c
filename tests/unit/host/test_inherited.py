"""However boincvm is started: what its programs start with, and which signals it obeys."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.bench import until_waits_in
from support.killed_on_failure import killed_on_failure
from support.odd_start import (
    ALL,
    BACKGROUND,
    NOHUP,
    STATE,
    STOPPING,
    ProcessState,
    clean,
    mask,
    state,
)

LIMIT = 60.0
# Each kind of child, in one process that has begun as ours do. What they print is the answer.
_CHILDREN = """
import asyncio, json, os, subprocess, sys
from pathlib import Path
from boincvm.host.inherited import reset_inherited_state
reset_inherited_state()

from boincvm.guestlink.terminal.protocol import Size, shell_argv
from boincvm.image.tools import run_tool
from boincvm.host.processes import ChildProcess
from boincvm.host.programs import run_quickly
from boincvm.host.supervised import start_supervised

script, found = sys.argv[1], {}
shell = ["/bin/sh", "-c", script]
found["helper"] = run_quickly(shell)
found["tool of a build"] = run_tool(shell).decode()

def of_descriptor(begin):
    reader, writer = os.pipe()
    over = begin(writer)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    over()
    return text

def child(writer):
    process = ChildProcess([*shell[:2], script + " >&2"], directory=Path("/"), stderr=writer)
    return lambda: asyncio.run(process.wait())

def guarded(writer):
    running = start_supervised(
        Path("/bin/sh"), shell, directory=Path("/"), environment=dict(os.environ),
        streams=(os.open(os.devnull, os.O_RDONLY), writer, None),
    )
    return lambda: (running.guard.wait(), running.control.close())

def shim(writer):
    # As LocalMachine.spawn does it.
    pid = os.posix_spawn(shell[0], shell, os.environ, setsid=True,
                         file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
    return lambda: os.waitpid(pid, 0)

found["QEMU"] = of_descriptor(child)
found["host program"] = of_descriptor(guarded)
found["shim"] = of_descriptor(shim)
far = [sys.executable, *shell_argv(Size(), shell)[1:]]
with subprocess.Popen(far, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
    found["shell"] = process.stdout.read()
print(json.dumps(found))
"""


@pytest.mark.parametrize("odd", ALL.values(), ids=list(ALL))
def test_what_programs_begin_with(odd: ProcessState) -> None:
    command = [*odd.before, sys.executable, "-c", _CHILDREN, STATE]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True)
    found = {name: state(text) for name, text in json.loads(done.stdout).items()}
    assert found == {
        "helper": clean(odd.sane),
        "tool of a build": clean(0o022),
        "QEMU": clean(odd.sane, blocked=f"{mask(*STOPPING):016x}"),  # see ChildProcess
        "host program": clean(odd.sane),
        "shim": clean(odd.sane),
        "shell": clean(odd.sane),
    }


@pytest.mark.parametrize("odd", [ALL["all"], ALL["blocked"]], ids=["ignored", "blocked"])
def test_a_shell_s_terminal_is_enough(odd: ProcessState, tmp_path: Path) -> None:
    """It runs as separate source, perhaps under a foreign parent."""
    from boincvm.guestlink.terminal.protocol import Size, shell_argv

    argv = [sys.executable, *shell_argv(Size(), ("sh", "-c", STATE))[1:]]
    process = subprocess.Popen(
        [*odd.before, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert state(process.stdout.read()) == clean(0o022)


_OBEYED = """
import json, signal
from boincvm.host.inherited import not_ignored, reset_inherited_state
before = not_ignored(range(1, 32))
reset_inherited_state()
for number in set(range(1, 32)) - {signal.SIGKILL, signal.SIGSTOP}:
    if number not in before:
        signal.raise_signal(number)  # we bear it
print(json.dumps([before, not_ignored(range(1, 32))]))
"""


@pytest.mark.parametrize("odd", [NOHUP, BACKGROUND, ALL["all"]], ids=["nohup", "&", "all"])
def test_a_signal_that_we_were_to_ignore_stays_ignored(odd: ProcessState) -> None:
    command = [*odd.before, sys.executable, "-c", _OBEYED]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True)
    before, after = json.loads(done.stdout)
    python_s = {int(signal.SIGPIPE), int(signal.SIGXFSZ)}
    assert before == after == sorted(set(range(1, 32)) - set(odd.ignored) - python_s)


@pytest.mark.parametrize(
    ("odd", "number", "code"),
    [(NOHUP, signal.SIGINT, 130), (BACKGROUND, signal.SIGTERM, -signal.SIGTERM)],
    ids=["nohup", "&"],
)
def test_a_command_heeds_the_others(
    odd: ProcessState, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """It waits for the writer of a FIFO; the ignored signal does not end it."""
    fifo = tmp_path / "job.toml"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "boincvm.cli.main", "run", str(fifo)]
    begun = subprocess.Popen([*odd.before, *command], stderr=subprocess.PIPE, text=True)
    with killed_on_failure(begun) as process, fifo.open("wb") as writer:
        until_waits_in(process.pid, "pipe_read")
        for ignored in odd.ignored:
            process.send_signal(ignored)
        process.send_signal(number)
        _, errors = process.communicate(timeout=LIMIT)
        assert process.returncode == code, errors
        assert not writer.closed
