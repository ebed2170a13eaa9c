"""A controller that starts on a full disk, or on one that becomes full while it starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.exit_codes import ExitCode

pytestmark = pytest.mark.timeout(120)
LIMIT = 30
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=2M,mode=0700 tmpfs "$3" && cd "$3" && mkdir home || exit 1
export BOINCVM_HOME=$PWD/home
"$0" -c 'import sys
from boincvm.controller.store import Store
from boincvm.host.own_files import make_directory
from boincvm.paths import controller_directory
make_directory(controller_directory())
if sys.argv[1] == "known": Store(controller_directory() / "store.sqlite").close()
' "$1"
head -c 2M /dev/zero > fill 2>/dev/null
truncate -s "-$2" fill
"$0" -m boincvm.cli.main controller
"""


def can_unshare() -> bool:
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(
    not can_unshare(), reason="this host lets its users make no namespaces, so no small disk"
)
@pytest.mark.parametrize("known", ["known", "new"])
@pytest.mark.parametrize("left", ["0", "4096", "12288"])
def test_it_says_that_the_disk_is_full(tmp_path: Path, known: str, left: str) -> None:
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", ON_A_SMALL_DISK, sys.executable, known, left, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == ExitCode.HOST_DISK_FULL, done.stderr
    assert "damaged" not in done.stderr
    assert "free some space" in done.stderr
