"""An argparse parser whose errors are our own."""

import argparse
import os
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TypeVar

from boincvm.errors import UsageError
from boincvm.job.values import UnexpectedValueError

Value = TypeVar("Value")


class _Help(argparse.RawDescriptionHelpFormatter):
    """A help formatter for the terminal's width.

    argparse would ask `shutil`, which imports compressors, and each parser makes a formatter even
    if nobody wants help.
    """

    def __init__(self, prog: str) -> None:
        columns = os.environ.get("COLUMNS", "")
        width = int(columns) if columns.isdecimal() and len(columns) < 6 else 0
        if width == 0:
            with suppress(OSError):
                width = os.get_terminal_size(1).columns
        super().__init__(prog, width=max((width or 80) - 2, 20))


class Parser(argparse.ArgumentParser):
    """Raises UsageError with a hint instead of printing a usage line and exiting.

    `advice` precedes the hint where to find help, unless an option's value is wrong. Options cannot
    be abbreviated, so that a later version with more options still reads an old command line the
    same way.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        options: dict[str, object] = {
            "allow_abbrev": False,
            "formatter_class": _Help,
        }
        options.update(kwargs)
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.advice = ""

    def error(self, message: str) -> NoReturn:
        # argparse begins so where an argument is wrong, and the advice is about missing ones.
        advice = "" if message.startswith("argument ") else self.advice
        raise UsageError(message, hint=f"{advice}{self.prog} --help shows examples")


def option(convert: Callable[[object], Value]) -> Callable[[str], Value]:
    """Return `convert` (of boincvm.job.values) as an argparse type that keeps its error message."""

    def converted(text: str) -> Value:
        try:
            return convert(text)
        except UnexpectedValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converted


def add_verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    summary: str,
    description: str,
) -> argparse.ArgumentParser:
    """Add a verb below another, such as `ls` of `boincvm image`, and return its parser.

    It takes `--json`, as all of them do.
    """
    parser = verbs.add_parser(
        name,
        help=summary,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser
