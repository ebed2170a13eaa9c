"""A volunteer: a user with an own home, who has no image."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from boincvm.image.store import ImageStore
from boincvm.paths import data_directory
from support.command_line import BOINCVM, LIMIT, boincvm


class Volunteer:
    """Runs commands as a user whose files are in `home`, with our User-mode Linux."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {"BOINCVM_HOME": str(home)}
        self.store = ImageStore(home / "data/images")
        kernel = home / "data/kernels/uml"
        kernel.mkdir(parents=True)
        for path in (data_directory() / "kernels/uml").iterdir():
            os.link(path, kernel / path.name)

    def image(self, *words: str) -> dict[str, object]:
        """Run `boincvm image` with the words; return what it prints of the image."""
        done = boincvm("image", *words, "--json", environment=self.environment)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        (found,) = answer if isinstance(answer, list) else [answer]
        assert isinstance(found, dict)
        return found

    def run(self, *words: str) -> str:
        """Run a program in a machine; return what it prints."""
        done = boincvm("run", "--driver", "uml", *words, environment=self.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run_without_files(self, *words: str) -> str:
        """Run a program, and delete this user's images and cache before it begins.

        Return what it prints.
        """
        options, program = words[: words.index("--")], words[words.index("--") + 1 :]
        waits = ("--", "sh", "-c", 'echo ready; read -r line; exec "$@"', "sh", *program)
        process = subprocess.Popen(
            [BOINCVM, "run", "--driver", "uml", *options, *waits],
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == "ready\n"
                for directory in (self.home / "cache", self.store.root):
                    # At once: who deletes file by file may meet new ones.
                    gone = directory.rename(directory.with_name("gone"))
                    shutil.rmtree(gone, ignore_errors=True)
                stdout, stderr = process.communicate("\n", timeout=LIMIT)
            finally:
                process.kill()
        assert process.returncode == 0, stderr
        return stdout
