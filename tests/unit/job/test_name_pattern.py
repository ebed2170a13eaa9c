"""Patterns of zip_output, compared with the observed results of std::regex in BOINC's wrapper."""

import os
import re
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.job.name_pattern import (
    LONGEST_NAME,
    MOST_STEPS,
    NamePatternError,
    compile_name_pattern,
)

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


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        (r"^(a*)b\1$", "aabaa", True),
        (r"^(a*)b\1$", "aaba", False),
        (r"(a)|b\1", "b", False),  # a group that took nothing
        (r"^(?:(a)|b\1)+$", "aba", True),
        (r"^((a|b)c)*\2$", "acbcb", True),
        (r"^(?=(a+))\1b", "aab", True),
        (r"^(?=(a+))a\1b", "aab", False),  # a look-ahead is not tried again
        (r"^(a+?)\1*$", "aaaaa", True),
        (r"(b)(?!\1)", "bb", True),
        (r"^(b)(?!\1)", "bb", False),
    ],
)
def test_references(pattern: str, name: str, found: bool) -> None:
    assert compile_name_pattern(pattern).search(name.encode()) is found
    assert (re.search(pattern, name) is not None) is found


@pytest.mark.parametrize("pattern", [r"(a\1)", r"\1(a)", r"(a)\2", r"((a)\1)"])
def test_a_reference_to_a_group_that_has_not_ended_is_refused(pattern: str) -> None:
    with pytest.raises(NamePatternError, match="has not ended"):
        compile_name_pattern(pattern)


@pytest.mark.parametrize("pattern", ["[a-b--]", r"\u0141", r"\100"])
def test_what_may_be_read_in_two_ways_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="position"):
        compile_name_pattern(pattern)


SLOW = 5.0
"""Seconds of CPU time that no name may take, on a slow host. Python's `re` takes years."""
LONG = b"a" * (LONGEST_NAME - 1) + b"!"
BRANCHES = "|".join(["a"] * 50)


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "^(a|aa)+$", "(a*)*b", "^((a+)*)*$", ".*.*.*.*.*.*.*b", "(a|a?)+b",
     f"({BRANCHES})*b", "(?:a?){200}a{200}b", "^(?:(?:a{1,20}){1,20})*$", "((((((a*)*)*)*)*)*)*b",
     "(?=(a+)+$)b"],
)  # fmt: skip
def test_no_pattern_takes_long(pattern: str) -> None:
    compiled = compile_name_pattern(pattern)
    begin = process_time()
    assert not compiled.search(LONG)
    assert process_time() - begin < SLOW
    assert compiled.search(b"a" * LONGEST_NAME) is pattern.endswith("$")


@pytest.mark.parametrize("pattern", [r"(a*)(a*)(a*)\1\2\3b", r"(?:(?=.*(?=.*(?=.*c)))a?)*b"])
def test_what_may_take_long_ends_and_says_so(pattern: str) -> None:
    begin = process_time()
    with pytest.raises(NamePatternError, match="too long with a name like b'aaa"):
        compile_name_pattern(pattern).search(LONG)
    assert process_time() - begin < SLOW


@pytest.mark.parametrize(
    "pattern",
    [f"a{{{MOST_STEPS - 3}}}", "(?:a{100}){19}", "a" * (MOST_STEPS - 3), "(?:){00000009}"],
)
def test_the_longest_patterns(pattern: str) -> None:
    assert not compile_name_pattern(f"{pattern}b").search(LONG)


@pytest.mark.parametrize(
    "pattern",
    [f"a{{{MOST_STEPS + 1}}}", "((((a{9}){9}){9}){9}){9}", f"a{{{'9' * 5000}}}", "a" * 4000,
     "a{1,9999}", "a|" * 4000, "(" * 100_000],
)  # fmt: skip
def test_patterns_that_are_too_long(pattern: str) -> None:
    with pytest.raises(NamePatternError, match=r"more than 2000 steps|groups nested too deeply"):
        compile_name_pattern(pattern)


_atoms = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\b", r"\B", "^", "(?=a)", "(?!ab)"])
_patterns = st.recursive(
    _atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,}", "*?", "??"])).map(
            lambda both: f"({both[0]}){both[1]}"
        ),
    ),
    max_leaves=8,
)


@given(_patterns, st.text("abc-", min_size=1, max_size=8))
def test_it_is_the_same_as_pythons_where_both_mean_the_same(pattern: str, name: str) -> None:
    expected = re.search(pattern.encode(), name.encode()) is not None
    assert compile_name_pattern(pattern).search(name.encode()) is expected
