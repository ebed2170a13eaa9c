"""The wrapper's own command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.errors import UsageError
from boincvm.job.wrapper_arguments import (
    WrapperArguments,
    arguments_of_children,
    parse_wrapper_arguments,
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", WrapperArguments()),
        ("--nthreads 4", WrapperArguments(threads=4)),
        ("--nthreads 4.000000", WrapperArguments(threads=4)),
        ("--nthreads 0", WrapperArguments(threads=1)),
        ("--nthreads -3", WrapperArguments(threads=1)),
        ("--nthreads 1e300", WrapperArguments(threads=256)),
        ("--nthreads 2 --nthreads 3", WrapperArguments(threads=3)),
        ("--device 0", WrapperArguments(device=0)),
        ("--device 1", WrapperArguments(device=1)),
        ("--device -1", WrapperArguments(device=None)),
        ("--memory_size_mb 1024", WrapperArguments(memory=1 << 30)),
        ("--memory_size_mb 0", WrapperArguments(memory=None)),
        ("--memory_size_mb -5", WrapperArguments(memory=None)),
        ("--memory_size_mb 1e300", WrapperArguments(memory=1 << 44)),
        ("--trickle 3600", WrapperArguments(trickle_period=3600.0)),
        ("--trickle 0.5", WrapperArguments(trickle_period=0.5)),
        ("--trickle 0", WrapperArguments(trickle_period=None)),
        ("--sporadic", WrapperArguments(is_sporadic=True)),
        ("--use_tstp", WrapperArguments(use_tstp=True)),
        ("--version", WrapperArguments(show_version=True)),
        ("-v", WrapperArguments(show_version=True)),
        ("--help", WrapperArguments(show_help=True)),
        ("-h", WrapperArguments(show_help=True)),
        ("--help --nthreads 2", WrapperArguments(show_help=True)),
        ("--nthreads 2 --help", WrapperArguments(show_help=True)),
        ("--nthreads --help", WrapperArguments(show_help=True)),
        ("--help 7", WrapperArguments(show_help=True)),
        ("--nthreads 2 -h", WrapperArguments(threads=2, show_help=True)),
        ("-h 7", WrapperArguments()),  # of a program, as with VMWrapper
        ("--passthrough_all --help", WrapperArguments()),
        ("--passthrough_child --help", WrapperArguments()),
        ("--passthrough_child", WrapperArguments()),
        ("--nthreads 2 --passthrough_child --nthreads 8 -v", WrapperArguments(threads=2)),
        ("in --seed 7 --sporadic --seed=8", WrapperArguments(is_sporadic=True)),
        ("--NTHREADS 4", WrapperArguments()),
    ],
)
def test_arguments(words, expected):
    arguments = parse_wrapper_arguments(words.split())
    assert arguments._replace(child_arguments=(), unknown=()) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", ""),
        ("--nthreads 4", ""),
        ("a --device 3 b", ""),
        ("--passthrough_all a --device 3 b", "a --device 3 b"),  # as with an older wrapper
        (
            "a --nthreads 2 --passthrough_all --passthrough_child c",
            "a --nthreads 2 --passthrough_child c",
        ),
        ("--passthrough_child --passthrough_all a", "--passthrough_all a"),
        ("a --device 3 --passthrough_child c --device", "c --device"),
        ("--nthreads 2 --passthrough_child x --passthrough_child y", "x --passthrough_child y"),
        ("--passthrough_child", ""),
    ],
)
def test_what_children_get(words, expected):
    assert parse_wrapper_arguments(words.split()).child_arguments == tuple(expected.split())


def test_unknown_arguments_are_a_fault_but_for_vmwrapper():
    arguments = parse_wrapper_arguments(
        ["--seed", "7", "--nthreads", "2", "--passthrough_child", "x"]
    )
    assert arguments_of_children(arguments, is_for_vmwrapper=True) == ("--seed", "7", "x")
    with pytest.raises(UsageError, match="unknown argument '--seed'") as caught:
        arguments_of_children(arguments, is_for_vmwrapper=False)
    assert "--passthrough_all" in caught.value.hint


@pytest.mark.parametrize("option", ["--nthreads", "--device", "--trickle"])
@pytest.mark.parametrize("value", [[], [""], ["many"], ["nan"], ["inf"], ["--sporadic"]])
def test_a_number_that_is_none(option, value):
    with pytest.raises(UsageError, match=rf"{option}: found .*, expected a number") as caught:
        parse_wrapper_arguments([option, *value])
    assert "--nthreads N" in caught.value.hint


WORDS = st.sampled_from(
    ["--nthreads", "--device", "--trickle", "--sporadic", "--passthrough_child", "-v", "2", "-1"]
)


@given(st.lists(st.one_of(WORDS, st.text())))
def test_any_words_are_arguments_or_a_usage_error(words):
    try:
        arguments = parse_wrapper_arguments(words)
    except UsageError:
        return
    assert 1 <= arguments.threads <= 256
    assert set(arguments.child_arguments) <= set(words)
    assert set(arguments.unknown) <= set(words)
