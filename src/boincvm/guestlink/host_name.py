"""Names that machines have for themselves, made of the names that they have for us."""

LONGEST = 63
"""Characters of a label (RFC 1123, 2.1; RFC 1034, 3.1), and of a Linux host name."""
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")


def host_name(text: str) -> str:
    """`text` as one label of RFC 1123; empty where nothing of it can be in one.

    What no label may have becomes a hyphen, dots too: what follows one would be a domain. A name
    of digits alone, which C libraries take for an address, gets `vm-` before it.
    """
    kept = "".join(one if one.lower() in _LETTERS else "-" for one in text)
    name = kept.strip("-")[:LONGEST].rstrip("-")
    return f"vm-{name}"[:LONGEST] if name.isdigit() else name
