"""Suggests a name that exists in place of one that does not."""

from collections.abc import Iterable

_LONGEST = 64
"""Characters of a name that are compared."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean NAME? " with the known name that is most like `name`.

    Empty if none is like it. It is to precede the rest of a hint.
    """
    import difflib  # slow, and only a mistake needs it

    close = difflib.get_close_matches(name[:_LONGEST], known, n=1)
    return f"did you mean {close[0]}? " if close else ""
