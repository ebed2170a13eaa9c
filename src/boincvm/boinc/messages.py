"""What client and app say to one another on the channels: both sides, both directions.

Either side looks for tags anywhere in a message and leaves alone what it does not know.
(api/boinc_api.cpp, client/app_control.cpp.)
"""

from enum import Enum
from math import isfinite
from typing import NamedTuple

from boincvm.boinc.tags import boolean, element, integer, number, string

LONGEST_ADDRESS = 255
"""Bytes of a web graphics URL or a remote desktop address; the client has no room for more."""


class Control(Enum):
    """What the client says on the control channel, in the order in which an app obeys it."""

    SUSPEND = "<suspend/>"
    RESUME = "<resume/>"
    QUIT = "<quit/>"
    ABORT = "<abort/>"
    REREAD_PREFERENCES = "<reread_app_info/>"
    NETWORK_AVAILABLE = "<network_available/>"


def decode_control(text: str) -> list[Control]:
    """All that a message on the control channel says."""
    return [control for control in Control if control.value in text]


class Heartbeat(NamedTuple):
    """What the client says every second.

    working_set: bytes that the task takes, as the client measures it; maximum_working_set:
    bytes that it may take; network_suspended: whether the task may not use the network now.
    """

    working_set: float = 0.0
    maximum_working_set: float = 0.0
    network_suspended: bool = False


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
    """What an app tells the client about itself.

    cpu_time: seconds, over all runs of the task; checkpoint_cpu_time: what it was at the last
    checkpoint (a change is how the client learns of a checkpoint); fraction_done: 0 to 1, and
    0 is ignored; other_pid: a process whose memory counts too and which is killed on an abort;
    resident: bytes of memory, in place of what the client measures (from client 8.2.8 on);
    floating_operations, integer_operations: done so far, for credit (clients up to 7.x);
    want_network: the app waits for the network, of which the client tells the volunteer; said
    each time, as BOINC's library does it.
    """

    cpu_time: float
    checkpoint_cpu_time: float
    fraction_done: float = 0.0
    other_pid: int | None = None
    resident: int | None = None
    floating_operations: float | None = None
    integer_operations: float | None = None
    want_network: bool = False


def encode_status(status: Status) -> str:
    """What is negative or not finite is sent as 0: a sum gone wrong must not end a job."""
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
    """As the client understands it: a CPU time that is missing counts as 0."""
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


# Flags on trickle_up and trickle_down: what they speak of lies in files.
NEW_TRICKLE_UP = "<have_new_trickle_up/>"
NEW_UPLOAD = "<have_new_upload_file/>"
NEW_TRICKLE_DOWN = "<have_trickle_down/>"
NEW_UPLOAD_STATUS = "<upload_file_status/>"


def encode_web_graphics_url(url: str) -> str:
    """Raises ValueError for what cannot stand in the message."""
    return f"<web_graphics_url>{_address(url)}</web_graphics_url>"


def encode_remote_desktop_address(address: str) -> str:
    """`address`: HOST:PORT. Raises ValueError for what cannot stand in the message."""
    return f"<remote_desktop_addr>{_address(address)}</remote_desktop_addr>"


def decode_graphics_reply(text: str) -> tuple[str, str]:
    """(web graphics URL, remote desktop address); "" where the message has none."""
    return string(text, "web_graphics_url"), string(text, "remote_desktop_addr")


def _address(text: str) -> str:
    if not text.isprintable() or "<" in text or len(text.encode()) > LONGEST_ADDRESS:
        raise ValueError(f"no address of at most {LONGEST_ADDRESS} bytes: {text[:40]!r}")
    return text
