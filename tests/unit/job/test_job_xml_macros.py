"""Macros and logical names."""

import pytest

from boincvm.job.macros import Macros, expand, resolve_names, with_physical_names

MACROS = Macros("/boinc/projects/p", 4, "/boinc/slots/0", 1)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("", ""),
        ("no macro $ $$ $HOME", "no macro $ $$ $HOME"),
        ("$PROJECT_DIR/x", "/boinc/projects/p/x"),
        ("-t $NTHREADS", "-t 4"),
        ("$PWD:$PWD", "/boinc/slots/0:/boinc/slots/0"),
        ("--gpu=$GPU_DEVICE_NUM", "--gpu=1"),
        ("$NTHREADS_x$PWDx$NTHREADSS", "4_x/boinc/slots/0x4S"),
        ("$$PWD", "$/boinc/slots/0"),
        ("${PWD} $pwd $PROJECT_DI", "${PWD} $pwd $PROJECT_DI"),
    ],
)
def test_expand(text, expanded):
    assert expand(text, MACROS) == expanded


def test_what_is_not_known():
    unknown = Macros("", 1, "/slot")
    assert expand("$PROJECT_DIR $GPU_DEVICE_NUM", unknown) == ". $GPU_DEVICE_NUM"


def test_a_macros_value_is_not_expanded_again():
    odd = Macros("$PWD", 1, "$NTHREADS")
    assert expand("$PROJECT_DIR $PWD", odd) == "$PWD $NTHREADS"


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("", ""),
        ("a b", "a b"),
        ("boinc_resolve(in)", "<in>"),
        ("-i boinc_resolve(in),boinc_resolve( out )x", "-i <in>,<out>x"),
        ("boinc_resolve(in 1.txt)", "<in 1.txt>"),
        ("boinc_resolve(a(b)c)", "<a(b>c)"),
        ("boinc_resolve(in", "boinc_resolve(in"),
        ("boinc_resolve(in) boinc_resolve(out", "<in> boinc_resolve(out"),
        ("boinc_resolve() boinc_resolve( )", "boinc_resolve() boinc_resolve( )"),
        ("boinc_resolve (in) BOINC_RESOLVE(in)", "boinc_resolve (in) BOINC_RESOLVE(in)"),
        (") boinc_resolve(in)", ") <in>"),
        ("boinc_resolve(boinc_resolve(in))", "<in>"),
        ("boinc_resolve(boinc_resolve(boinc_resolve(in)))) x", "<in>) x"),
        ("boinc_resolve(boinc_resolve(in) x", "<in> x"),
    ],
)
def test_resolve_names(text, resolved):
    assert resolve_names(text, "<{}>".format) == resolved


def test_a_resolved_name_is_not_resolved_again():
    assert resolve_names("boinc_resolve(a)", "boinc_resolve({})".format) == "boinc_resolve(a)"


def test_what_resolve_raises_passes_through():
    def refuse(name: str) -> str:
        raise LookupError(name)

    with pytest.raises(LookupError, match="in"):
        resolve_names("boinc_resolve(in)", refuse)
    with pytest.raises(LookupError, match="in"):
        with_physical_names(["./in"], refuse)


def test_a_long_text_takes_no_time():
    text = "boinc_resolve(" * 70_000
    assert resolve_names(text, str.upper) == text
    assert resolve_names("boinc_resolve(a)" * 60_000, str.upper) == "A" * 60_000


def test_arguments_with_physical_names():
    words = ["./in", "in", "-i./in", "./", ".", "../in", "./a/b", ""]
    assert with_physical_names(words, "<{}>".format) == [
        "<./in>",
        "in",
        "-i./in",
        "./",
        ".",
        "../in",
        "<./a/b>",
        "",
    ]
