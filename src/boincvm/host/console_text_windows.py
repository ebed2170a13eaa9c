"""Text that this process reads and writes on Windows: UTF-8, as that of a guest is."""

import atexit
import io
import sys

from boincvm.host import win32_windows as win32

assert sys.platform == "win32"

_UTF_8 = 65001


def use_utf8() -> None:
    """Have the standard streams be UTF-8, and have a console take them for it until we end.

    Python's own default is the user's code page where a stream is a file or a pipe; and a console
    reads bytes, such as those that a guest's program prints, in a code page of its own.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    former: int = win32.kernel32.GetConsoleOutputCP()  # 0 without a console
    if former not in (0, _UTF_8) and win32.kernel32.SetConsoleOutputCP(_UTF_8):
        atexit.register(win32.kernel32.SetConsoleOutputCP, former)
