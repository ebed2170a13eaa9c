"""Both ends of a remote shell: the remote end runs here, on a real pty, as in a guest."""

import os
import select
import signal
import subprocess
import sys
import threading
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.client.terminal_session import EscapeDetector
from boincvm.guestlink.terminal import remote
from boincvm.guestlink.terminal.protocol import (
    Size,
    keys,
    shell_argv,
    shell_environment,
    window_size,
)
from boincvm.guestlink.terminal.remote import Frames
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


def test_what_no_local_end_sends_is_skipped():
    assert Frames().feed(b"a\0xb") == (b"axb", None)


USUAL = Size()


def start(*program: str, size: Size = USUAL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *shell_argv(size, program)[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TERM": "dumb"},
    )


def talk(peer: subprocess.Popen[bytes], typed: bytes) -> str:
    """Return what it shows until it ends, although its input stays open."""
    with peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        # Apart from reading, as at the local end: neither waits for the other.
        typing = threading.Thread(target=_type, args=(peer.stdin, typed))
        typing.start()
        shown = peer.stdout.read().decode("latin-1")
        peer.wait(LIMIT)
        typing.join(LIMIT)
    return shown


def _type(keyboard: IO[bytes], typed: bytes) -> None:
    keyboard.write(typed)
    keyboard.flush()


def test_a_shell_has_a_terminal_of_its_own_and_the_window_s_size():
    peer = start("sh", size=Size(31, 97))
    shown = talk(peer, b"tty; stty size; test -t 2; echo $?; exit 7\n")
    lines = shown.replace("\r\n", "\n").splitlines()
    assert any("/dev/pts/" in line for line in lines)
    assert "31 97" in lines
    assert "0" in lines
    assert peer.returncode == 7


def test_the_window_has_another_size():
    script = "trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.01; done"
    peer = start("sh", "-c", script)
    assert peer.stdout is not None
    assert peer.stdout.readline() == b"ready\r\n"
    assert "50 132" in talk(peer, window_size(Size(50, 132)))
    assert peer.returncode == 3


def test_ctrl_c_is_for_the_program():
    peer = start("sh", "-c", "echo ready; exec cat")
    assert peer.stdout is not None
    assert peer.stdout.readline() == b"ready\r\n"
    assert talk(peer, keys(b"\x03")) == "^C"
    assert peer.returncode == 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        (("sh", "-c", "kill -9 $$"), 137, ""),
        (("no-such-program",), 127, "no-such-program: No such file or directory"),
        (("/etc/passwd",), 126, "/etc/passwd: Permission denied"),
    ],
)
def test_how_it_ends(program, code, words):
    peer = start(*program)
    assert talk(peer, b"").strip() == words
    assert peer.returncode == code


def test_all_output_comes_and_nobody_waits_for_who_is_left_behind():
    peer = start("sh", "-c", "setsid sleep 3 & head -c 300000 /dev/zero | tr '\\0' x; exit 4")
    shown = talk(peer, b"")
    assert shown == "x" * 300000
    assert peer.returncode == 4


def test_more_is_pasted_than_the_terminal_holds_to_a_program_that_echoes():
    peer = start("sh", "-c", "stty raw -echo; echo ready; head -c 200000")
    assert peer.stdout is not None
    assert peer.stdout.readline() == b"ready\n"
    pasted = bytes(range(256)) * 800
    assert talk(peer, keys(pasted)).encode("latin-1") == pasted[:200000]


def test_the_last_output_comes_even_if_we_come_late(monkeypatch, capfd):
    """A busy host may keep us waiting for longer than we want to wait."""
    monkeypatch.setattr(remote, "GRACE", 0.0)
    pid, terminal = remote.start(["sh", "-c", "head -c 50000 /dev/zero | tr '\\0' x"], 24, 80)
    bridge = remote.Bridge(pid, terminal)
    shown = 0
    while not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        if select.select([terminal], [], [], 0.01)[0]:
            bridge._show()
            shown += len(capfd.readouterr().out)
    bridge._show_last()
    os.waitpid(pid, 0)
    os.close(terminal)
    os.close(bridge._shell)
    assert shown + len(capfd.readouterr().out) == 50000


