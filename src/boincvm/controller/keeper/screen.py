"""A shell on a machine's screen, for whoever sits before it: the guest has no getty."""

from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram
from boincvm.wrapper.guest_place import ENVIRONMENT, WORK

# Each shell has the screen as its controlling terminal, so that Ctrl-C reaches what it runs.
_SHELLS = """
import fcntl, os, termios
while True:
    child = os.fork()
    if child == 0:
        os.setsid()
        screen = os.open("/dev/tty1", os.O_RDWR)
        fcntl.ioctl(screen, termios.TIOCSCTTY, 1)
        for number in (0, 1, 2):
            os.dup2(screen, number)
        os.execv("/bin/sh", ["-sh", "-i"])
    os.waitpid(child, 0)
"""


def open_screen(link: GuestLink) -> None:
    """Begins to offer one, for as long as the machine lives."""
    program = GuestProgram(
        link,
        ["python3", "-I", "-S", "-c", _SHELLS],
        directory=str(WORK),
        environment={**ENVIRONMENT, "TERM": "linux"},
        output=lambda *_: None,
    )
    program.end_input()
