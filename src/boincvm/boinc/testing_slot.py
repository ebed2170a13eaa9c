"""The files that a BOINC client lays out for a task: for FakeClient."""

import os
from collections.abc import Mapping
from pathlib import Path

from boincvm.boinc import init_data, segment, trickles, uploads
from boincvm.boinc.tags import escape
from boincvm.byte_text import decoded
from boincvm.host.atomic_files import write_atomically

Value = str | int | float
PROJECT = "example.org_fake"
_TRICKLE_DOWN = "trickle_down_{}"


class FakeSlot:
    """A BOINC directory with one project and one slot beneath `directory`.

    Its values may be changed; `write_init_data` writes them.
    """

    def __init__(self, directory: Path, values: Mapping[str, Value]) -> None:
        """Make the directories and init_data.xml. Raises OSError."""
        self.directory = directory.absolute()
        self.path = self.directory / "slots" / "0"
        self.project = self.directory / "projects" / PROJECT
        self.preferences: dict[str, Value] = {
            "cpu_usage_limit": 100.0,
            "ram_max_used_busy_pct": 50.0,
            "ram_max_used_idle_pct": 90.0,
        }
        """Elements of <global_preferences>, by name."""
        self.host: dict[str, Value] = {"p_ncpus": 2, "m_nbytes": 8e9}
        """Elements of <host_info>, by name."""
        self.app_files: list[str] = []
        """Names of the app version's files, which are signed; clients list them all."""
        self.project_preferences = ""
        """XML, unescaped."""
        self.values: dict[str, Value] = {
            "major_version": 8,
            "minor_version": 2,
            "release": 8,
            "app_name": "fake",
            "project_dir": str(self.project),
            "boinc_dir": str(self.directory),
            "wu_name": "fake_work_unit",
            "result_name": "fake_work_unit_0",
            "shm_key": segment.MAPPED_FILE_KEY,
            "comm_obj_name": f"boincvm_{os.urandom(8).hex()}",
            "slot": 0,
            "client_pid": 0,
            "wu_cpu_time": 0.0,
            "starting_elapsed_time": 0.0,
            "checkpoint_period": 300.0,
            "fraction_done_start": 0.0,
            "fraction_done_end": 1.0,
            "ncpus": 1.0,
            "rsc_memory_bound": 4e9,
            "rsc_disk_bound": 4e9,
            **values,
        }
        """Elements of init_data.xml, by name."""
        self.path.mkdir(parents=True)
        self.project.mkdir(parents=True)
        self.write_init_data()

    def make_segment(self) -> segment.Segment:
        """Make the memory that client and app share. Raises OSError."""
        return segment.make_segment(self.path, str(self.values["comm_obj_name"]))

    def write_init_data(self) -> None:
        text = (
            f"<app_init_data>\n{_elements(self.values)}"
            f"{''.join(_elements({'app_file': name}) for name in self.app_files)}"
            f"<project_preferences>\n{self.project_preferences}</project_preferences>\n"
            f"<host_info>\n{_elements(self.host)}</host_info>\n"
            f"<global_preferences>\n{_elements(self.preferences)}</global_preferences>\n"
            "</app_init_data>\n"
        )
        write_atomically(self.path / init_data.FILE_NAME, text)

    def link(self, name: str, file_name: str, *, symbolic: bool = False) -> None:
        """Link the slot's `name` to a project file, as clients do for inputs and outputs alike."""
        target = f"../../projects/{PROJECT}/{file_name}"
        if symbolic:
            (self.path / name).symlink_to(target)
        else:
            (self.path / name).write_text(f"<soft_link>{target}</soft_link>\n")

    def add_trickle_down(self, text: str) -> Path:
        number = sum("trickle_down" in path.name for path in self.path.iterdir())
        path = self.path / _TRICKLE_DOWN.format(number)
        write_atomically(path, text)
        return path

    def take_trickle_up(self) -> str | None:
        """Return the text of trickle_up.xml, decoded as by `byte_text`, and remove the file."""
        path = self.path / trickles.TRICKLE_UP_FILE
        try:
            text = decoded(path.read_bytes())
        except FileNotFoundError:
            return None
        path.unlink()
        return text

    def take_upload_requests(self) -> list[str]:
        """Return the logical names requested for upload, and remove the requests."""
        names = []
        for path in sorted(self.path.glob(f"{uploads.REQUEST_PREFIX}*")):
            names.append(path.name.removeprefix(uploads.REQUEST_PREFIX))
            path.unlink()
        return names

    def set_upload_status(self, name: str, status: int) -> None:
        path = self.path / f"{uploads.STATUS_PREFIX}{name}"
        write_atomically(path, f"<status>{status}</status>\n")


def _elements(values: Mapping[str, Value]) -> str:
    return "".join(f"<{name}>{escape(str(value))}</{name}>\n" for name, value in values.items())