def test_the_end_of_input_hangs_up():
    peer = start("sh", "-c", "trap 'exit 5' HUP; echo ready; while :; do sleep 0.01; done")
    with peer:
        assert peer.stdout is not None
        assert peer.stdin is not None
        assert peer.stdout.readline() == b"ready\r\n"
        peer.stdin.close()
        assert peer.wait(LIMIT) == 5


def test_who_is_hung_up_has_time_to_end():
    """A shell writes its history, for example."""
    peer = start(
        "sh", "-c", "trap 'sleep 1.5; exit 5' HUP; echo ready; while :; do sleep 0.01; done"
    )
    with peer:
        assert peer.stdout is not None
        assert peer.stdin is not None
        assert peer.stdout.readline() == b"ready\r\n"
        peer.stdin.close()
        assert peer.wait(LIMIT) == 5


def test_a_program_that_ignores_it_is_killed():
    peer = start("sh", "-c", "trap '' HUP; echo ready; while :; do sleep 0.01; done")
    with peer:
        assert peer.stdout is not None
        assert peer.stdin is not None
        assert peer.stdout.readline() == b"ready\r\n"
        peer.stdin.close()
        assert peer.wait(LIMIT) == 137


def test_a_silent_end_is_gone_after_a_while():
    argv = shell_argv(
        USUAL, ("sh", "-c", "trap 'exit 5' HUP; while :; do echo on; sleep 0.01; done")
    )
    for silence in (0.5, 2.0, 8.0):  # on a busy host, the shell may not have begun by then
        script = argv[3].replace("SILENCE = 600.0", f"SILENCE = {silence}")
        assert script != argv[3]
        peer = subprocess.Popen(
            [sys.executable, *argv[1:3], script, *argv[4:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        # That it still has something to say does not count.
        if shown := talk(peer, b""):
            break
    assert shown.startswith("on")
    assert peer.returncode == 5


# The local end, on a terminal with a program behind it that needs no controller.

_NEARBY = """
import os, subprocess, sys
from boincvm.client.terminal_session import TerminalSession, size_of
from boincvm.guestlink.terminal.protocol import shell_argv

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


def own(*program: str):
    return on_terminal(sys.executable, "-c", _NEARBY, *program, rows=25, columns=81)


async def until_raw(terminal: OnTerminal) -> None:
    await terminal.until("ready")
    assert terminal.modes() != terminal.modes_before


async def test_a_terminal_is_given_and_taken_back():
    async with own("sh") as terminal:
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
    async with own("sh", "-c", "echo ready; cat") as terminal:
        await until_raw(terminal)
        terminal.process.send_signal(number)
        await terminal.until("ended False 129")
        assert terminal.modes() == terminal.modes_before


async def test_the_user_can_leave_a_guest_that_does_not_answer():
    script = "trap '' HUP INT; stty -echo; echo ready; while :; do sleep 1; done"
    async with own("sh", "-c", script) as terminal:
        await until_raw(terminal)
        terminal.type("\x03~.\r~.")
        await terminal.until("ended False 137")
        assert terminal.modes() == terminal.modes_before


async def test_a_sign_of_life_while_nobody_types():
    script = _NEARBY.replace("\nfar = Far()", "\nlocal.BEAT = 0.05\nfar = Far()").replace(
        "\nimport", "\nfrom boincvm.client import terminal_session as local\nimport", 1
    )
    received = "import os; print('ready', len(os.read(0, 6) + os.read(0, 6) + os.read(0, 6)))"
    script = script.replace("*shell_argv(size_of(0), sys.argv[1:])[1:]", f'"-c", {received!r}')
    async with on_terminal(sys.executable, "-c", script) as terminal:
        await terminal.until("ready 18")
        await terminal.until("ended True 0")


async def test_the_remote_end_is_gone_at_once():
    async with own("true") as terminal:
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
    reported = shell_environment(
        {"TERM": "linux", "LANG": "x" * 200, "LC_ALL": "a\nb", "HOME": "/"}
    )
    assert reported == {"TERM": "linux"}
    assert shell_environment({}) == {"TERM": "xterm"}
