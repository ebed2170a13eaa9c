"""`.dockerignore`: which files stay out of a build."""

import time

import pytest

from boincvm.errors import InputFileError
from boincvm.image.oci.ignore_rules import MOST_RULES, IgnoreRules


def is_left_out(rules: str, path: str) -> bool:
    read = IgnoreRules(rules.encode())
    fitting: frozenset[int] = frozenset()
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        fitting = read.fitting(parts[:depth], fitting)
    return read.leaves_out(fitting)


@pytest.mark.parametrize(
    ("rules", "out", "sent"),
    [
        ("", [], ["a", ".dockerignore"]),
        ("# *\n\n   \n", [], ["a"]),
        ("a", ["a", "a/b", "a/b/c"], ["aa", "b/a"]),
        ("/a\n./b/\nc//d/../e", ["a", "b/x", "c/e"], ["c/d"]),
        ("  a  \r\nb", ["a", "b"], []),
        ("\ufeffa", ["a"], []),
        ("*.o", ["a.o", ".o", "d.o/x"], ["d/a.o", "a.oo"]),
        ("**/*.o", ["a.o", "x/y/a.o"], ["a.c"]),
        ("**.o", ["x/.o", ".o"], ["a.o"]),
        ("a/*/c", ["a/b/c", "a/b/c/d"], ["a/c", "a/b/d/c"]),
        ("a/**/c", ["a/c", "a/b/c", "a/b/d/c"], ["c", "b/c"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b"]),
        ("**", ["a", "a/b"], []),
        ("**/a/**/b", ["a/b", "x/a/y/b/z"], ["b/a", "a/x"]),
        ("a?", ["ab"], ["a", "abc"]),
        ("[a-c]x\n[^a-z]y\n[]z", ["bx", "1y"], ["dx", "ay"]),
        (r"\*a", ["*a"], ["ba"]),
        ("a*b*c", ["abc", "a-b-c", "abcbc"], ["a-c-b", "ab"]),
        ("a.c(d)|e", ["a.c(d)|e"], ["abc(d)|e", "a.cd"]),
        ("*\n!a\n!b/c", ["d", "b", "b/d"], ["a", "a/x", "b/c", "b/c/d"]),
        ("a\n!a/b\na/b/c", ["a", "a/c", "a/b/c"], ["a/b", "a/b/d"]),
        ("!a\na", ["a"], []),
        ("../a\n..\n.\n/", [], ["a"]),
        ("donn\u00e9es", ["donn\u00e9es"], []),
    ],
)
def test_what_the_rules_leave_out(rules: str, out: list[str], sent: list[str]) -> None:
    if "[]z" in rules:
        with pytest.raises(InputFileError, match="line 3"):
            IgnoreRules(rules.encode())
        rules = rules.removesuffix("\n[]z")
    assert [path for path in out if not is_left_out(rules, path)] == []
    assert [path for path in sent if is_left_out(rules, path)] == []


def test_a_name_that_is_no_utf8() -> None:
    rules = IgnoreRules(b"a\xff*\n")
    assert rules.leaves_out(rules.fitting([b"a\xffb".decode(errors="surrogateescape")]))


def test_only_with_an_exception_something_below_may_be_sent() -> None:
    assert not IgnoreRules(b"a\nb").has_exceptions
    assert IgnoreRules(b"a\n!b").has_exceptions


@pytest.mark.parametrize("rules", ["*a" * 200 + "b", "**/a/" * 200 + "b", "[a-z]*" * 200 + "1"])
def test_no_rule_takes_long(rules: str) -> None:
    paths = ["a" * 255, "/".join("a" * 60), "a" * 60 + "/" + "b" * 60]
    before = time.process_time()
    assert not any(is_left_out(rules, path) for path in paths)
    assert time.process_time() - before < 5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[a", "line 2: a '[' without ']'"),
        (b"[z-a]", "a range from 'z' to 'a'"),
        (b"[^]", "nothing between them"),
        (b"!", "an exception that names nothing"),
        (b"a" * 5000, "more than 4096"),
        (b"a\n" * (MOST_RULES + 1), f"more than {MOST_RULES} rules"),
    ],
)
def test_a_fault_names_the_line(line: bytes, message: str) -> None:
    with pytest.raises(InputFileError) as caught:
        IgnoreRules(b"ok\n" + line, "dir/.dockerignore")
    assert message in caught.value.message
    assert caught.value.message.startswith("dir/.dockerignore")
