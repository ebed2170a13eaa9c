"""BOINC's API for a Python program that runs inside a virtual machine of boincvm, or anywhere.

One file, standard library only, any Python 3.8 or later: put it beside your program. Its messages
go to the FIFO that the environment variable BOINCVM_STATUS_CHANNEL names; where there is none,
everything works and nothing is sent. Functions may be called from any thread.

    import boinc

    boinc.init()
    with open(boinc.resolve_filename("in")) as file:
        ...
    boinc.fraction_done(0.25)
    if boinc.time_to_checkpoint():
        ...
        boinc.checkpoint_completed()
    boinc.finish(0)
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import select
import stat
import sys
import threading
import time

TYPE_CHECKING = False  # `typing` is slow to import in an emulated machine; checkers know this name
if TYPE_CHECKING:
    from typing import NoReturn

REPORT_PERIOD = 0.5
"""Seconds between two reports of progress, unless it has advanced by REPORT_STEP."""
REPORT_STEP = 0.01
DEFAULT_CHECKPOINT_PERIOD = 300.0
"""Seconds."""
LONGEST_LINE = 4095
"""Bytes of the longest message, with its line end: a FIFO's write() is atomic up to PIPE_BUF."""
LARGEST_FILE = 1 << 20
"""Bytes that are read of init_data.xml or a soft link."""
_SECTIONS = ("project_preferences", "host_info", "proxy_info", "global_preferences")


class _StatusChannel:
    """The status channel's FIFO, which is opened at the first message."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    def open(self) -> int:
        """Return the descriptor, or -1 if there is no reader."""
        with self._lock:
            if self._descriptor is None:
                self._descriptor = _open_fifo(os.environ.get("BOINCVM_STATUS_CHANNEL", ""))
            return self._descriptor

    def send(self, text: str, *, may_drop: bool = False) -> None:
        """Send one line; wait while the FIFO is full, unless the message `may_drop`."""
        descriptor = self.open()
        if descriptor < 0:
            return
        clean = "".join(letter if letter.isprintable() else " " for letter in text)
        line = clean.encode("utf-8", "replace")[: LONGEST_LINE - 1]
        line = line.decode("utf-8", "ignore").encode() + b"\n"
        while True:
            try:
                os.write(descriptor, line)
            except BlockingIOError:
                if may_drop:
                    return
                poll = select.poll()
                poll.register(descriptor, select.POLLOUT)
                poll.poll()
            except BrokenPipeError:  # Python ignores SIGPIPE
                return
            else:
                return


def _open_fifo(path: str) -> int:
    if not path:
        return -1
    try:
        # Non-blocking: a FIFO that nobody reads must not hold up the program.
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return -1
    return descriptor


class _State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.start()

    def start(self) -> None:
        self.data = init_data()
        self.started = time.monotonic()
        self.checkpoint_due = self.started + _checkpoint_period(self.data)
        self.fraction = self.sent_fraction = self.highest_sent = -1.0
        self.fraction_sent_at = self.operations_sent_at = -math.inf
        self.operations: tuple[float, float] | None = None


def init() -> None:
    """Read init_data.xml and start measuring time. Must be called first."""
    _state.start()


def init_data() -> dict[str, str]:
    """Return the simple elements of init_data.xml by their tags; {} if there is no such file.

    <host_info>, <global_preferences> and their like are left as the XML that is in them.
    """
    text = _read_text("init_data.xml")
    content = _element(text, "app_init_data") or ""
    data = {}
    for section in _SECTIONS:
        found = _element(content, section)
        if found is not None:
            data[section] = found
            content = content.replace(found, "", 1)
    for tag, value in re.findall(r"<(\w+)>([^<]*)</\1>", content):
        data.setdefault(tag, _unescape(value.strip()))
    return data


def is_standalone() -> bool:
    """Tell whether there is no status channel or no init_data.xml."""
    return not (_state.data and _status_channel.open() >= 0)


def resolve_filename(logical_name: str) -> str:
    """Return a file's physical name: the target of its soft link, or the name itself."""
    if os.path.islink(logical_name):
        return logical_name
    text = _read_text(logical_name, 8192).lstrip()
    target = _element(text, "soft_link") if text.startswith("<soft_link>") else None
    return target.strip() if target and target.strip() else logical_name


def fraction_done(fraction: float) -> None:
    """Report progress from 0 to 1. This is cheap, so call it often. Raises ValueError on NaN."""
    if not math.isfinite(fraction):
        raise ValueError(f"{fraction} is not a fraction")
    with _state.lock:
        _state.fraction = fraction
        shown = min(fraction, 1.0)
        is_due = shown >= 0 and _is_due(shown)
    if is_due:
        _status_channel.send(f"fraction-done {shown:.6f}", may_drop=True)


def get_fraction_done() -> float:
    """Return the last value passed to fraction_done; -1 before the first call."""
    return _state.fraction


