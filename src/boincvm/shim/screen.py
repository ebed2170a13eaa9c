"""A shell on a machine's screen, for the person in front of it: the guest has no getty.

The guest's kernel has no driver for the screen either: it is started by PVH, which does not tell it
of one (Documentation/arch/x86/boot.rst), and keeps the contents of its terminals only in memory. So
the text, and the cursor as an inverse cell, are copied from there (vcs(4)) to the VGA text mode
that the firmware has set.
"""

from boincvm.guestlink.guest_paths import WORK
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram

# Each shell has the screen as its controlling terminal, so that Ctrl-C reaches what it runs.
_SHELLS = """
import fcntl, mmap, os, select, signal, termios

SIZE = 4096
INVERSE = 0x70

def show():
    seen = os.open("/dev/vcsa1", os.O_RDONLY)
    memory = mmap.mmap(os.open("/dev/mem", os.O_RDWR), SIZE, offset=0xB8000)
    changes = select.poll()
    changes.register(seen, select.POLLPRI)
    while True:
        lines, columns, x, y, *text = os.pread(seen, SIZE, 0)
        cursor = 2 * (y * columns + x) + 1
        text[cursor : cursor + 1] = [INVERSE]
        memory[: len(text)] = bytes(text)
        changes.poll()

def serve():
    os.setsid()
    screen = os.open("/dev/tty1", os.O_RDWR)
    fcntl.ioctl(screen, termios.TIOCSCTTY, 1)
    for number in (0, 1, 2):
        os.dup2(screen, number)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
        signal.signal(number, signal.SIG_DFL)
    os.execv("/bin/sh", ["-sh", "-i"])

if os.fork() == 0:
    show()
while True:
    shell = os.fork()
    if shell == 0:
        serve()
    os.waitpid(shell, 0)
"""


def open_screen(link: GuestLink) -> None:
    """Start offering a shell on the screen, for as long as the machine lives."""
    program = GuestProgram(
        link,
        ["python3", "-I", "-S", "-c", _SHELLS],
        directory=str(WORK),
        environment={**link.environment, "TERM": "linux"},
        output=lambda *_: None,
    )
    program.end_input()
