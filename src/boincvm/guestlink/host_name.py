"""Derives the machines' host names from our names for them."""

LONGEST = 63
"""Characters of a label (RFC 1123, 2.1; RFC 1034, 3.1), and of a Linux host name."""
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")


def host_name(text: str) -> str:
    """Return `text` as one label of RFC 1123; empty if no character of it can be in one.

    Invalid characters become hyphens, dots too: what follows a dot would be a domain. A name of
    digits alone, which C libraries take for an address, is prefixed with `vm-`.
    """
    label = "".join(character if character.lower() in _LETTERS else "-" for character in text)
    name = label.strip("-")[:LONGEST].rstrip("-")
    return f"vm-{name}"[:LONGEST] if name.isdigit() else name
