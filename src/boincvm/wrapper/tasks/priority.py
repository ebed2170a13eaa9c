"""The nice value of a host task's program, as BOINC's wrapper chooses it on Unix.

Source: BOINC's samples/wrapper/wrapper.cpp and lib/common_defs.h.
"""

LOWEST = 1
"""The priority of a task for which job.xml gives none."""

# 3, normal, is missing because it leaves the nice value as it is, as undefined numbers do.
_NICE = {LOWEST: 19, 2: 10, 4: -10, 5: -15}


def nice_value(
    priority: int | None, *, process_priority: int = -1, no_priority_change: bool = False
) -> int | None:
    """Return the nice value for a program; None leaves it as it is.

    The volunteer's setting takes precedence over the job's. `priority`: from job.xml, 1 (lowest) to
    5 (highest), None if it has none; any other number leaves the nice value as it is.
    `process_priority` and `no_priority_change`: from init_data.xml; the former is 0 (lowest) to 5
    (real time, which has no nice value), or -1 if the volunteer set none.
    """
    if no_priority_change:
        return None
    if process_priority >= 0:
        return _NICE.get(process_priority + 1)
    return _NICE.get(LOWEST if priority is None else priority)
