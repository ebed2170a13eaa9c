"""Standard input shared with a shell's loop: `while read x; do boincvm run …; done <list`."""

import os
import stat

from boincvm.standard_error import write_line

_STDIN = 0


class SharedInput:
    """Checks how much of our standard input a program has taken.

    If it is a file that another process has partly read before us, as a loop does, that process
    misses what we take. For a pipe this cannot be detected.
    """

    def __init__(self) -> None:
        self._begin = self._position()

    def report_consumed(self, verb: str) -> None:
        """Tell the user what to do if the program took input that a loop may have wanted."""
        if self._begin > 0 and (taken := self._position() - self._begin) > 0:
            write_line(
                f"boincvm: the rest of standard input, {taken} bytes, went to the program:"
                " a loop that reads it ends here\n"
                f"  leave it alone with boincvm {verb} -n"
            )

    @staticmethod
    def _position() -> int:
        """Return how many bytes of the file were read; 0 if it is not a file."""
        try:
            is_file = stat.S_ISREG(os.fstat(_STDIN).st_mode)
            return os.lseek(_STDIN, 0, os.SEEK_CUR) if is_file else 0
        except OSError:
            return 0
