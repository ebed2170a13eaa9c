"""The frame that resumes a saved guest, for senders that run before asyncio is loaded."""

import time
from collections.abc import Mapping

from boincvm.bus.stomp import encode
from boincvm.guestlink.clone_identity import CloneIdentity

BEAT = 5.0
"""Seconds between the guest's heart-beats, unless the limit for a hung guest needs them sooner."""


def beat_within(silence_limit: float | None, most: float = BEAT) -> float:
    """Return the seconds between beats, at most `most`: several beats fit in `silence_limit`."""
    return most if silence_limit is None else min(most, silence_limit / 4)


def message_headers(
    number: int, kind: str, call: str, headers: Mapping[str, str]
) -> dict[str, str]:
    """Return the headers of the message with this number to the guest."""
    return {
        "subscription": "0",
        "message-id": str(number),
        "destination": "/guest",
        "message": kind,
        "call": call,
        **headers,
    }


def attach_headers(beat: float, identity: CloneIdentity | None) -> dict[str, str]:
    """Return the headers of the message `attach`, with the host's current time."""
    wanted = {"clock-ns": str(time.time_ns()), "heart-beat": str(round(beat * 1000))}
    return {**wanted, **(identity.headers() if identity else {})}


def attach_frame(silence_limit: float, identity: CloneIdentity) -> bytes:
    """Return the bytes to write to the channel of a golden snapshot's copy as soon as it starts.

    `GuestLink.open` must then be called with `attach_is_sent`.
    """
    headers = attach_headers(beat_within(silence_limit), identity)
    return encode("MESSAGE", message_headers(1, "attach", "0", headers))
