"""Both ends of a remote shell: the far end runs here, on a real pty, as it does in a guest."""

import os
import signal
import subprocess
import sys
import threading
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.client.terminal.local import EscapeDetector
from boincvm.client.terminal.protocol import (
    Size,
    keys,
    shell_argv,
    shell_environment,
    window_size,
)
from boincvm.client.terminal.remote import Frames
from support.on_terminal import OnTerminal, on_terminal

LIMIT = 20.0


@given(st.binary(), st.binary(), st.lists(st.integers(1, 5)))
def test_keys_and_sizes_come_through_however_they_are_cut(before, after, cuts):
    data = keys(before) + window_size(Size(300, 70000)) + keys(after)
    frames, typed, sizes = Frames(), b"", []
    for cut in [*cuts, len(data)]:
        piece, data = data[:cut], data[cut:]
        typed_now, size = frames.feed(piece)
        typed += typed_now
        sizes += [size] if size else []
    assert typed == before + after
    assert sizes == [(300, 65535)]


def test_what_no_near_end_says_is_passed_over():
    assert Frames().feed(b"a\0xb") == (b"axb", None)


USUAL = Size()


def start(*program: str, size: Size = USUAL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *shell_argv(size, program)[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TERM": "dumb"},
    )


def talk(far: subprocess.Popen[bytes], typed: bytes) -> str:
    """What it shows until it ends, though its input stays open."""
    with far:
        assert far.stdin is not None
        assert far.stdout is not None
        # Apart from reading, as at the near end: neither waits for the other.
        typing = threading.Thread(target=_type, args=(far.stdin, typed))
        typing.start()
        shown = far.stdout.read().decode("latin-1")
        far.wait(LIMIT)
        typing.join(LIMIT)
    return shown


def _type(keyboard: IO[bytes], typed: bytes) -> None:
    keyboard.write(typed)
    keyboard.flush()


def test_a_shell_has_a_terminal_of_its_own_and_the_window_s_size():
    far = start("sh", size=Size(31, 97))
    shown = talk(far, b"tty; stty size; test -t 2; echo $?; exit 7\n")
    lines = shown.replace("\r\n", "\n").splitlines()
    assert any("/dev/pts/" in line for line in lines)
    assert "31 97" in lines
    assert "0" in lines
    assert far.returncode == 7


def test_the_window_has_another_size():
    script = "trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.01; done"
    far = start("sh", "-c", script)
    assert far.stdout is not None
    assert far.stdout.readline() == b"ready\r\n"
    assert "50 132" in talk(far, window_size(Size(50, 132)))
    assert far.returncode == 3


def test_ctrl_c_is_for_the_program():
    far = start("sh", "-c", "echo ready; exec cat")
    assert far.stdout is not None
    assert far.stdout.readline() == b"ready\r\n"
    assert talk(far, keys(b"\x03")) == "^C"
    assert far.returncode == 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        (("sh", "-c", "kill -9 $$"), 137, ""),
        (("no-such-program",), 127, "no-such-program: No such file or directory"),
        (("/etc/passwd",), 126, "/etc/passwd: Permission denied"),
    ],
)
def test_how_it_ends(program, code, words):
    far = start(*program)
    assert talk(far, b"").strip() == words
    assert far.returncode == code


def test_all_output_comes_and_nobody_waits_for_who_is_left_behind():
    far = start("sh", "-c", "setsid sleep 3 & head -c 300000 /dev/zero | tr '\\0' x; exit 4")
    shown = talk(far, b"")
    assert shown == "x" * 300000
    assert far.returncode == 4


def test_more_is_pasted_than_the_terminal_holds_to_a_program_that_echoes():
    far = start("sh", "-c", "stty raw -echo; echo ready; head -c 200000")
    assert far.stdout is not None
    assert far.stdout.readline() == b"ready\n"
    pasted = bytes(range(256)) * 800
    assert talk(far, keys(pasted)).encode("latin-1") == pasted[:200000]


def test_the_end_of_input_hangs_up():
    far = start("sh", "-c", "trap 'exit 5' HUP; echo ready; while :; do sleep 0.01; done")
    with far:
        assert far.stdout is not None
        assert far.stdin is not None
        assert far.stdout.readline() == b"ready\r\n"
        far.stdin.close()
        assert far.wait(LIMIT) == 5


def test_who_does_not_hear_of_it_is_killed():
    far = start("sh", "-c", "trap '' HUP; echo ready; while :; do sleep 0.01; done")
    with far:
        assert far.stdout is not None
        assert far.stdin is not None
        assert far.stdout.readline() == b"ready\r\n"
        far.stdin.close()
        assert far.wait(LIMIT) == 137


