"""A volunteer's preferences for this host, in `preferences.toml` (docs/user-guide.md).

The computer's owner decides, so they take precedence over a job's requests.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from boincvm.errors import PreferencesError
from boincvm.job import values
from boincvm.json_value import is_whole
from boincvm.paths import configuration_directory

AUTO = "auto"
"""The name that leaves the choice of a driver to the advisor."""
_KEYS = ("driver", "machines", "memory", "libvirt", "on_demand")
_MOST_MACHINES = 10_000
_MOST_BYTES = 1 << 16
_ON_DEMAND_BOUNDS = (16 << 20, 1 << 40)

Value = TypeVar("Value")


class Preferences(NamedTuple):
    """What a volunteer has said; None: nothing."""

    driver: str | None = None
    """The driver of all machines, or AUTO."""
    machines: int | None = None
    """The most machines that may run at once."""
    memory: int | None = None
    """The most bytes of memory that machines may have together."""
    libvirt: str | None = None
    """The URI of the libvirt that the driver of that name talks to."""
    on_demand: int | None = None
    """The most bytes on the disk for blocks of images that are read on demand."""


def preferences_file() -> Path:
    """Return the file's path, whether it exists or not. Raises HostError, RuntimeError."""
    return configuration_directory() / "preferences.toml"


def read_preferences() -> Preferences:
    """Read the file; without one there are no preferences. Raises HostError."""
    try:
        path = preferences_file()
        exists = os.path.lexists(path)
    except RuntimeError:  # this user has no home directory
        return Preferences()
    return _read(path) if exists else Preferences()


def _read(path: Path) -> Preferences:
    import tomllib  # slow, and few have such a file

    from boincvm.host.own_files import open_own

    try:
        with open_own(path) as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise _fault(path, f"it has more than {_MOST_BYTES} bytes")
        table = tomllib.loads(content.decode())
    except OSError as error:
        raise _fault(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _fault(path, "".join(filter(str.isprintable, str(error)))[:120]) from error
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        expected = ", ".join(_KEYS)
        raise _fault(path, f"found {values.describe(unknown[0])}, expected {expected}")

    def value(key: str, convert: Callable[[object], Value]) -> Value | None:
        if key not in table:
            return None
        try:
            return convert(table[key])
        except values.UnexpectedValueError as error:
            raise _fault(path, f"{key}: {error}") from error

    return Preferences(
        driver=value("driver", values.driver_name),
        machines=value("machines", _count),
        memory=value("memory", values.memory),
        libvirt=value("libvirt", values.filled_text),
        on_demand=value("on_demand", _on_demand),
    )


def _count(value: object) -> int:
    if not is_whole(value, 1, _MOST_MACHINES):
        expected = f"a whole number from 1 to {_MOST_MACHINES}"
        raise values.UnexpectedValueError(values.describe(value), expected)
    return value


def _on_demand(value: object) -> int:
    return values.size_between(value, _ON_DEMAND_BOUNDS)


def _fault(path: Path, why: str) -> PreferencesError:
    return PreferencesError(f"{path} cannot be used: {why}", hint="correct the file, or remove it")
