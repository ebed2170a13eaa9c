"""The arguments of operations: every kind, and invalid values of each."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as some

from boincvm.controller.arguments import LONGEST_TEXT, MOST_ITEMS, Arguments, Kind, Parameter
from boincvm.controller.operations import OPERATIONS
from boincvm.errors import UsageError
from boincvm.json_value import LARGEST
from support.anything import ANYTHING, HUGE

GOOD: dict[Kind, list[object]] = {
    Kind.TEXT: ["", "x", "ä\n", "x" * LONGEST_TEXT],
    Kind.WHOLE: [0, 1, LARGEST],
    Kind.NUMBER: [0, 0.0, 1.5, LARGEST],
    Kind.FLAG: [True, False],
    Kind.TEXTS: [[], ["", "x"], ["x"] * MOST_ITEMS],
    Kind.TABLE: [{}, {"": "x"}, {str(number): "" for number in range(MOST_ITEMS)}],
}
NO_TEXTS = ["a\0b", "\ud800", "x" * (LONGEST_TEXT + 1), 1, True, [], {}, b"x"]
BAD: dict[Kind, list[object]] = {
    Kind.TEXT: NO_TEXTS,
    Kind.WHOLE: [-1, True, False, 1.0, "1", LARGEST + 1, HUGE, [], {}, math.nan],
    Kind.NUMBER: [-1, -0.1, True, "1", LARGEST * 2, HUGE, math.inf, math.nan, [], {}],
    Kind.FLAG: [0, 1, "true", "", [], {}],
    Kind.TEXTS: ["x", ("x",), {}, 1, True, ["x"] * (MOST_ITEMS + 1), [None], [["x"]]]
    + [["x", one] for one in NO_TEXTS],
    Kind.TABLE: ["x", [], 1, True, {str(one): "" for one in range(MOST_ITEMS + 1)}, {"x": None}]
    + [{"x": one} for one in NO_TEXTS]
    + [{1: "x"}, {"a\0": "x"}, {"\udfff": "x"}],
}
GETTERS = {
    Kind.TEXT: (Arguments.text, Arguments.maybe_text),
    Kind.WHOLE: (Arguments.whole, Arguments.maybe_whole),
    Kind.NUMBER: (Arguments.number, Arguments.maybe_number),
    Kind.FLAG: (Arguments.flag,),
    Kind.TEXTS: (Arguments.texts,),
    Kind.TABLE: (Arguments.table,),
}


def one_of(kind: Kind, **more: object) -> tuple[Parameter, ...]:
    return (Parameter("it", kind, "help", **more),)  # type: ignore[arg-type]


def pairs(values: dict[Kind, list[object]]) -> list[object]:
    return [
        pytest.param(kind, value, id=f"{kind.name}-{str(value)[:12]!a}")
        for kind, several in values.items()
        for value in several
    ]


@pytest.mark.parametrize(("kind", "value"), pairs(GOOD))
def test_what_is_of_its_kind(kind: Kind, value: object) -> None:
    read = Arguments(one_of(kind), {"it": value})
    for get in GETTERS[kind]:
        found = get(read, "it")
        assert found == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(("kind", "value"), pairs(BAD))
def test_what_is_of_another_kind(kind: Kind, value: object) -> None:
    with pytest.raises(UsageError, match="parameter it: found") as reported:
        Arguments(one_of(kind), {"it": value})
    assert kind.value in reported.value.message
    assert len(reported.value.message) < 300
    reported.value.message.encode()


@pytest.mark.parametrize("kind", Kind)
def test_what_is_not_given(kind: Kind) -> None:
    for given_none in ({}, {"it": None}):
        with pytest.raises(UsageError, match="the parameter it is missing"):
            Arguments(one_of(kind, is_required=True), given_none)
        default = GOOD[kind][-1]
        read = Arguments(one_of(kind, default=default), given_none)
        for get in GETTERS[kind]:
            assert get(read, "it") == (tuple(default) if isinstance(default, list) else default)
    if len(GETTERS[kind]) > 1:
        assert GETTERS[kind][1](Arguments(one_of(kind), {}), "it") is None


def test_nobody_changes_a_default() -> None:
    parameters = one_of(Kind.TABLE, default={})
    Arguments(parameters, {}).table("it")["x"] = "y"
    assert Arguments(parameters, {}).table("it") == {}


@pytest.mark.parametrize("name", ["", "IT", "it ", "x" * 100_000, "\ud800", "vms"])
def test_what_is_not_known(name: str) -> None:
    with pytest.raises(UsageError, match="unknown parameter") as reported:
        Arguments(one_of(Kind.TEXT), {name: "x"})
    assert len(reported.value.message) < 500
    reported.value.message.encode()


@given(some.sampled_from(Kind), ANYTHING)
def test_anything_is_refused_or_can_be_used(kind: Kind, value: object) -> None:
    try:
        read = Arguments(one_of(kind, default=GOOD[kind][0]), {"it": value})
    except UsageError as error:
        error.message.encode()
        return
    for get in GETTERS[kind]:
        found = get(read, "it")
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
        assert value is None or found == (tuple(value) if isinstance(value, list) else value)


@given(some.dictionaries(some.text() | some.sampled_from(["vms", "argv", "id"]), ANYTHING))
def test_anything_given_to_any_operation(given_all: dict[str, object]) -> None:
    for operation in OPERATIONS.values():
        try:
            read = Arguments(operation.parameters, given_all)
        except UsageError as error:
            error.message.encode()
            continue
        assert given_all.keys() <= {one.name for one in operation.parameters}
        for parameter in operation.parameters:
            value = given_all.get(parameter.name)
            if parameter.is_required:
                assert GETTERS[parameter.kind][0](read, parameter.name) is not None
            if value is not None:
                assert GETTERS[parameter.kind][0](read, parameter.name) is not None


def test_the_table_of_operations() -> None:
    for name, operation in OPERATIONS.items():
        assert name == operation.name
        assert operation.summary
        names = [parameter.name for parameter in operation.parameters]
        assert len(set(names)) == len(names)
        for parameter in operation.parameters:
            assert parameter.help
            # What holds where it is not given is of its kind, too.
            if parameter.default is not None:
                assert not parameter.is_required
                Arguments((parameter,), {parameter.name: parameter.default})
