"""Check the parameters of remote calls to Python methods: their number and types."""

import inspect
import types
from collections.abc import Awaitable, Callable
from typing import get_args, get_origin, get_type_hints

from boincvm.errors import UsageError
from boincvm.job.values import describe

Method = Callable[..., Awaitable[object]]
_NAMES: dict[object, str] = {
    str: "a text",
    float: "a number",
    list: "a list of texts",
    dict: "a table of texts",
    types.NoneType: "nothing",
}


def check_call(name: str, method: Method, parameters: tuple[object, ...]) -> tuple[object, ...]:
    """Return the parameters to call `method` with. Raises UsageError.

    nil stands for the default of an optional parameter.
    """
    signature = inspect.signature(method)
    try:
        given = signature.bind(*parameters).arguments
    except TypeError as error:
        raise UsageError(f"{name}{shown_signature(method)}: {error}") from error
    hints = get_type_hints(method)
    for parameter, value in given.items():
        default = signature.parameters[parameter].default
        if value is None and default is not inspect.Parameter.empty:
            given[parameter] = default
            continue
        wanted = _alternatives(hints[parameter])
        if not any(_fits(hint, value) for hint in wanted):
            expected = " or ".join(_NAMES[get_origin(hint) or hint] for hint in wanted)
            raise UsageError(
                f"{name}{shown_signature(method)}: parameter {parameter}:"
                f" found {describe(value)}, expected {expected}"
            )
    return tuple(given.values())


def shown_signature(method: Method) -> str:
    """Return a method's signature without the types, which are Python's."""
    signature = inspect.signature(method)
    bare = [
        parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def _alternatives(hint: object) -> tuple[object, ...]:
    return get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _fits(hint: object, value: object) -> bool:
    if hint is object:
        return True
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(map(_is_scalar, value))
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(map(_is_scalar, value.values()))
    return isinstance(value, hint)  # type: ignore[arg-type]


def _is_scalar(value: object) -> bool:
    """Tell whether a value is a text or a number, which old clients use as texts."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)
