"""Patterns of zip_output, against what std::regex, which BOINC's wrapper uses, was seen to do."""

import os

import pytest

from boincvm.job.name_pattern import compile_name_pattern

NAMES = ["abc", "x1", ".hid", "sp ace", "A_B", "z-z", "9", "a{1}", "a[b]", "tab\t", "é", "aa"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("[[:punct:]]", [".hid", "A_B", "z-z", "a{1}", "a[b]"]),
        ("[[:blank:]]", ["sp ace", "tab\t"]),
        ("[[:cntrl:]]", ["tab\t"]),
        ("[[:graph:]]", [name for name in NAMES if name != "é"]),
        ("[[:print:]]$", [name for name in NAMES if name not in ("é", "tab\t")]),
        ("^[[:w:]]+$", ["abc", "x1", "A_B", "9", "aa"]),
        ("[[:d:]]", ["x1", "9", "a{1}"]),
        ("^[^[:alnum:]]", [".hid", "é"]),
        ("[[:UPPER:]]", ["A_B"]),
        ("[[.hyphen.]]", ["z-z"]),
        ("[[.period.][.left-square-bracket.]]", [".hid", "a[b]"]),
        ("[[.x.]]", ["x1"]),
        ("^[[=a=]]", ["abc", "A_B", "a{1}", "a[b]", "aa"]),
        ("[[]", ["a[b]"]),
        ("[]b]", []),  # no character, then b]
        ("[^]b", ["abc", "a[b]", "tab\t"]),
        ("[x-z]", ["x1", "z-z"]),
        ("[+-]", ["z-z"]),
        ("[-+]", ["z-z"]),
        ("[0-4-6]", ["x1", "z-z", "a{1}"]),
        ("[a&&~~||]{2}", ["aa"]),
        (r"[\d\]]", ["x1", "9", "a{1}", "a[b]"]),
        (r"[\x41\b]", ["A_B"]),
        (r"\u0041", ["A_B"]),
        (r"\cA", ["A_B"]),
        (r"\h\id", [".hid"]),
        (r"\Z", []),
        (r"\_", ["A_B"]),
        ("}", ["a{1}"]),
        ("]", ["a[b]"]),
        (r"a\{", ["a{1}"]),
        ("^a{2}$", ["aa"]),
        ("a++a", ["aa"]),  # a repeat of a repeat, not Python's possessive one
        ("a{1,2}?b|x", ["abc", "x1", "tab\t"]),
        (r"(a)\1", ["aa"]),
        ("^(?:a(?!b)|s)", ["sp ace", "a{1}", "a[b]", "aa"]),
        ("^..$", ["x1", "é", "aa"]),  # bytes
        ("é", ["é"]),
        ("^$|^9", ["9"]),
    ],
)
def test_a_pattern_matches_as_by_std_regex(pattern: str, names: list[str]) -> None:
    compiled = compile_name_pattern(pattern)
    assert [name for name in NAMES if compiled.search(os.fsencode(name))] == names


@pytest.mark.parametrize(
    "pattern",
    ["[a", "a)", "(a", "*", "a|*", "^*", "a{", "{", "a{,2}", "[z-a]", "[a--b]", "[[:alpha:]-z]",
     "[a-[:alpha:]]", "[[:bogus:]]", "[[.bogus.]]", "[[:alpha]", "(?i)a", "(?<=a)b", "(?P<n>a)",
     "(?=a)*", r"\1", r"\x4", r"[\1]", "a\\"],
)  # fmt: skip
def test_what_std_regex_refuses_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        compile_name_pattern(pattern)


@pytest.mark.parametrize("pattern", ["[a-b--]", r"\u0141", r"\100"])
def test_what_may_be_read_in_two_ways_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="position"):
        compile_name_pattern(pattern)
