"""Who waits for a file lock of another process."""

import asyncio
from pathlib import Path

_MOMENT = 0.01
_LIMIT = 15.0


async def until_waited_for(lock: Path, waits: "asyncio.Future[object]") -> None:
    """Return as soon as somebody waits for the lock file; `waits` must not end before that."""
    try:
        async with asyncio.timeout(_LIMIT):
            while not _is_waited_for(lock):
                done, _ = await asyncio.wait((waits,), timeout=_MOMENT)
                assert not done, f"{waits} has ended and not waited for {lock}"
    except TimeoutError:
        raise AssertionError(f"nobody has waited for {lock} within {_LIMIT:g} s") from None


def _is_waited_for(lock: Path) -> bool:
    """Tell whether somebody waits for a lock file (proc(5), /proc/locks: `1: -> FLOCK …`)."""
    inode = f":{lock.stat().st_ino}"
    lines = map(str.split, Path("/proc/locks").read_text().splitlines())
    return any(words[1] == "->" and words[6].endswith(inode) for words in lines)
