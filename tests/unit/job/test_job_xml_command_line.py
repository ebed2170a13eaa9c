"""Command lines are split as BOINC splits them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.job.command_line import split
from boincvm.lenient_xml import WHITE_SPACE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\n", []),
        ("a", ["a"]),
        ("  a\tb\nc\vd\fe\r\nf ", ["a", "b", "c", "d", "e", "f"]),
        ("a\N{NO-BREAK SPACE}b\x1c\x85c", ["a\N{NO-BREAK SPACE}b\x1c\x85c"]),
        ("'a b' \"c d\"", ["a b", "c d"]),
        ('\'a "b"\' "it\'s"', ['a "b"', "it's"]),
        ("'' a \"\"", ["", "a", ""]),
        ("a'b c'", ["a'b", "c'"]),
        ('--x="a b"', ['--x="a', 'b"']),
        ("'a'b", ["a", "b"]),
        ("'a''b'\"c\"", ["a", "b", "c"]),
        ("a 'b c", ["a", "b c"]),
        ("'", [""]),
        (r"a\ b \'c d\'", ["a\\", "b", "\\'c", "d\\'"]),
        (r'"C:\x\" y', ["C:\\x\\", "y"]),
        ("$HOME `ls` *.c ; | & #", ["$HOME", "`ls`", "*.c", ";", "|", "&", "#"]),
    ],
)
def test_split(text, words):
    assert split(text) == words


@given(st.lists(st.text()))
def test_quoted_words_come_back(texts):
    words = [text.replace("'", "") for text in texts]
    assert split(" ".join(f"'{word}'" for word in words)) == words


@given(st.text(st.sampled_from([*"ab'\"\\", *WHITE_SPACE])))
def test_it_reads_character_by_character(text):
    assert split(text) == slowly_split(text)


def slowly_split(text: str) -> list[str]:
    """Implement the rule again, as a machine with three states."""
    words: list[str] = []
    end: str | None = None
    for character in text:
        if end is None and character not in WHITE_SPACE:
            is_quote = character in "'\""
            end = character if is_quote else WHITE_SPACE
            words.append("" if is_quote else character)
        elif end is not None and character in end:
            end = None
        elif end is not None:
            words[-1] += character
    return words


def test_a_long_line_takes_no_time():
    assert len(split("'" * 1_000_001)) == 500_001
    assert len(split("' a" * 300_000)) == 300_000
