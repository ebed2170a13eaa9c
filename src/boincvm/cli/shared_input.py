"""Standard input that a shell's loop reads too: `while read x; do boincvm run …; done <list`."""

import os
import stat

from boincvm.standard_error import say

_STDIN = 0


class SharedInput:
    """A look at our standard input before a program gets it, and after.

    Where it is a file that somebody has read a part of before us, as a loop has, what we take is
    missing there. Of a pipe nobody can tell.
    """

    def __init__(self) -> None:
        self._begin = self._place()

    def tell_if_taken(self, verb: str) -> None:
        """Say what to do, where the program was given what a loop may have wanted."""
        if self._begin > 0 and (taken := self._place() - self._begin) > 0:
            say(
                f"boincvm: the rest of standard input, {taken} bytes, went to the program:"
                " a loop that reads it ends here\n"
                f"  leave it alone with boincvm {verb} -n"
            )

    @staticmethod
    def _place() -> int:
        """Bytes of the file that were read; 0 for what is no file."""
        try:
            is_file = stat.S_ISREG(os.fstat(_STDIN).st_mode)
            return os.lseek(_STDIN, 0, os.SEEK_CUR) if is_file else 0
        except OSError:
            return 0
