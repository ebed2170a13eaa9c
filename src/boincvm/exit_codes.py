"""The table of boincvm's exit codes (docs/exit-codes.md shows it to users).

A program's own exit code is passed on as it is. 126, 127 and 128+N keep the meaning that shells
give them. Codes 194 to 206 have BOINC's meaning (lib/error_numbers.h); 210 and above are boincvm's
own.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Why `boincvm` exited, where the guest's program did not decide the code."""

    SUCCESS = 0
    CANNOT_EXECUTE = 126
    NO_SUCH_PROGRAM = 127
    HUNG_UP = 129
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141
    TERMINATED = 143
    CHILD_FAILED = 195
    DISK_LIMIT_EXCEEDED = 196
    TIME_LIMIT_EXCEEDED = 197
    MEMORY_LIMIT_EXCEEDED = 198
    USAGE = 210
    JOB_FILE = 211
    INPUT_FILE = 212
    OUTPUT_FILE = 213
    HYPERVISOR_MISSING = 214
    HYPERVISOR_FAILED = 215
    GUEST_NEVER_BOOTED = 216
    GUEST_HUNG = 217
    GUEST_DIED = 218
    GUEST_PROTOCOL = 219
    IMAGE_MISSING = 220
    IMAGE_DAMAGED = 221
    IMAGE_BUILD = 222
    HOST_DISK_FULL = 223
    HOST = 224
    BUG = 225
    BUS = 226


def exit_code_for_signal(signal_number: int) -> int:
    """Return the code by which shells report a program that signal `signal_number` killed."""
    return 128 + signal_number
