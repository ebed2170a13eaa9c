"""The descriptors that a process is born with."""

import os


def fill_closed_descriptors() -> None:
    """Descriptors 0 to 2 that are closed become /dev/null: what is opened later would take
    their numbers, and a program's output would go there."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
