"""Removes what killed boincvm processes have left behind; the next start does so, too."""

from collections.abc import Callable
from functools import partial

from boincvm.errors import BoincvmError
from boincvm.hypervisor.registry import driver_names, find_driver
from boincvm.image.build_directory import remove_killed_builds
from boincvm.image.store import ImageStore
from boincvm.machine.admission import remove_stale_seats
from boincvm.machine.golden.snapshots import remove_unfinished
from boincvm.runner.run_directory import remove_stale_runs


def remove_leftovers() -> list[str]:
    """Remove them; return a line for each kind that was found or could not be removed.

    What is in use, or is not ours, is left alone.
    """
    kinds: list[tuple[str, Callable[[], int]]] = [
        ("directories of runs", remove_stale_runs),
        ("records of running machines", remove_stale_seats),
        ("contents of images that nothing needs", ImageStore().collect),
        ("unfinished images", partial(remove_killed_builds, ImageStore().builds)),
        ("unfinished golden snapshots", partial(remove_unfinished, ImageStore().golden)),
        *((f"machines of the driver {name}", partial(_of_driver, name)) for name in driver_names()),
    ]
    lines = []
    for what, remove in kinds:
        try:
            count = remove()
        except (BoincvmError, OSError) as error:
            lines.append(f"looking for {what} failed: {error}")
        except Exception as error:  # a driver may be somebody else's
            lines.append(f"looking for {what} failed: {type(error).__name__}: {error}")
        else:
            lines += [f"removed {what}: {count}"] if count else []
    return lines


def _of_driver(name: str) -> int:
    return find_driver(name).remove_orphans()
