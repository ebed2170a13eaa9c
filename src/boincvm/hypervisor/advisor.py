"""The advisor: a verdict on each driver that is installed here, found out once and remembered.

The verdicts are in `advice.json` in the cache directory, with what they depend on: the host's boot,
the user, boincvm's version, the preferences, the directories that packages are installed in, and
the programs, files and variables of the environment that each driver names. If nothing of that has
changed they are known without starting, or importing, anything, unless one was valid for a time
only, which is over.
"""

import json
import os
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any

from boincvm import __version__
from boincvm.errors import BoincvmError
from boincvm.host.atomic_files import replacement
from boincvm.host.own_files import make_directory, open_own
from boincvm.host.programs import find_program
from boincvm.host.resources import boot_id
from boincvm.host.users import user_id
from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.doctor import FindKernel
from boincvm.hypervisor.preferences import preferences_file
from boincvm.hypervisor.registry import DEFAULT, driver_names, find_driver
from boincvm.hypervisor.verdict import (
    Abilities,
    Ability,
    Isolation,
    Speed,
    Verdict,
    unusable,
)
from boincvm.paths import cache_directory

LIMIT = 3.5
"""Seconds that a driver may take for its verdict."""
PATIENCE = 30.0
"""Seconds more for all, as long as none is found usable or DEFAULT is not known yet: a virus
scanner may read a hypervisor when it is first started, and a host may be busy. Otherwise a driver
that makes no checkpoints might be chosen for that."""
_MOST_BYTES = 1 << 18
_LONGEST = 500
_UNBELIEVABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading the file raises if it is missing, damaged, or of another version."""

Verdicts = Mapping[str, Verdict]
"""By the drivers' names, in boincvm's own order."""


def known_verdicts() -> Verdicts | None:
    """Return the verdicts if they are known and nothing that they depend on has changed."""
    with suppress(*_UNBELIEVABLE):
        with open_own(_file()) as file:
            table = json.loads(file.read(_MOST_BYTES))
        if table["key"] == _key(list(table["depends_on"])):
            found = {name: _verdict(stored) for name, stored in table["verdicts"].items()}
            ends = [verdict.valid_until for verdict in found.values() if verdict.valid_until]
            if not ends or time() < min(ends):
                return found
    return None  # it is not there, or of another version


def verdicts(find_kernel: FindKernel, *, refresh: bool = False) -> Verdicts:
    """Return the verdict on each driver, within LIMIT seconds and some if the usual one is known.

    `refresh`: do not believe what is known. Raises HostError, OSError.
    """
    known = None if refresh else known_verdicts()
    if known is not None:
        return known
    found, depends_on = _assess_all(find_kernel)
    if all(verdict.is_final for verdict in found.values()):
        with suppress(OSError):  # the answer is as good if it is found out again
            _store(found, depends_on)
    return found


def _assess_all(find_kernel: FindKernel) -> tuple[dict[str, Verdict], list[str]]:
    """Ask all drivers at the same time, each in a thread of its own."""
    from threading import Condition, Thread

    changed = Condition()
    found: dict[str, Verdict] = {}
    depends_on: set[str] = set()

    def assess(name: str) -> None:
        # Whatever somebody else's driver raises is a verdict on it, and on no other.
        try:
            package = find_driver(name)
            with changed:
                depends_on.update(package.depends_on)
            verdict = package.assess(find_kernel)
            _check(verdict)
        except BoincvmError as error:
            verdict = unusable(error.message, error.hint)
        except (Exception, SystemExit) as error:
            verdict = unusable(f"its checks failed: {type(error).__name__}: {error}")
        with changed:
            found[name] = _for_people(verdict)
            changed.notify()

    def is_enough() -> bool:
        if len(found) == len(names):
            return True
        is_usual_known = DEFAULT in found or DEFAULT not in names
        return is_usual_known and any(one.is_usable for one in found.values())

    names = driver_names()
    for name in names:
        Thread(target=assess, args=(name,), daemon=True).start()
    late = unusable(f"its checks took more than {LIMIT:g} s")._replace(is_final=False)
    with changed:
        changed.wait_for(lambda: len(found) == len(names), LIMIT)
        changed.wait_for(is_enough, PATIENCE)
        return {name: found.get(name, late) for name in names}, sorted(depends_on)


def _check(verdict: object) -> None:
    """Raise TypeError if a driver has returned something else."""
    if not isinstance(verdict, Verdict):
        raise TypeError(f"it returned {type(verdict).__name__} for a verdict")


def _for_people(verdict: Verdict) -> Verdict:
    """Return the verdict with its texts, which programs and drivers wrote, as single lines."""
    return verdict._replace(
        version=_line(verdict.version),
        trouble=_line(verdict.trouble),
        remedy=_line(verdict.remedy),
        acceleration=_line(verdict.acceleration),
        isolated_by=_line(verdict.isolated_by),
    )


def _line(text: str) -> str:
    return "".join(filter(str.isprintable, text))[:_LONGEST]


def _file() -> Path:
    return cache_directory() / "advice.json"


def _key(depends_on: list[str]) -> list[str]:
    """Return what the verdicts depend on, in its present state."""
    variables = [name for name in depends_on if name.startswith("$")]
    files = [name for name in depends_on if not name.startswith("$")]
    found = [path if Path(path).is_absolute() else find_program(path) for path in files]
    with suppress(RuntimeError):  # this user has no home directory, and so no preferences
        found.append(str(preferences_file()))
    # A package that is installed or removed changes the directory that it is in.
    installed = [path for path in sys.path if path.endswith("-packages")]
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    key = [__version__, boot_id(), user_id(), sys.executable, *depends_on]
    key += [os.environ.get(name[1:], "") for name in variables]
    return [*key, *(_state(path) for path in (*found, *installed, *filter(None, added)))]


def _state(path: str | None) -> str:
    try:
        if path is None:
            return ""
        status = Path(path).stat()
    except OSError:
        return ""
    state = f"{path} {status.st_mode:o} {status.st_uid} {status.st_gid}"
    if stat.S_ISCHR(status.st_mode):
        return state  # a device's times change with its use
    return f"{state} {status.st_size} {status.st_mtime_ns}"


def _verdict(table: dict[str, Any]) -> Verdict:
    """Return the verdict of a table of ours. Raises KeyError, TypeError, ValueError."""
    can = frozenset(Ability(value) for value in table["abilities"])
    values = {
        **table,
        "speed": Speed[table["speed"].upper()],
        "isolation": Isolation[table["isolation"].upper()],
        "abilities": Abilities(
            can, table["most_cpus"], frozenset(map(Architecture, table["architectures"]))
        ),
    }
    del values["most_cpus"], values["architectures"]
    return Verdict(**values)


def _store(found: Verdicts, depends_on: list[str]) -> None:
    cache = _file()
    make_directory(cache.parent)
    table = {
        "key": _key(depends_on),
        "depends_on": depends_on,
        "verdicts": {name: verdict.table() for name, verdict in found.items()},
    }
    with replacement(cache, is_unique=True, is_synced=False) as part:
        part.touch(mode=0o600)  # whatever the umask
        part.write_text(json.dumps(table))
