"""The descriptors that a process is born with."""

import os
import sys


def fill_closed_descriptors() -> None:
    """Descriptors 0 to 2 that are closed become /dev/null: what is opened later would take
    their numbers, and a program's output would go there. Python's own streams follow."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115
