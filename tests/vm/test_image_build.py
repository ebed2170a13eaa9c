"""Real builds: from Debian's packages to a machine that boots, and the same bytes again."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from boincvm.image.store import ImageStore
from support.image_home import boincvm_image, command, new_home

# A build waits for others that fetch packages, which may take minutes the first time.
pytestmark = [pytest.mark.first, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A home with an image `sci`, built once for the module."""
    home = tmp_path_factory.mktemp("first")
    environment = new_home(home)
    return environment, boincvm_image(environment, "build", "--package", "bc", "sci")


def test_a_second_build_elsewhere_gives_the_same_digest(first, tmp_path):
    environment = new_home(tmp_path / "a longer path, with spaces")
    again = boincvm_image(environment, "build", "--package", "bc", "sci")
    assert again["digest"] == first[1]["digest"]


def test_if_missing_builds_only_what_is_not_there(first):
    environment, built = first
    again = boincvm_image(environment, "build", "--if-missing", "--package", "bc", "sci")
    assert (again["fresh"], again["digest"]) == (False, built["digest"])


def test_the_manifest_names_what_is_inside(first):
    answer = boincvm_image(first[0], "inspect", "sci")
    packages = {package["name"]: package for package in answer["packages"]}
    assert {"bc", "busybox-static", "libc6"} <= set(packages)
    assert answer["recipe"]["packages"] == ["bc"]


def test_the_image_boots_and_has_the_package(first, tmp_path):
    home = Path(first[0]["BOINCVM_HOME"])
    overlay = tmp_path / "overlay.qcow2"
    program = "echo $(echo 6*7 | bc) $(stat -c %a:%g /etc/shadow) $(awk END{} </dev/null; echo $?)"
    with ImageStore(home / "data/images").open("sci") as image:
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image.root, overlay],
            check=True,
        )
        done = subprocess.run(
            [
                *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-nographic"),
                *("-no-reboot", "-accel", "tcg", "-cpu", "max", "-m", "256", "-serial", "stdio"),
                *("-machine", "q35,graphics=off", "-kernel", image.kernel),
                *("-initrd", image.initrd, "-append"),
                (
                    "quiet loglevel=0 console=ttyS0 panic=-1 reboot=t "
                    f'boincvm.shell="{program}; poweroff -f"'
                ),
                *("-drive", f"if=none,id=root,file={overlay}"),
                *("-device", "virtio-blk-pci,drive=root"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    assert "42 640:42 0" in done.stdout


def test_an_unknown_package_is_named(first):
    done = subprocess.run(
        command("build", "--package", "no-such-package", "x"),
        env=first[0],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 222
    assert "no package no-such-package" in done.stderr


def test_an_interrupted_build_leaves_nothing(first):
    builds = Path(first[0]["BOINCVM_HOME"]) / "data/images/builds"
    process = subprocess.Popen(
        command("build", "other"), env=first[0], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with process:
        while not any(path.is_dir() for path in builds.iterdir()):
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate()[1].decode()
    assert process.returncode == 143, errors
    assert list(builds.iterdir()) == []
    assert ImageStore(builds.parent).names() == ["sci"]
