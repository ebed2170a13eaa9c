"""The line of every key, compared with tomllib's result for the same text."""

import time
import tomllib

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from boincvm.job.toml_lines import DEEPEST_POSITION, line_numbers, longest_key, tokens


def positions(value, position=()):
    """Yield every position within a parsed document."""
    if position:
        yield position
    if len(position) < DEEPEST_POSITION:
        items = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list):
            items = enumerate(value)
        for key, inner in items:
            yield from positions(inner, (*position, key))


TEXT = '''# a comment = 1
top = 1
[table] # [no]
"quoted\\tkey" = "]"
'literal' = """
[not]
a = table"""
[[array]]
x.y = [
  1,
  { z = 'q', w = [ 2,
    3 ] }, # [
]
[array.inner]
k = 1979-05-27 07:32:00
[[array]]
k = \'\'\'a
\'\'\'\'\'
l = 1.5e3
[[array.deep]]
m = true
'''


def test_lines_of_a_text_with_everything():
    assert line_numbers(TEXT) == {
        ("top",): 2,
        ("table",): 3,
        ("table", "quoted\tkey"): 4,
        ("table", "literal"): 5,
        ("array",): 8,
        ("array", 0): 8,
        ("array", 0, "x"): 9,
        ("array", 0, "x", "y"): 9,
        ("array", 0, "x", "y", 0): 10,
        ("array", 0, "x", "y", 1): 11,
        ("array", 0, "x", "y", 1, "z"): 11,
        ("array", 0, "x", "y", 1, "w"): 11,
        ("array", 0, "inner"): 14,
        ("array", 0, "inner", "k"): 15,
        ("array", 1): 16,
        ("array", 1, "k"): 17,
        ("array", 1, "l"): 19,
        ("array", 1, "deep"): 20,
        ("array", 1, "deep", 0): 20,
        ("array", 1, "deep", 0, "m"): 21,
    }
    assert set(positions(tomllib.loads(TEXT))) == set(line_numbers(TEXT))


KEY = st.sampled_from(["a", "b", "1", "'c d'", '"e\\n"', "a.b", "b . 'x.y'", '""', '"#"'])
VALUE = st.recursive(
    st.sampled_from(
        [
            "1", "-1.5e3", "true", "1979-05-27 07:32:00.5", "''", "'#'", '"\\"]"', "nan",
            '"""\n\\""""""', "'''a\n]''''", '"""\\\n  x"""', '"\\\\"', "'\\'", "0x1F",
        ]
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: "[ # ]\n" + ",\n".join(v) + "\n]"),
        st.lists(inner, max_size=3).map(lambda v: "[" + "".join(f"{x}, " for x in v) + "]"),
        st.lists(st.tuples(KEY, inner), max_size=2).map(
            lambda v: "{" + ", ".join(f"{k} = {x}" for k, x in v) + "}"
        ),
    ),
    max_leaves=5,
)  # fmt: skip
STATEMENT = st.one_of(
    st.tuples(KEY, VALUE).map(" = ".join),
    KEY.map(lambda key: f"[{key}]"),
    KEY.map(lambda key: f"[[ {key} ]] # x"),
    st.sampled_from(["", "# a = 1", "\t"]),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(STATEMENT, max_size=8).map("\n".join))
def test_every_position_that_tomllib_knows_has_a_line(text):
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)
    lines = line_numbers(text)
    assert set(positions(document)) <= set(lines)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


@given(st.text(alphabet="\"'\\ab\n#[]{}=., "))
def test_tokens_cover_any_text(text):
    assert all(token.text for token in tokens(text))
    joined = "".join(token.text for token in tokens(text) if token.kind != "newline")
    outside_comments = [line.split("#")[0] for line in text.split("\n")]
    if not set("\"'") & set(text):
        assert joined == "".join("".join(outside_comments).split(" "))


@pytest.mark.parametrize(
    "text",
    [
        '"""\\' * 150_000,
        '\\"""' * 150_000,
        '"\\' * 300_000,
        "'''" + "''x" * 200_000,
        "[" * 500_000,
        "a" * 1_000_000,
        "a." * 500_000,
    ],
    ids=lambda text: text[:6],
)
def test_hostile_text_takes_linear_time(text):
    begin = time.process_time()
    longest_key(text)
    # Linear takes about a second; quadratic takes hours.
    assert time.process_time() - begin < 30


def test_the_longest_key():
    assert longest_key("a.b = 1.5\n[c . 'd.e.f.g.h' . e]\nx = '1.2.3.4'") == (2, 2)
    assert longest_key("") == (0, 1)
