"""A user of golden snapshots, who has the base image and no snapshot yet."""

import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from boincvm.image.filenames import MANIFEST
from boincvm.machine.golden.snapshots import TABLE
from boincvm.machine.golden.switch import SWITCH
from boincvm.paths import data_directory

BOINCVM = (sys.executable, "-m", "boincvm.cli.main")
LIMIT = 120.0
_NOT_ITS_OWN = (SWITCH, "BOINCVM_HOME")
"""Variables of the person who starts the tests; the second one would name that person's images."""


def link_images(images: Path, image: str = "base") -> None:
    """Make a store of images that has this user's image of that name."""
    for name in ("names", "objects"):
        (images / name).mkdir(parents=True)
    store = data_directory() / "images"
    digest = (store / "names" / image).read_text().strip()
    (images / "names" / image).write_text(digest)
    # Links, because an image is large and read-only.
    (images / "objects" / digest).mkdir()
    for path in (store / "objects" / digest).iterdir():
        location = images / "objects" / digest / path.name
        if path.name == MANIFEST:  # users of an image lock it
            shutil.copy2(path, location)
        else:
            os.link(path, location)


class GoldenHome:
    """A data directory with the base image of this user, and golden snapshots of its own."""

    def __init__(self, directory: Path) -> None:
        self.images = directory / "boincvm" / "images"
        link_images(self.images)
        self.environment = {
            **{name: word for name, word in os.environ.items() if name not in _NOT_ITS_OWN},
            "XDG_DATA_HOME": str(directory),
        }

    def boincvm(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*BOINCVM, *arguments],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env={**self.environment, **environment},
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def run(
        self, *command: str, options: Sequence[str] = (), **environment: str
    ) -> dict[str, object]:
        """Run a command in a machine of 256 MiB; return the result of `boincvm run --json`."""
        words = ("run", *options, "--memory", "256M", "--json", "--", *command)
        done = self.boincvm(*words, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        result = json.loads(done.stdout)
        assert isinstance(result, dict)
        return result

    def take_snapshot(self, *, durable: bool = False) -> Path:
        """Copy the snapshot that the tests have made for this user's machines; return its path.

        It is for machines of runs, or, if `durable`, for the controller's.
        """
        golden = self.images / "golden"
        golden.mkdir(mode=0o700, exist_ok=True)
        (digest,) = [path.name for path in (self.images / "objects").iterdir()]
        name = f"{digest[:16]}-256-1{'-durable' if durable else ''}"
        source = data_directory() / "images" / "golden" / name
        if not (source / TABLE).exists():
            options = ["--controller"] if durable else []
            warm = ["image", "warm", "--memory", "256M", *options, "base"]
            subprocess.run([*BOINCVM, *warm], check=True, timeout=LIMIT, stdout=subprocess.DEVNULL)
        subprocess.run(["cp", "-a", "--sparse=always", source, golden], check=True, timeout=LIMIT)
        return golden / name

    def warm(self, *options: str) -> Path:
        """Make the snapshot; return its directory."""
        done = self.boincvm("image", "warm", "--memory", "256M", *options)
        assert done.returncode == 0, done.stderr
        (found,) = [path for path in (self.images / "golden").iterdir() if path.is_dir()]
        return found


def wait_for_maker(home: GoldenHome) -> None:
    """Wait until the background process that makes the snapshot has ended."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"warm" not in words or os.fsencode(home.images) not in words:
                continue
            descriptor = os.pidfd_open(int(process.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
        try:
            assert select.select([descriptor], [], [], LIMIT)[0]
        finally:
            os.close(descriptor)
