"""Reads a sweep from the arguments of `boincvm map`: one command, to be run for each input.

The manners are those of GNU parallel: `:::` begins a list of inputs, `::::` one of files with an
input on each line, and several lists give all combinations; `{}` in the command, or in an option
for files, becomes the input.
"""

import argparse
import itertools
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boincvm.byte_text import decoded
from boincvm.errors import InputFileError, UsageError
from boincvm.job.files import unsent_files
from boincvm.job.model import Job, MachineTask
from boincvm.job.run_arguments import job_from_arguments

MOST_ITEMS = 1_000_000
_MOST_BYTES = 1 << 28
"""Bytes of a file of inputs."""
_HINT = (
    "a command and its inputs go after --, like: boincvm map -- PROGRAM {} ::: 1 2 3;"
    " boincvm map --help shows examples"
)
_SEPARATOR = re.compile(r"::::?\+?")
_PLACEHOLDER = re.compile(r"\{(?:([#%])|(\d{0,3})(\.|//|/\.|/)?)\}")


class Item(NamedTuple):
    """One input of a sweep, for which the command runs once."""

    number: int
    """From 1, in the order in which the inputs were given."""
    values: tuple[str, ...]
    """One from each list of inputs."""


class SweepCommand(NamedTuple):
    """A command with placeholders, and the inputs to run it with."""

    words: tuple[str, ...]
    items: tuple[Item, ...]


def read_sweep(words: Sequence[str]) -> SweepCommand:
    """Read what follows `--`: the command, and the lists of its inputs.

    Without a list, standard input has an input on each line; empty lines are skipped. A command
    without any placeholder gets `{}` as its last word. Raises UsageError, InputFileError.
    """
    first = next((i for i, word in enumerate(words) if _SEPARATOR.fullmatch(word)), len(words))
    command = tuple(words[:first])
    if not command or not command[0]:
        raise _usage("found no command after --, expected one before the inputs")
    if not any(_PLACEHOLDER.search(word) for word in command):
        command = (*command, "{}")
    combinations = _combine(_lists(words[first:] or ("::::", "-")))
    items = tuple(Item(number, values) for number, values in enumerate(combinations, 1))
    if not items:
        raise _usage("found no inputs, expected at least one")
    expand_command(command, items[0])  # whether each {N} names a list
    return SweepCommand(command, items)


class _List(NamedTuple):
    """One list of inputs, as it stands on the command line."""

    values: list[str]
    is_linked: bool
    """Whether its values belong to those of the list before, one to one."""


def _lists(words: Sequence[str]) -> list[_List]:
    found: list[_List] = []
    separator = ""
    for word in words:
        if _SEPARATOR.fullmatch(word):
            separator = word
            if not word.startswith("::::"):
                found.append(_List([], word.endswith("+")))
        elif separator.startswith("::::"):
            found.append(_List(_lines(word), separator.endswith("+")))
        else:
            found[-1].values.append(word)
    return found


def _lines(name: str) -> list[str]:
    """Return the lines of a file of inputs; `-` is standard input. Raises InputFileError."""
    try:
        if name == "-":
            data = b"" if sys.stdin is None else sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputFileError(
            f"the inputs in {name!r} cannot be read: {error.strerror}",
            hint="name a file with one input on each line; ::: is for inputs themselves",
        ) from error
    if len(data) > _MOST_BYTES:
        raise InputFileError(
            f"the file of inputs {name!r} has more than {_MOST_BYTES >> 20} MiB",
            hint="divide it, and run one sweep after the other",
        )
    return [decoded(line) for line in data.splitlines() if line]