def test_whoever_says_nothing_for_long_is_gone():
    argv = shell_argv(
        USUAL, ("sh", "-c", "trap 'exit 5' HUP; while :; do echo on; sleep 0.01; done")
    )
    script = argv[3].replace("SILENCE = 600.0", "SILENCE = 0.5")
    assert script != argv[3]
    far = subprocess.Popen(
        [sys.executable, *argv[1:3], script, *argv[4:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    # That it still has something to say does not count.
    assert talk(far, b"").startswith("on")
    assert far.returncode == 5


# The near end, on a terminal with a program behind it that needs no controller.

_NEAR = """
import os, subprocess, sys
from boincvm.client.terminal.local import TerminalSession, size_of
from boincvm.client.terminal.protocol import shell_argv

class Far:
    def __init__(self):
        argv = [sys.executable, *shell_argv(size_of(0), sys.argv[1:])[1:]]
        self.far = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    def show(self):
        while data := self.far.stdout.read(65536):
            os.write(1, data)
        self.far.wait()
    def send(self, data, *, ends):
        self.far.stdin.write(data)
        if ends:
            self.far.stdin.close()
    def cancel(self):
        self.far.kill()

far = Far()
print("there", flush=True)
ended = TerminalSession(far, 0).run()
print("ended", ended, far.far.poll(), flush=True)
"""


def near(*program: str):
    return on_terminal(sys.executable, "-c", _NEAR, *program, rows=25, columns=81)


async def until_raw(terminal: OnTerminal) -> None:
    await terminal.until("ready")
    assert terminal.modes() != terminal.modes_before


async def test_a_terminal_is_given_and_taken_back():
    async with near("sh") as terminal:
        terminal.type("stty size; echo rea''dy\r")
        await terminal.until("25 81")
        await until_raw(terminal)
        terminal.resize(40, 120)
        terminal.type("until stty size | grep 40; do sleep 0.05; done; exit 7\r")
        await terminal.until("40 120")
        await terminal.until("ended True 7")
        assert await terminal.code() == 0
        assert terminal.modes() == terminal.modes_before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_signal_ends_it_and_the_terminal_is_as_before(number):
    async with near("sh", "-c", "echo ready; cat") as terminal:
        await until_raw(terminal)
        terminal.process.send_signal(number)
        await terminal.until("ended False 129")
        assert terminal.modes() == terminal.modes_before


async def test_the_user_leaves_whoever_does_not_hear():
    script = "trap '' HUP INT; stty -echo; echo ready; while :; do sleep 1; done"
    async with near("sh", "-c", script) as terminal:
        await until_raw(terminal)
        terminal.type("\x03~.\r~.")
        await terminal.until("ended False 137")
        assert terminal.modes() == terminal.modes_before


async def test_a_sign_of_life_while_nobody_types():
    script = _NEAR.replace("\nfar = Far()", "\nlocal.BEAT = 0.05\nfar = Far()").replace(
        "\nimport", "\nfrom boincvm.client.terminal import local\nimport", 1
    )
    heard = "import os; print('ready', len(os.read(0, 6) + os.read(0, 6) + os.read(0, 6)))"
    script = script.replace("*shell_argv(size_of(0), sys.argv[1:])[1:]", f'"-c", {heard!r}')
    async with on_terminal(sys.executable, "-c", script) as terminal:
        await terminal.until("ready 18")
        await terminal.until("ended True 0")


async def test_the_far_end_is_gone_at_once():
    async with near("true") as terminal:
        await terminal.until("ended True 0")
        assert terminal.modes() == terminal.modes_before


@pytest.mark.parametrize(
    ("typed", "sent", "leaves"),
    [
        ("~.", "", True),
        ("ls\r~.more", "ls\r", True),
        ("a~.\r", "a~.\r", False),
        ("~~.\r", "~.\r", False),
        ("~x~.", "~x~.", False),
        ("\n~.", "\n", True),
    ],
)
def test_how_one_leaves(typed, sent, leaves):
    leaving, got, has_left = EscapeDetector(), b"", False
    for key in typed.encode():
        data, has_left = leaving.feed(bytes([key]))
        got += data
        if has_left:
            break
    assert (got.decode(), has_left) == (sent, leaves)
    assert EscapeDetector().feed(typed.encode()) == (sent.encode(), leaves)


def test_what_a_shell_is_told_of_the_terminal():
    told = shell_environment({"TERM": "linux", "LANG": "x" * 200, "LC_ALL": "a\nb", "HOME": "/"})
    assert told == {"TERM": "linux"}
    assert shell_environment({}) == {"TERM": "xterm"}
