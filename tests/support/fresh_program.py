"""A guest program that reports the random numbers it got before and after its machine was on disk.

It imports none of our modules: its text is run in the guest.
"""

SCRIPT = """
import os, time
GAP = 0.2  # seconds by which the clock is set, which stood still on the disk
BEFORE, AFTER = 20, 100
def lag():
    return time.time() - time.monotonic()
started, gone, before, after = lag(), 0, [], []
print("begun", flush=True)
while len(after) < AFTER:
    was_late = lag() - started > GAP
    value = os.urandom(16).hex()
    if was_late:
        after.append(value)
    else:
        gone += 1
        before = [*before[1 - BEFORE:], value]
print(gone, *before, flush=True)
print(*after, flush=True)
print(os.uname().nodename, time.time(), flush=True)
"""


class Report:
    """What one copy has reported.

    gone: how many numbers it got before it was on disk; before: the last of them; after: the first
    ones after.
    """

    def __init__(self, text: str) -> None:
        begun, before, after, end = text.splitlines()
        assert begun == "begun"
        gone, *self.before = before.split()
        self.gone = int(gone)
        self.after = after.split()
        self.host_name, clock = end.split()
        self.clock = float(clock)


def check_copies(first: Report, second: Report, *, spare: int = 0) -> None:
    """Check that they are copies of the same program and have nothing in common since.

    `spare`: how many more numbers one of them may have got, with the clock as it was on disk.
    """
    assert abs(first.gone - second.gone) <= spare
    if first.gone == second.gone:
        # The last one may have been requested before the save and received after it.
        assert first.before[:-1] == second.before[:-1]
    both = [*first.after, *second.after]
    assert len(set(both)) == len(both)
    assert not set(both) & {*first.before, *second.before}
