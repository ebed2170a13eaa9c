"""The nice value of a host task's program, as BOINC's wrapper chooses it on Unix.

Facts: BOINC's samples/wrapper/wrapper.cpp and lib/common_defs.h.
"""

LOWEST = 1
"""The priority of a task whose job.xml names none."""

# 3, normal, is not there: it leaves the nice value as it is, as do numbers that mean nothing.
_NICE = {LOWEST: 19, 2: 10, 4: -10, 5: -15}


def nice_value(
    priority: int | None, *, process_priority: int = -1, no_priority_change: bool = False
) -> int | None:
    """Give the nice value for a program; None: it stays as it is. What the volunteer has set goes
    before what the job asks for.

    `priority`: of job.xml, 1 (lowest) to 5 (highest), None where it has none; another number
    leaves it as it is.
    `process_priority` and `no_priority_change`: of init_data.xml; the former counts from 0
    (lowest) to 5 (real time, which has no nice value), -1 where the volunteer set none.
    """
    if no_priority_change:
        return None
    if process_priority >= 0:
        return _NICE.get(process_priority + 1)
    return _NICE.get(LOWEST if priority is None else priority)
