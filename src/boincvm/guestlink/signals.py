"""Linux's signal numbers, for programs in guests, whatever the host's system."""

INTERRUPT = 2
KILL = 9
TERMINATE = 15
CONTINUE = 18

_NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP"
    " TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
"""Of signals 1 to 31, as on x86-64 and AArch64: signal(7)."""


def name_of(number: int) -> str:
    """Return the name of a signal, "" if it has none, such as a real-time signal."""
    names = _NAMES.split()
    return f"SIG{names[number - 1]}" if 1 <= number <= len(names) else ""
