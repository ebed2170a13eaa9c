"""An image that is shrunk for an app: a real machine tells what that touches."""

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from boincvm.image.store import ImageStore

pytestmark = pytest.mark.timeout(300)

APP = """\
python3 -c 'import json; print(json.dumps([6 * 7]))'
seq 1000 | sort -r | sha256sum >sum
exit 3
"""
ALIVE = """\
bash -c 'cat sum'
ls /opt /usr/lib/boincvm
test -e /usr/bin/openssl; echo openssl $?
"""


def boincvm(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "boincvm.cli.main", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_an_app_does_the_same_in_a_third_of_the_image(base_image: Path, tmp_path: Path) -> None:
    name = f"test-shrunk-{uuid4().hex[:8]}"
    options = ("--json", "--as", name, "--output", "sum")
    try:
        done = boincvm(
            "image", "shrink", *options, "base", "--", "sh", "-c", APP, directory=tmp_path
        )
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        assert made["removed_bytes"] > made["before"] / 5
        store = ImageStore()
        with store.open(name) as image:
            assert (image.digest, image.manifest.shrunk_from) == (made["digest"], base_image.name)
            assert image.root.stat().st_size < (base_image / "root.qcow2").stat().st_size / 2
        ran = boincvm("run", "--image", name, "--", "sh", "-c", APP, directory=tmp_path)
        assert (ran.returncode, ran.stdout) == (3, "[42]\n"), ran.stderr
        alive = boincvm(
            *("run", "--image", name, "--", "sh", "-c", APP.replace("exit 3", ALIVE)),
            directory=tmp_path,
        )
        assert alive.returncode == 0, alive.stderr
        assert "agent.pyz" in alive.stdout
        assert "openssl 1" in alive.stdout
        assert "[42]" in alive.stdout
    finally:
        boincvm("image", "rm", name, directory=tmp_path)
