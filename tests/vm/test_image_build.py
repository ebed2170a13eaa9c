"""Real builds: from Debian's packages to a machine that boots, and the same bytes again."""

import signal
import subprocess
from pathlib import Path

import pytest

from boincvm.host.process_tree import descendants
from boincvm.image.store import ImageStore
from support.bench import until
from support.image_home import boincvm_image, command, new_home
from support.images import earlier_digest
from support.killed_on_failure import killed_on_failure

# A build waits for others that fetch packages, which may take minutes the first time.
FETCH_LIMIT = 900.0
pytestmark = [pytest.mark.first, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Return a home with an image `sci`, built once for the module."""
    home = tmp_path_factory.mktemp("home") / "a longer path, with spaces"
    environment = new_home(home)
    return environment, boincvm_image(environment, "build", "--package", "gmp-ecm", "sci")


def test_an_earlier_build_elsewhere_gave_the_same_digest(fresh, tmp_path_factory):
    digest = fresh[1]["digest"]
    assert earlier_digest(tmp_path_factory, digest, "test-ecm", ["gmp-ecm"]) == digest


def test_if_missing_builds_only_what_is_not_there(fresh):
    environment, built = fresh
    again = boincvm_image(environment, "build", "--if-missing", "--package", "gmp-ecm", "sci")
    assert (again["fresh"], again["digest"]) == (False, built["digest"])


def test_the_manifest_names_what_is_inside(fresh):
    answer = boincvm_image(fresh[0], "inspect", "sci")
    packages = {package["name"]: package for package in answer["packages"]}
    assert {"gmp-ecm", "busybox-static", "libc6"} <= set(packages)
    assert answer["recipe"]["packages"] == ["gmp-ecm"]


def test_the_image_boots_and_has_the_package(fresh, tmp_path):
    home = Path(fresh[0]["BOINCVM_HOME"])
    overlay = tmp_path / "overlay.qcow2"
    program = (
        "echo $(echo 42 | ecm -q 10) $(stat -c %a:%g /etc/shadow) $(awk END{} </dev/null; echo $?)"
    )
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
                    "quiet loglevel=0 console=ttyS0 panic=-1 reboot=t no_timer_check "
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
    assert "2 21 640:42 0" in done.stdout


def test_an_unknown_package_is_named(fresh):
    done = subprocess.run(
        command("build", "--package", "no-such-package", "x"),
        env=fresh[0],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 222
    assert "no package no-such-package" in done.stderr


def test_an_interrupted_build_leaves_nothing(fresh):
    builds = Path(fresh[0]["BOINCVM_HOME"]) / "data/images/builds"
    process = subprocess.Popen(
        command("build", "other"), env=fresh[0], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with killed_on_failure(process):
        until(lambda: any(path.is_dir() for path in builds.iterdir()))
        # A tool works in it, once nobody else fetches packages.
        until(lambda: list(descendants(process.pid)), FETCH_LIMIT)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate()[1].decode()
    assert process.returncode == 143, errors
    assert [path.name for path in builds.iterdir()] == ["lock"]
    assert ImageStore(builds.parent).names() == ["sci"]
