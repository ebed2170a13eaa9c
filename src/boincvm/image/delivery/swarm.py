"""Downloads a file from those who share it by BitTorrent, within limits on time, speed and memory.

What is downloaded is shared with the others meanwhile, and no longer. All who share it learn our
address; so peers are found through the torrent's trackers only, unless the user wants more.
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from boincvm.image.progress import Progress
from boincvm.sizes import format_size

if TYPE_CHECKING:
    import libtorrent as lt

_TICK = 500
"""Milliseconds after which the progress is looked at, at the latest."""
_FLUSH = 10.0
"""Seconds that the last pieces may take to be written."""
_MEMORY = 8 << 20
"""Bytes that wait to be written, at most."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """How a file is downloaded from others and shared with them."""

    is_open: bool = False
    """Also find peers in the distributed hash table, in the local network and through each other,
    and ask the router to let them in."""
    listen: str = "0.0.0.0:0,[::]:0"
    """Addresses and ports for others; port 0: any."""
    connections: int = 40
    upload_rate: int = 512 << 10
    """Bytes a second, at most."""
    start: float = 10.0
    """Seconds until something has arrived."""
    window: float = 20.0
    """Seconds over which the speed is measured."""
    least_rate: int = 32 << 10
    """Bytes a second that arrive at least; otherwise the web server has to help."""


def download_from_peers(
    torrent: "lt.add_torrent_params", path: Path, sharing: Sharing, progress: Progress
) -> tuple[int, list[tuple[int, int]]]:
    """Download what peers have of the torrent's file to `path`; what is there already is used.

    Returns how many bytes came from peers and which ranges are missing. Raises OSError.
    """
    import libtorrent as lt

    info = torrent.ti
    if info is None:
        raise ValueError("a torrent without a description of its file")
    size, piece = info.total_size(), info.piece_length()
    torrent.save_path = os.fspath(path.parent)
    torrent.renamed_files = {0: path.name}
    torrent.flags = lt.torrent_flags.apply_ip_filter
    session = lt.session(_settings(sharing), 0)
    session.add_extension("smart_ban")  # who has sent wrong data is not asked again
    if sharing.is_open:
        session.add_extension("ut_pex")
    handle = session.add_torrent(torrent)
    try:
        _wait(session, handle, sharing, progress)
    finally:
        handle.pause()
        handle.flush_cache()
        limit = monotonic() + _FLUSH
        while not _is_flushed(session) and monotonic() < limit:
            session.wait_for_alert(_TICK)
    found = handle.status(lt.torrent_handle.query_pieces)
    have = found.pieces
    missing = [
        (number * piece, min(size, (number + 1) * piece))
        for number in range(info.num_pieces())
        if number >= len(have) or not have[number]
    ]
    return found.total_payload_download, _joined(missing)


def _settings(sharing: Sharing) -> "lt.settings_pack":
    import libtorrent as lt

    is_open = sharing.is_open
    kinds = lt.alert_category
    settings: lt.settings_pack = {
        "alert_mask": kinds.error | kinds.status | kinds.storage,
        "listen_interfaces": sharing.listen,
        "connections_limit": sharing.connections,
        "upload_rate_limit": sharing.upload_rate,
        "max_queued_disk_bytes": _MEMORY,
        "disk_write_mode": lt.mmap_write_mode_t.always_pwrite,  # a full disk is an error
        "enable_dht": is_open,
        "enable_lsd": is_open,
        "enable_upnp": is_open,
        "enable_natpmp": is_open,
        "webtorrent_stun_server": "",
        "allow_multiple_connections_per_ip": True,  # many volunteers are behind one router
        "user_agent": "boincvm",
        "aio_threads": 2,
        "stop_tracker_timeout": 2,
    }
    return settings


def _wait(
    session: "lt.session", handle: "lt.torrent_handle", sharing: Sharing, progress: Progress
) -> None:
    """Wait until all has arrived, or too little has."""
    import libtorrent as lt

    begin, before, best, has_begun = monotonic(), 0, 0, False
    while True:
        session.wait_for_alert(_TICK)
        for alert in session.pop_alerts():
            if isinstance(alert, lt.file_error_alert):  # after which it would only share
                _raise_full(alert.error)
        status = handle.status(0)
        if status.errc.value():
            _raise_full(status.errc)
            progress.note(f"sharing has ended: {status.errc.message()}")
            return
        if status.is_finished:
            return
        if status.state != lt.torrent_status.states.downloading:
            begin = monotonic()  # what an earlier attempt has left is examined
            before = best = status.total_wanted_done
            continue
        best = max(best, status.total_wanted_done)  # of it wrong pieces are taken back
        progress.detail(
            f"{format_size(best)} of {format_size(status.total_wanted)}"
            f" from {status.num_peers} peers"
        )
        seconds = monotonic() - begin
        if not has_begun and best > before:
            begin, before, has_begun = monotonic(), best, True
        elif seconds >= (sharing.window if has_begun else sharing.start):
            if best - before < sharing.least_rate * seconds:
                return
            begin, before = monotonic(), best


def _raise_full(error: "lt.error_code") -> None:
    """Raise OSError if the disk is full."""
    import libtorrent as lt

    full = (errno.ENOSPC, errno.EDQUOT)
    if error.category() == lt.system_category() and error.value() in full:
        raise OSError(error.value(), error.message())


def _is_flushed(session: "lt.session") -> bool:
    import libtorrent as lt

    return any(isinstance(one, lt.cache_flushed_alert) for one in session.pop_alerts())


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that touch each other."""
    joined: list[tuple[int, int]] = []
    for begin, end in ranges:
        if joined and joined[-1][1] == begin:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((begin, end))
    return joined
