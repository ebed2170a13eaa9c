"""Jobs that can be resumed: a file in a job's directory locks it."""

from pathlib import Path

import pytest

from boincvm.errors import UsageError
from boincvm.runner.resumable_jobs import JobRecord, discard_job, existing_job, new_job


def test_a_job_is_made_locked_found_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    directory = tmp_path / "job"
    name = directory.as_posix()
    record = JobRecord({"program": "true"}, "there", 0.0)
    with new_job(name, "", record) as job:
        with pytest.raises(UsageError, match="is running"), existing_job(name):
            pass
        assert job.directory == directory
    with existing_job(name) as job:
        assert job.record.arguments == record.arguments
        job.remove()
    assert not directory.exists()
    with new_job(name, "", record):
        pass
    discard_job(name)
    assert not directory.exists()
