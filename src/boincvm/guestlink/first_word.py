"""The word with which a saved guest goes on, for whoever asks it before there is an event loop."""

import time
from collections.abc import Mapping

from boincvm.bus.stomp import encode
from boincvm.guestlink.fresh import Fresh

BEAT = 5.0
"""Seconds between the guest's heart-beats, unless it counts as hung earlier than that."""


def beat_within(silence_limit: float | None, most: float = BEAT) -> float:
    """Seconds between beats, `most` of them, so that there are several within `silence_limit`
    seconds."""
    return most if silence_limit is None else min(most, silence_limit / 4)


def word_head(number: int, word: str, call: str, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of the message with that number to the guest."""
    return {
        "subscription": "0",
        "message-id": str(number),
        "destination": "/guest",
        "word": word,
        "call": call,
        **headers,
    }


def attach_headers(beat: float, fresh: Fresh | None) -> dict[str, str]:
    """For the word `attach`, with the host's clock as it is now."""
    wanted = {"clock-ns": str(time.time_ns()), "heart-beat": str(round(beat * 1000))}
    return {**wanted, **(fresh.headers() if fresh else {})}


def first_word(silence_limit: float, fresh: Fresh) -> bytes:
    """What may be written to the channel of a golden snapshot's copy as soon as it begins;
    `GuestLink.open` is told so then."""
    headers = attach_headers(beat_within(silence_limit), fresh)
    return encode("MESSAGE", word_head(1, "attach", "0", headers))
