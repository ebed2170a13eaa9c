"""Report a last checkpoint to a client that no longer listens, by its own file in the slot.

A client that exits tells its tasks to quit and then reads no status of theirs any more. When it
starts again it reads `boinc_task_state.xml` of each task, which it writes at each checkpoint that
it learns of, and adopts values larger than those that it knows. (client/app_control.cpp,
exit_tasks, write_task_state_file and read_task_state_file.)
"""

from pathlib import Path

from boincvm.boinc.init_data import InitData
from boincvm.boinc.tags import element, escape
from boincvm.byte_text import decoded
from boincvm.host.atomic_files import write_atomically
from boincvm.host.files import read_regular

STATE_FILE = "boinc_task_state.xml"
_CLIENT_STATE = "client_state.xml"
_MOST_BYTES = 64 << 20


def write_task_state(slot: Path, init_data: InitData, cpu_time: float, elapsed: float) -> bool:
    """Tell the client's next run of a checkpoint at these times, both in seconds.

    Returns False if the client's files show that it does not know the task. Raises OSError.
    """
    url = _project_url(init_data)
    if url is None:
        return False
    write_atomically(
        slot / STATE_FILE,
        "<active_task>\n"
        f"    <project_master_url>{url}</project_master_url>\n"
        f"    <result_name>{escape(init_data.result_name)}</result_name>\n"
        f"    <checkpoint_cpu_time>{cpu_time:f}</checkpoint_cpu_time>\n"
        f"    <checkpoint_elapsed_time>{elapsed:f}</checkpoint_elapsed_time>\n"
        "</active_task>\n",
    )
    return True


def _project_url(init_data: InitData) -> str | None:
    """Return the client's URL for the task's project. Raises OSError."""
    directory = Path(init_data.boinc_directory)
    if not directory.is_absolute() or not init_data.result_name:
        return None
    try:
        text = decoded(read_regular(directory / _CLIENT_STATE, _MOST_BYTES))
    except FileNotFoundError:
        return None
    for part in text.split("<active_task>")[1:]:
        task = part.partition("</active_task>")[0]
        if element(task, "result_name") == escape(init_data.result_name):
            return element(task, "project_master_url")
    return None
