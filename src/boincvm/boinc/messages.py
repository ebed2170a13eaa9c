"""Messages between client and app on the channels, for both sides and both directions.

Either side searches a message for tags and ignores what it does not know. (api/boinc_api.cpp,
client/app_control.cpp.)
"""

from enum import Enum
from math import isfinite
from typing import NamedTuple

from boincvm.boinc.tags import boolean, element, integer, number, string

LONGEST_ADDRESS = 255
"""Bytes of a web graphics URL or a remote desktop address; the client has no room for more."""


class Control(Enum):
    """Requests on the control channel, in the order in which an app handles them."""

    SUSPEND = "<suspend/>"
    RESUME = "<resume/>"
    QUIT = "<quit/>"
    ABORT = "<abort/>"
    REREAD_PREFERENCES = "<reread_app_info/>"
    NETWORK_AVAILABLE = "<network_available/>"


def decode_control(text: str) -> list[Control]:
    """Return all requests in a message from the control channel."""
    return [control for control in Control if control.value in text]


class Heartbeat(NamedTuple):
    """The message that the client sends every second."""

    working_set: float = 0.0
    """Bytes that the task uses, as the client measures it."""
    maximum_working_set: float = 0.0
    """Bytes that the task may use."""
    network_suspended: bool = False
    """The task must not use the network now."""


def encode_heartbeat(heartbeat: Heartbeat) -> str:
    text = (
        f"<heartbeat/><wss>{heartbeat.working_set:e}</wss>"
        f"<max_wss>{heartbeat.maximum_working_set:e}</max_wss>"
    )
    return text + "<network_suspended/>" if heartbeat.network_suspended else text


def decode_heartbeat(text: str) -> Heartbeat:
    return Heartbeat(
        number(text, "wss"), number(text, "max_wss"), boolean(text, "network_suspended")
    )


class Status(NamedTuple):
    """What an app reports about itself."""

    cpu_time: float
    """Seconds, over all runs of the task."""
    checkpoint_cpu_time: float
    """The CPU time at the last checkpoint; a change tells the client of a new checkpoint."""
    fraction_done: float = 0.0
    """From 0 to 1; 0 is ignored."""
    other_pid: int | None = None
    """A process whose memory is counted as well, and which is killed on an abort."""
    resident: int | None = None
    """Bytes of memory, replacing what the client measures (from client 8.2.8 on)."""
    floating_operations: float | None = None
    """Number done so far, for credit (clients up to 7.x)."""
    integer_operations: float | None = None
    """Number done so far, for credit (clients up to 7.x)."""
    want_network: bool = False
    """The app waits for the network, and the client tells the volunteer. Repeated in each
    report, as BOINC's library does."""


def encode_status(status: Status) -> str:
    """Encode a status; negative and non-finite numbers become 0, so that they do not end a job."""
    parts = [
        f"<current_cpu_time>{_sane(status.cpu_time):e}</current_cpu_time>\n",
        f"<checkpoint_cpu_time>{_sane(status.checkpoint_cpu_time):e}</checkpoint_cpu_time>\n",
        f"<fraction_done>{min(_sane(status.fraction_done), 1.0):e}</fraction_done>\n",
    ]
    if status.other_pid:
        parts.append(f"<other_pid>{status.other_pid:d}</other_pid>\n")
    if status.resident is not None:
        parts.append(f"<wss>{_sane(status.resident):f}</wss>\n")
    if status.floating_operations is not None:
        parts.append(
            f"<fpops_cumulative>{_sane(status.floating_operations):e}</fpops_cumulative>\n"
        )
    if status.integer_operations is not None:
        parts.append(
            f"<intops_cumulative>{_sane(status.integer_operations):e}</intops_cumulative>\n"
        )
    parts.append(f"<want_network>{status.want_network:d}</want_network>\n")
    return "".join(parts)


def decode_status(text: str) -> Status:
    """Decode a status as the client does: a missing CPU time counts as 0."""
    return Status(
        cpu_time=max(number(text, "current_cpu_time"), 0.0),
        checkpoint_cpu_time=max(number(text, "checkpoint_cpu_time"), 0.0),
        fraction_done=number(text, "fraction_done"),
        other_pid=integer(text, "other_pid") or None,
        resident=None if element(text, "wss") is None else int(number(text, "wss")),
        floating_operations=_optional(text, "fpops_cumulative"),
        integer_operations=_optional(text, "intops_cumulative"),
        want_network=boolean(text, "want_network"),
    )


def _sane(value: float) -> float:
    return value if isfinite(value) and value > 0 else 0.0


def _optional(text: str, name: str) -> float | None:
    return None if element(text, name) is None else number(text, name)


# Flags on trickle_up and trickle_down; the contents are in files.
NEW_TRICKLE_UP = "<have_new_trickle_up/>"
NEW_UPLOAD = "<have_new_upload_file/>"
NEW_TRICKLE_DOWN = "<have_trickle_down/>"
NEW_UPLOAD_STATUS = "<upload_file_status/>"


def encode_web_graphics_url(url: str) -> str:
    """Encode the URL. Raises ValueError if it cannot be part of a message."""
    return f"<web_graphics_url>{_address(url)}</web_graphics_url>"


def encode_remote_desktop_address(address: str) -> str:
    """Encode HOST:PORT. Raises ValueError if it cannot be part of a message."""
    return f"<remote_desktop_addr>{_address(address)}</remote_desktop_addr>"


def decode_graphics_reply(text: str) -> tuple[str, str]:
    """Return the web graphics URL and the remote desktop address; "" if missing."""
    return string(text, "web_graphics_url"), string(text, "remote_desktop_addr")


def _address(text: str) -> str:
    if not text.isprintable() or "<" in text or len(text.encode()) > LONGEST_ADDRESS:
        raise ValueError(f"not an address of at most {LONGEST_ADDRESS} bytes: {text[:40]!r}")
    return text
