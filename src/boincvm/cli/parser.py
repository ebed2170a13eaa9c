"""argparse, with errors that are ours."""

import argparse
from collections.abc import Callable
from typing import NoReturn, TypeVar

from boincvm.errors import UsageError
from boincvm.job.values import UnexpectedValueError

Value = TypeVar("Value")


class Parser(argparse.ArgumentParser):
    """Raises UsageError with the next step instead of printing a usage line and exiting.

    `advice` goes in front of where to find help. Options are not to be abbreviated: a later
    version with more options must read an old command line as before.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        options: dict[str, object] = {
            "allow_abbrev": False,
            "formatter_class": argparse.RawDescriptionHelpFormatter,
        }
        options.update(kwargs)
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.advice = ""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.advice}{self.prog} --help shows examples")


def option(convert: Callable[[object], Value]) -> Callable[[str], Value]:
    """`convert` (of boincvm.job.values) as an argparse type that keeps its message."""

    def converted(text: str) -> Value:
        try:
            return convert(text)
        except UnexpectedValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return converted
