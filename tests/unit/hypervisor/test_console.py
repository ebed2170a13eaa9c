"""What a guest's console tells of the end of its kernel."""

import asyncio
import socket

import pytest

from boincvm.hypervisor.console import Console

PANIC = "Kernel panic - not syncing: "
INIT = "Attempted to kill init! exitcode=0x00000100"


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("", ""),
        ("a login:\n", ""),
        (f"words\r\n[    0.4] {PANIC}sysrq triggered crash\r\n", "sysrq triggered crash"),
        (f"{PANIC}{INIT}\r\n", INIT),
        (f"\n{PANIC}{INIT}\n", INIT),
        (
            f"boincvm: the guest cannot start: no root on /dev/vda\r\n[    0.4] {PANIC}{INIT}\r\n",
            f"boincvm: the guest cannot start: no root on /dev/vda ({INIT})",
        ),
        (f"one\n\x1b[2Jtwo\n\r\n{PANIC}{INIT}\n", f"[2Jtwo ({INIT})"),
        (f"{'x' * 1000}\n{PANIC}{INIT}\n", f"{'x' * 300} ({INIT})"),
        (f"{PANIC}\n", "without an answer"),
    ],
)
def test_the_panic_s_line_has_the_words_of_the_first_program(output: str, line: str) -> None:
    async def panic_line() -> str:
        ours, guests = socket.socketpair()
        console = Console(ours)
        guests.sendall(output.encode())
        guests.close()
        try:
            return console.panic_line()
        finally:
            console.close()

    assert asyncio.run(panic_line()) == line
