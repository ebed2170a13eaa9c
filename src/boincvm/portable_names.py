r"""File names that every host reads in the same way: a job file travels to hosts with Windows.

Windows cannot store some characters, takes `a:b` for a stream of the file a, drops dots and spaces
at the end of a name, knows devices such as `NUL` in every directory, gives files with long names
a second one such as `PROGRA~1` (8.3 characters), and does not tell `A` from `a`
(learn.microsoft.com/windows/win32/fileio/naming-a-file).
"""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

PORTABLE_NAME = (
    r'a name that Windows can store: without \ : * ? " < > | and control characters,'
    " without a dot or a space at the end of a part, and neither a device such as NUL or COM1"
    " nor a short name such as PROGRA~1"
)
"""What is expected, for messages."""
PORTABLE_HINT = "a name has no dot at its end, and is not a device of Windows' such as nul or con"
"""For names of letters, digits, dots, underscores and hyphens alone."""

_CHARACTER = re.compile(r'[\\:*?"<>|\x00-\x1f]')
_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³]) *(?:\.|$)", re.IGNORECASE
)
_SHORT = re.compile(r"(?=[^.]{1,8}(?:\.|$))[^.~]{1,6}~[0-9]{1,6}(?:\.[^.]{0,3})?$")


def is_portable_part(name: str) -> bool:
    """Tell whether Windows can store one part of a path, and reads it as other systems do."""
    return not (
        _CHARACTER.search(name)
        or _DEVICE.match(name)
        or _SHORT.match(name)
        or name.endswith((".", " "))
    )


def is_portable(path: PurePosixPath) -> bool:
    """Tell whether Windows can store a relative path, and reads it as other systems do."""
    return all(is_portable_part(part) for part in path.parts)


def first_clash(paths: Iterable[PurePosixPath]) -> int | None:
    """Return the index of the first path that is an earlier one to Windows, or None."""
    seen: set[tuple[str, ...]] = set()
    for index, path in enumerate(paths):
        name = folded(path)
        if name in seen:
            return index
        seen.add(name)
    return None


def folded(path: PurePosixPath) -> tuple[str, ...]:
    """Return the parts of a path, which are those of any other path that Windows takes for it."""
    return tuple("".join(map(_upper, part)) for part in path.parts)


def _upper(letter: str) -> str:
    """Return a letter in upper case, as Windows compares names: one letter for one."""
    upper = letter.upper()
    return upper if len(upper) == 1 else letter
