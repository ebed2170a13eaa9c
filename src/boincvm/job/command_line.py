"""Splits a command line the way BOINC does (lib/str_util.cpp, parse_command_line).

This differs from a shell: there is no backslash, and a quote has a meaning only at the beginning of
a word. `a'b c'` is two words, and so is `'a'b`.
"""

import re

_WORD = re.compile(r"""'([^']*)'?|"([^"]*)"?|([^ \t\n\v\f\r]+)""")


def split(text: str) -> list[str]:
    """Split `text` into words.

    An unclosed quote extends to the end. Two quotes with nothing between them are an empty word;
    BOINC itself takes the second quote for the word's first character.
    """
    return [single or double or plain or "" for single, double, plain in _WORD.findall(text)]
