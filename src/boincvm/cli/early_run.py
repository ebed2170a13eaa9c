"""`boincvm run`, the one verb whose machine begins before its arguments are understood."""

from __future__ import annotations

from boincvm.imports import lasting

with lasting():
    from boincvm.wrapper.guess import Guess

MACHINE_OPTIONS = ("--image", "--memory", "--cpus", "--disk")
MACHINE_SWITCHES = ("--network", "--no-network")
_JOB_FILE = ".toml"


def run_early(arguments: list[str], *, is_own: bool) -> int:
    """What `dispatch` does, with a guess. `is_own`: this is all that the process is for."""
    may_run = "--" in arguments or arguments[-1].endswith(_JOB_FILE)  # else it is about help
    with Guess(machine_words(arguments), is_early=is_own and may_run) as guess:
        with lasting():
            from boincvm.cli.verbs import dispatch

        return dispatch(arguments, guess)


def machine_words(arguments: list[str]) -> list[str]:
    """Those that tell, as far as can be seen at once, which machine is wanted: the options for
    it, and job files."""
    words: list[str] = []
    takes_next = False
    for word in arguments:
        if word == "--":
            break
        name, equals, _ = word.partition("=")
        if takes_next or name in MACHINE_OPTIONS + MACHINE_SWITCHES or word.endswith(_JOB_FILE):
            words.append(word)
        takes_next = name in MACHINE_OPTIONS and not equals
    return words
