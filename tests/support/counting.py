"""A guest's program that counts, so that nobody can miss the moment at which it is still running.

However long the host keeps a test waiting, the program goes on until what the test waits for has
happened in its machine.
"""

RESUMED = '[ "$(cat /etc/machine-id)" != "$first" ]'
"""Holds once its machine has resumed from the disk: a new machine id comes with that."""
NOTIFIED = "[ -e trickle_down_0 ]"
"""Holds once the client has sent a message: `FakeClient.send_trickle_down`."""


def counting(until: str, *, least: int = 60, pause: float = 0.1, each: str = "") -> str:
    """Return a shell script that prints `line 1`, `line 2` and so on, every `pause` seconds.

    It ends when `until` holds, one of the above, and `least` lines are printed. `each`: commands
    that it runs after each line and its pause; `$i` is the line's number.
    """
    body = f'i=$((i + 1)); echo "line $i"; sleep {pause:g}; {each}'
    enough = f"[ $i -ge {least} ] && {until}"
    return f"first=$(cat /etc/machine-id); i=0; until {enough}; do {body}\ndone"


def lines(count: int) -> str:
    """Return what it prints up to that line."""
    return "".join(f"line {number}\n" for number in range(1, count + 1))


def check_count(text: str, *, least: int = 60) -> None:
    """Check that these are all its lines to the end, none missing and none twice."""
    count = text.count("\n")
    assert count >= least, text
    assert text == lines(count)
