"""Images of recipes, built for real: what their scripts make, and the same bytes again."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.command_line import BOINCVM
from support.image_home import boincvm_image, command, new_home

# A build waits for others that fetch packages, which may take minutes the first time.
pytestmark = [pytest.mark.first, pytest.mark.timeout(1200)]

NAME = "test-recipe"
RECIPE = f"""\
name = "{NAME}"
memory = "288M"
[[files]]
from = "data"
to = "/opt/"
[script]
text = '''
test "$PWD:$(id -u):$(cat /opt/data)" = /root:0:data
test "$(ls /sys/class/net)" = lo
mkdir /usr/local/share/made
date +%F >/usr/local/share/made/date
printf '#!/bin/sh\\necho $((6 * 7))\\n' >/usr/local/bin/answer
chmod 755 /usr/local/bin/answer
touch /tmp/left /var/tmp/left
'''
[check]
command = ["sh", "-ec", "answer | grep 42; cat /usr/local/share/made/date; ls -A /var/tmp"]
"""
FULL = """\
name = "full"
[script]
text = "echo before; dd if=/dev/zero of=/full bs=1M || echo went on"
disk = "16M"
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the recipe, which the first build gives its lock file."""
    directory = tmp_path_factory.mktemp("recipe")
    (directory / "image.toml").write_text(RECIPE)
    (directory / "data").write_text("data")
    return directory


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return new_home(tmp_path_factory.mktemp("home") / "of another user")


@pytest.fixture(scope="module")
def built(home: dict[str, str], recipe: Path) -> Mapping[str, object]:
    return boincvm_image(home, "build", str(recipe))


def test_the_image_has_what_the_script_has_made(
    built: Mapping[str, object], home: dict[str, str], tmp_path: Path
) -> None:
    """Its check has passed; a machine needs the memory that the recipe says."""
    manifest = boincvm_image(home, "inspect", NAME)
    assert manifest["least_memory"] == 288 << 20
    done = subprocess.run(
        [BOINCVM, "run", "--image", NAME, "--memory", "256M", "--", "answer"],
        env=home,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 210, done.stderr
    assert f"the image {NAME} needs 288.0 MiB of memory" in done.stderr


def test_the_same_recipe_and_lock_give_the_same_digest(
    built: Mapping[str, object], recipe: Path
) -> None:
    """An earlier build with these versions, if there is one, was elsewhere."""
    lock = (recipe / "image.lock").read_text()
    assert built["lock"] == str(recipe / "image.lock")
    assert 'name = "busybox-static"' in lock
    again = boincvm_image(dict(os.environ), "build", "--if-missing", str(recipe))
    if again["digest"] != built["digest"]:  # the host's tools may have changed since
        again = boincvm_image(dict(os.environ), "build", str(recipe))
    assert again["digest"] == built["digest"]
    assert (recipe / "image.lock").read_text() == lock


def test_a_script_that_fills_the_disk(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "image.toml").write_text(FULL)
    done = subprocess.run(
        command("build", str(tmp_path)), env=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 222, done.stderr
    assert "the script has filled the 16.0 MiB of disk that it may write" in done.stderr
    assert "    before\n" in done.stderr
    assert "    went on" in done.stderr
    assert "image.lock" not in {path.name for path in tmp_path.iterdir()}
    images = subprocess.run(command("ls", "--json"), env=home, capture_output=True, check=True)
    assert "full" not in {image["name"] for image in json.loads(images.stdout)}