def _combine(lists: list[_List]) -> Iterable[tuple[str, ...]]:
    """Return all combinations of the lists' values, those of the last list changing fastest."""
    columns: list[list[tuple[str, ...]]] = []
    for source in lists:
        values: list[tuple[str, ...]] = [(value,) for value in source.values]
        if source.is_linked and columns:
            columns[-1] = [(*a, *b) for a, b in zip(columns[-1], values, strict=False)]
        else:
            columns.append(values)
    count = prod(map(len, columns))
    if count > MOST_ITEMS:
        raise _usage(f"found {count} combinations of inputs, expected at most {MOST_ITEMS}")
    return (sum(parts, ()) for parts in itertools.product(*columns))


def expand(text: str, item: Item, slot: str) -> str:
    """Return `text` with each placeholder replaced by what it stands for; `{%}` becomes `slot`.

    Raises UsageError if `{N}` names a list that does not exist.
    """

    def replacement(match: re.Match[str]) -> str:
        if match[1]:
            return str(item.number) if match[1] == "#" else slot
        values = item.values
        if match[2]:
            position, count = int(match[2]), len(values)
            if not 1 <= position <= count:
                raise _usage(
                    f"found {match[0]}, but the inputs are {count} list{'s' * (count > 1)},"
                    " expected the number of one of them"
                )
            values = (values[position - 1],)
        return " ".join(_part(value, match[3] or "") for value in values)

    return _PLACEHOLDER.sub(replacement, text)


def _part(value: str, kind: str) -> str:
    """Return the part of `value`, taken as a path, that a placeholder of this kind asks for."""
    if kind == "":
        return value
    if kind == "//":
        return os.path.dirname(value) or "."  # noqa: PTH120 - a text
    text = value if kind == "." else PurePosixPath(value).name
    return text.removesuffix(PurePosixPath(text).suffix) if kind.endswith(".") else text


def expand_command(words: Iterable[str], item: Item, slot: str = "{%}") -> list[str]:
    """Return the command for `item`; a word that is `{}` becomes one word for each value.

    Raises UsageError like `expand`.
    """
    return [
        expanded
        for word in words
        for expanded in (item.values if word == "{}" else (expand(word, item, slot),))
    ]


def job_of_item(
    arguments: argparse.Namespace, command: SweepCommand, item: Item, slot: str
) -> Job[MachineTask]:
    """Return the job of one input. Raises UsageError.

    `slot`: the number of the worker that runs it, which `{%}` stands for.
    """

    def expanded(texts: list[str] | None) -> list[str] | None:
        return None if texts is None else [expand(text, item, slot) for text in texts]

    expansion = argparse.Namespace(**vars(arguments))
    expansion.command = expand_command(command.words, item, slot)
    expansion.input, expansion.output = expanded(arguments.input), expanded(arguments.output)
    expansion.env = expanded(arguments.env)
    if arguments.directory is not None:
        expansion.directory = expand(arguments.directory, item, slot)
    expansion.stdin = None if arguments.stdin is None else expand(arguments.stdin, item, slot)
    expansion.no_stdin, expansion.job_file = arguments.stdin is None, []
    expansion.publish = None  # several machines cannot share a port of the host
    expansion.remote_desktop = False
    try:
        return job_from_arguments(expansion)
    except UsageError as error:
        hint = error.hint.replace("boincvm run", "boincvm map")
        raise UsageError(error.message, hint=hint) from error


def unsent_file(
    arguments: argparse.Namespace, command: SweepCommand, item: Item
) -> tuple[str, str] | None:
    """Return a file of the host that the command of `item` names, but that is not sent.

    And what would send it as the value of --input, for this item and the others. Raises UsageError.
    """
    unsent = unsent_files(job_of_item(arguments, command, item, "1"))
    for word in command.words[1:]:
        for number, text in enumerate(expand_command((word,), item), 1):
            if text in unsent:
                is_one_of_several = word == "{}" and len(item.values) > 1
                value = f"{{{number}}}" if is_one_of_several else word
                return text, value if _PLACEHOLDER.fullmatch(value) else shlex.quote(value)
    return None


def _usage(message: str) -> UsageError:
    return UsageError(message, hint=_HINT)
