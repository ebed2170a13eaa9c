"""Creates a job's directory from a snapshot that somebody else may have made."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from boincvm.boinc.soft_link import target
from boincvm.errors import HypervisorError, InputFileError, OutputFileError, UsageError, host_error
from boincvm.host.files import remove_if_empty
from boincvm.host.renames import rename
from boincvm.hypervisor.registry import find_driver
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.saved_machine import manifests, read_manifest
from boincvm.wrapper.snapshot.archive import MACHINES, JobSnapshot, read_all
from boincvm.wrapper.snapshot.trust import check_job, what_needs_trust
from boincvm.wrapper.tasks.resolve import JOB_FILE

_LONGEST = 300
"""Characters of a path in a message."""


def import_snapshot(path: Path, directory: Path, *, trusted: bool = False) -> JobSnapshot:
    """Create `directory`, which does not exist or is empty, from the snapshot `path`.

    Nothing is left of it if anything fails. `trusted`: the user knows who made the snapshot, so its
    job may do what the user's own jobs may. Raises InputFileError, OutputFileError,
    UntrustedJobError, HostDiskFullError, HostError.
    """
    new = directory.with_name(f".{directory.name}.part")
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise OutputFileError(f"{directory} is not empty", hint="name a new directory")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        try:
            snapshot = read_all(path, new)
            _check_machines(path, new, snapshot)
            if not trusted:
                check_job(new, path)
            remove_if_empty(directory)
            rename(new, directory)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    except OSError as error:
        raise host_error(
            f"{str(directory)[:_LONGEST]} cannot be made", error, OutputFileError
        ) from error
    return snapshot


def needs_trust(path: Path) -> list[str]:
    """Return all that the job in the snapshot `path` would do outside of a machine.

    For these `import_snapshot` must be told that the file is trusted. The whole file is read, so
    damage is found, too. Raises InputFileError, HostDiskFullError, HostError.
    """
    try:
        with TemporaryDirectory(prefix="boincvm-") as temporary:
            first, second = Path(temporary) / "first", Path(temporary) / "second"
            first.mkdir()
            read_all(path, first, only={JOB_FILE})
            linked = target(first / JOB_FILE)
            if linked is None:
                return what_needs_trust(first, path)
            second.mkdir()
            read_all(path, second, only={JOB_FILE, linked})
            return what_needs_trust(second, path)
    except OSError as error:
        raise host_error(f"{path} cannot be checked", error) from error


def _check_machines(path: Path, directory: Path, snapshot: JobSnapshot) -> None:
    """Check that no file for a hypervisor says more than one of our own machines' would."""
    for machine_directory in sorted(directory.glob(MACHINES)):
        for number, manifest in manifests(machine_directory):
            try:
                saved = read_manifest(manifest)
                if saved.checkpoint.number != number:
                    raise ValueError("its number does not match")
                for name, seal in saved.checkpoint.files.items():
                    if snapshot.files.get(f"{machine_directory.name}/{name}") != seal:
                        raise ValueError(f"{name} does not match the snapshot's description of it")
                saved_files = find_driver(saved.driver).saved_files
                if saved_files is None:
                    raise ValueError(
                        f"the driver {saved.driver[:40]!r} cannot check files of other hosts"
                    )
                saved_files.check(machine_directory, saved.checkpoint, saved.shape.memory)
            except (ValueError, SavedMachineError, HypervisorError, UsageError) as error:
                raise InputFileError(
                    f"{path} is refused: checkpoint {number} of {machine_directory.name}: {error}",
                    hint="export it again; if it came from somebody else, ask them about it",
                ) from error
