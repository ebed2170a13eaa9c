"""The init_data.xml that a guest's program sees: it describes the task, not the volunteer.

The client's own file contains the account's authenticator, the proxy's password and the host's
directories, none of which is a guest's business.
"""

from boincvm.boinc import InitData
from boincvm.boinc.tags import escape
from boincvm.byte_text import encoded


def guest_init_data(data: InitData, processors: int) -> bytes:
    """Return the file for a guest with `processors` CPUs, in the client's own format.

    Source: BOINC's lib/app_ipc.cpp.
    """
    fields: list[tuple[str, object]] = [
        ("major_version", data.major_version),
        ("minor_version", data.minor_version),
        ("release", data.release),
        ("app_version", data.app_version),
        ("app_name", data.app_name),
        ("plan_class", data.plan_class),
        ("wu_name", data.work_unit_name),
        ("result_name", data.result_name),
        ("project_dir", "/work"),
        ("boinc_dir", "/work"),
        ("slot", data.slot),
        ("wu_cpu_time", f"{data.cpu_time:f}"),
        ("starting_elapsed_time", f"{data.elapsed_time:f}"),
        ("checkpoint_period", f"{data.checkpoint_period:f}"),
        ("fraction_done_start", f"{data.fraction_done_start:f}"),
        ("fraction_done_end", f"{data.fraction_done_end:f}"),
        ("ncpus", f"{processors:f}"),
        ("rsc_fpops_est", f"{data.operations_estimate:f}"),
        ("rsc_fpops_bound", f"{data.operations_bound:f}"),
        ("rsc_memory_bound", f"{data.memory_bound:f}"),
        ("rsc_disk_bound", f"{data.disk_bound:f}"),
        ("computation_deadline", f"{data.deadline:f}"),
    ]
    lines = [f"<{name}>{escape(str(value))}</{name}>" for name, value in fields]
    # The project's own XML, meant for its app.
    lines.append(f"<project_preferences>{data.project_preferences}</project_preferences>")
    return encoded("\n".join(["<app_init_data>", *lines, "</app_init_data>", ""]))
