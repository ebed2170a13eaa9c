"""One directory a run, mode 0700, locked while the run lives, gone when it ends.

A run that is killed cannot tidy up; the next run removes what is no longer locked. (A run has its
directory before most imports, so this file has few.)
"""

from __future__ import annotations

import fcntl
import os

from boincvm.paths import runs_place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from boincvm.errors import BoincvmError


class RunDirectory:
    """A new, empty directory, `place`, until `close`. Raises OSError, and RuntimeError: this user
    has no home directory."""

    def __init__(self) -> None:
        runs = runs_place()
        os.makedirs(os.path.dirname(runs), exist_ok=True)
        try:
            os.mkdir(runs, mode=0o700)
        except FileExistsError:
            pass
        together = os.open(runs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Held for an instant: nobody may see a new directory that is not yet locked.
            fcntl.flock(together, fcntl.LOCK_EX)
            _remove_stale(runs)
            self.place = os.path.join(runs, os.urandom(8).hex())
            os.mkdir(self.place, mode=0o700)
            self._lock = _open(self.place)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(together)

    def close(self) -> None:
        _remove(self.place)
        os.close(self._lock)

    def __enter__(self) -> Path:
        from pathlib import Path

        return Path(self.place)

    def __exit__(self, *_: object) -> None:
        self.close()


def run_directory() -> RunDirectory:
    """To be used with `with`. Raises HostDiskFullError, HostError."""
    try:
        return RunDirectory()
    except (OSError, RuntimeError) as error:
        raise _no_directory(error) from error


def _remove(directory: str) -> None:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError:
        import shutil  # rarely: it brings in compressors, which takes as long as the run's rest

        shutil.rmtree(directory, ignore_errors=True)


def _open(directory: str) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _remove_stale(runs: str) -> None:
    for name in os.listdir(runs):
        directory = os.path.join(runs, name)
        try:
            descriptor = _open(directory)
        except (FileNotFoundError, NotADirectoryError):
            continue  # another run has just ended
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(directory)
        except BlockingIOError:
            pass  # its run lives
        finally:
            os.close(descriptor)


def _no_directory(error: OSError | RuntimeError) -> BoincvmError:
    from boincvm.errors import HostDiskFullError, HostError
    from boincvm.filetree import DISK_FULL

    reason = str(error)
    if isinstance(error, OSError):
        place = f" {error.filename}" if error.filename else ""
        reason = f"{error.strerror}{place}"
        if error.errno in DISK_FULL:
            return HostDiskFullError(
                f"the host's disk is full: {reason}", hint="free some space and run again"
            )
    return HostError(
        f"there is no directory for the machine: {reason}",
        hint="set BOINCVM_HOME to a directory where you may write",
    )
