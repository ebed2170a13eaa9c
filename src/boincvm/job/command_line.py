"""How BOINC splits a command line (lib/str_util.cpp, parse_command_line).

Not as a shell does: there is no backslash, and a quote means something only where a word
begins. `a'b c'` is two words, and so is `'a'b`.
"""

import re

_WORD = re.compile(r"""'([^']*)'?|"([^"]*)"?|([^ \t\n\v\f\r]+)""")


def split(text: str) -> list[str]:
    """Split `text` into words.

    A quote that is not closed reaches to the end. Two quotes with nothing between them are an
    empty word; BOINC itself takes the second for the word's first character.
    """
    return [single or double or plain or "" for single, double, plain in _WORD.findall(text)]
