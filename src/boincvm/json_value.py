"""The type of JSON values, and descriptions of what is wrong with JSON."""

from boincvm.errors import BoincvmError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

LARGEST = (1 << 53) - 1
"""The largest integer that every JSON reader understands (RFC 8259, 6)."""


def fault_of(error: Exception) -> str:
    """Describe in plain words what was wrong with JSON whose parsing raised `error`."""
    if isinstance(error, BoincvmError):
        return error.message
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, TypeError | AttributeError):
        return f"a value has the wrong type: {error}"
    return str(error) or type(error).__name__
