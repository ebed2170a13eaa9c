"""Disks that are soon full: each is a tmpfs in a mount namespace of its own."""

import os
import subprocess
from pathlib import Path

import pytest

# Root needs no user namespace, which is refused in a chroot, for example.
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
SMALL_DISK = (
    'mount -t tmpfs -o size=$1 tmpfs "$2" && shift 2 && "$@";'
    ' code=$?; ls -A "$XDG_CACHE_HOME/boincvm/runs" 2>/dev/null >&2; exit $code'
)


def small_disk(size: str, directory: Path) -> list[str]:
    """Return a command that runs another with a small disk mounted at `directory`."""
    return [*UNSHARE, "sh", "-c", SMALL_DISK, "sh", size, str(directory)]


def can_unshare() -> bool:
    return subprocess.run([*UNSHARE, "true"], check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(
    not can_unshare(), reason="this host lets its users make no namespaces, so no small disk"
)
