"""A container becomes an image, as docs/images.md says under "Bring your container"."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from support.command_line import BOINCVM
from support.containers import Entry, directory, docker_archive, link, oci_archive, tar_of
from support.image_home import boincvm_image, new_home

# A build waits for others that fetch packages, which may take minutes the first time.
pytestmark = pytest.mark.timeout(1200)

LOADER = Path("/lib/ld-musl-x86_64.so.1")
"""musl, which is the loader and the C library in one file."""
PAGE = Path(__file__).parents[2] / "docs/images.md"
SOURCE = """\
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **words)
{
    char where[100];
    printf("%s in %s with %s as %u\\n", words[1], getcwd(where, 100), getenv("PATTERN"), getuid());
    return 0;
}
"""
SCRIPT = """\
app started
stat -c '%n %a %u:%g %Y' *
echo $PATH
python3 -c 'import json, tarfile; print("python3 works")'
"""
SETTINGS = {
    "Env": ["PATH=/opt/app", 'PATTERN=a "quoted" word'],
    "WorkingDir": "/srv/app",
    "User": "nobody",
    "Entrypoint": ["sh", "-ec"],
    "Cmd": [SCRIPT],
}


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Return the layers of a container with musl alone: no shell, no Python, no other library."""
    work = tmp_path_factory.mktemp("container")
    (work / "app.c").write_text(SOURCE)
    subprocess.run(
        ["musl-gcc", "-Os", "-s", "-o", work / "app", work / "app.c"], check=True, timeout=120
    )
    return [
        tar_of(
            [
                directory("lib"),
                Entry("lib/libc.musl.so", LOADER.read_bytes(), mode=0o755),
                link("lib/ld-musl-x86_64.so.1", "libc.musl.so"),
                Entry("opt/app/app", b"the version before", mode=0o755),
                Entry("srv/app/old", b"old"),
                link("etc/machine-id", "/nowhere/machine-id"),
            ]
        ),
        tar_of(
            [
                Entry("opt/app/app", (work / "app").read_bytes(), mode=0o755),
                Entry("srv/app/.wh.old"),
                Entry("srv/app/data", b"data", mode=0o640, user=1000, group=100, time=86400),
            ]
        ),
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return new_home(tmp_path_factory.mktemp("home") / "of another user")


def commands_of_the_page() -> list[str]:
    section = PAGE.read_text().partition("## Bring your container\n")[2].partition("\n## ")[0]
    return re.findall(r"^\$ boincvm (.*)$", section, re.MULTILINE)


def test_the_page_is_true(home, layers, tmp_path):
    """Build an image, and run the container's own command and another one, as the page does."""
    oci_archive(tmp_path / "app.tar", layers, SETTINGS)
    (tmp_path / "words.txt").write_text('some words\na "quoted" word\n')

    def boincvm(line: str) -> str:
        done = subprocess.run(
            [BOINCVM, *shlex.split(line)],
            cwd=tmp_path,
            env=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    build, own, other = commands_of_the_page()
    assert "its own command: boincvm run --image app\n" in boincvm(build)
    assert boincvm(own).splitlines() == [
        'started in /srv/app with a "quoted" word as 0',
        "data 640 1000:100 86400",
        "/opt/app:/usr/lib/boincvm/bin",
        "python3 works",
    ]
    assert boincvm(other) == "1\n"
    inspected = boincvm("image inspect app")
    assert "user      nobody, but programs run as root" in inspected

    # The same container in another format is the same image, and is not built twice.
    docker_archive(tmp_path / "docker.tar", layers, SETTINGS)
    again = boincvm_image(
        home, "build", "--if-missing", "--from-oci", str(tmp_path / "docker.tar"), "app"
    )
    assert again["fresh"] is False
    digest = json.loads(boincvm("image inspect --json app"))["digest"]
    assert again["digest"] == digest
    assert os.listdir(Path(home["BOINCVM_HOME"]) / "data/images/builds") == ["lock"]