def _is_due(fraction: float) -> bool:
    if fraction == _state.sent_fraction:
        return False
    highest = _state.highest_sent
    is_step = fraction >= highest + REPORT_STEP or fraction == 1 > highest
    now = time.monotonic()
    if not is_step and now - _state.fraction_sent_at < REPORT_PERIOD:
        return False
    _state.sent_fraction = fraction
    _state.fraction_sent_at = now
    _state.highest_sent = max(highest, fraction)
    return True


def time_to_checkpoint() -> bool:
    """Tell whether the checkpoint period (init_data.xml, or 300 s) has passed."""
    return time.monotonic() >= _state.checkpoint_due


def checkpoint_completed() -> None:
    """Report that the program has written a checkpoint to disk."""
    _send_operations()
    _state.checkpoint_due = time.monotonic() + _checkpoint_period(_state.data)
    _status_channel.send("checkpoint-completed")


def want_checkpoint() -> None:
    """Request a checkpoint of the whole machine. BOINC's own API has no such function."""
    _status_channel.send("checkpoint-wanted")


def elapsed_time() -> float:
    """Return the seconds since init()."""
    return time.monotonic() - _state.started


def wu_cpu_time() -> float:
    """Return the seconds of CPU time in all runs of the task."""
    return _number(_state.data.get("wu_cpu_time", "")) + time.process_time()


def ops_cumulative(floating: float, integer: float) -> None:
    """Report the work done so far, for credit: floating-point and integer operations."""
    if not all(math.isfinite(count) and count >= 0 for count in (floating, integer)):
        raise ValueError(f"{floating} and {integer} are not both counts")
    _state.operations = (floating, integer)
    if time.monotonic() - _state.operations_sent_at >= REPORT_PERIOD:
        _send_operations()


def _send_operations() -> None:
    with _state.lock:
        counted, _state.operations = _state.operations, None
        _state.operations_sent_at = time.monotonic()
    if counted is not None:
        _status_channel.send(f"operations {counted[0]:.0f} {counted[1]:.0f}")


def send_trickle_up(variety: str, text: str) -> None:
    """Send `text` to the project while the task runs. Raises OSError, ValueError."""
    _check_word(variety)
    if _status_channel.open() < 0:
        return
    path = os.path.join(os.getcwd(), f"boincvm_trickle_{os.getpid()}_{time.monotonic_ns()}")
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)
    _status_channel.send(f"trickle-up {variety} {path}")


def receive_trickle_down() -> str | None:
    """Return the name of a file with a message from the project, or None; the caller deletes it."""
    return next((name for name in sorted(os.listdir(".")) if "trickle_down" in name), None)


def upload_file(logical_name: str) -> None:
    """Request the upload of an output file while the task runs. Raises ValueError."""
    _check_word(logical_name)
    _status_channel.send(f"upload {logical_name}")


def upload_status(logical_name: str) -> int | None:
    """Return the status of that upload once it has ended, 0 for success; None before."""
    _check_word(logical_name)
    status = _element(_read_text(f"boinc_ufs_{logical_name}"), "status")
    return None if status is None else int(_number(status))


def temporary_exit(delay: int, reason: str, notice: bool = False) -> NoReturn:
    """End now and be restarted after `delay` seconds; `notice` shows the reason to the user."""
    _flush()
    _send_operations()
    _status_channel.send(f"temporary-exit {max(0, int(delay))} {int(notice)} {reason}")
    raise SystemExit(0)


def finish(status: int, message: str | None = None, notice: bool = False) -> NoReturn:
    """End the task with `status`, by SystemExit; 0 is success."""
    _flush()
    _send_operations()
    _status_channel.send(f"finish {int(status)} {int(notice)} {message or ''}")
    raise SystemExit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _check_word(text: str) -> None:
    if not re.fullmatch(r"[^\s/\x00-\x1f\x7f]{1,255}", text):
        raise ValueError(f"{text!r} is not a name")


def _checkpoint_period(data: dict[str, str]) -> float:
    period = _number(data.get("checkpoint_period", ""))
    return period if period > 0 else DEFAULT_CHECKPOINT_PERIOD


def _number(text: str) -> float:
    with contextlib.suppress(ValueError):
        value = float(text)
        return value if math.isfinite(value) else 0.0
    return 0.0


def _element(text: str, tag: str) -> str | None:
    found = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return found[1] if found else None


def _unescape(text: str) -> str:
    for entity, letter in (("lt", "<"), ("gt", ">"), ("quot", '"'), ("apos", "'"), ("amp", "&")):
        text = text.replace(f"&{entity};", letter)
    return text


def _read_text(path: str, size: int = LARGEST_FILE) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO):
            return ""
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return ""
    with open(descriptor, "rb") as file:
        return file.read(size).decode("utf-8", "replace")


_status_channel = _StatusChannel()
_state = _State()
