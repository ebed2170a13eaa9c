"""Replaces macros and logical file names in a job.xml.

BOINC's wrapper replaces macros in the working directory, the environment and the command line, then
`boinc_resolve(…)` in the command line, and splits it last. VMWrapper has words that begin with `./`
instead.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

_MACRO = re.compile(r"\$(?:PROJECT_DIR|NTHREADS|PWD|GPU_DEVICE_NUM)")
_RESOLVE = "boinc_resolve("


class Macros(NamedTuple):
    """The values of the macros."""

    project_directory: str
    """Empty: `.`, as in BOINC."""
    threads: int
    working_directory: str
    gpu_device_number: int | None = None
    """None: there is no such device, and its macro stays as it is."""


def expand(text: str, macros: Macros) -> str:
    """Replace the macros in `text` once: their values are not searched again.

    A macro needs no delimiter: with 4 threads `$NTHREADS_x` is `4_x`.
    """
    values = {
        "$PROJECT_DIR": macros.project_directory or ".",
        "$NTHREADS": str(macros.threads),
        "$PWD": macros.working_directory,
    }
    if macros.gpu_device_number is not None:
        values["$GPU_DEVICE_NUM"] = str(macros.gpu_device_number)
    return _MACRO.sub(lambda match: values.get(match[0], match[0]), text)


def resolve_names(text: str, resolve: Callable[[str], str]) -> str:
    """Replace each `boinc_resolve(name)` in `text` by what `resolve` returns for the name.

    Blanks around a name are dropped. Without a `)` or a name the text stays as it is. The result of
    `resolve` is not searched again: nested calls act like the inner one alone. Errors of `resolve`
    are passed on.
    """
    done: list[str] = []
    position = 0
    while (begin := text.find(_RESOLVE, position)) >= 0:
        depth, inner = 1, begin + len(_RESOLVE)
        while text.startswith(_RESOLVE, inner):
            depth, inner = depth + 1, inner + len(_RESOLVE)
        end = text.find(")", inner)
        if end < 0:
            break
        after = end + 1
        while depth > 1 and text.startswith(")", after):
            depth, after = depth - 1, after + 1
        name = text[inner:end].strip()
        done.append(text[position:begin])
        done.append(resolve(name) if name else text[begin:after])
        position = after
    return "".join((*done, text[position:]))


def with_physical_names(arguments: Iterable[str], resolve: Callable[[str], str]) -> list[str]:
    """Resolve words by VMWrapper's rule: one that begins with `./` is a logical name.

    This applies to programs on the host; in a guest such a word is one of its own files. `./` alone
    is a directory and stays. Errors of `resolve` are passed on.
    """
    return [
        resolve(argument) if argument.startswith("./") and len(argument) > len("./") else argument
        for argument in arguments
    ]
