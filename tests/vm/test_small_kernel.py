"""Our own kernels: built from Debian's sources, and machines that boot them."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from boincvm.image.kernels.source import SourceArchive
from support.command_line import BOINCVM
from support.image_home import boincvm_image, new_home
from support.published_port import check_published_port
from support.virtualbox.fixture import use_virtualbox
from support.virtualbox.golden import BOOT_LIMIT

# The first test builds two kernels where they are missing: some eight minutes of two processors.
pytestmark = [pytest.mark.first, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def home(small_kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return a home with our kernel and an image `quick` with it."""
    directory = tmp_path_factory.mktemp("quick")
    environment = new_home(directory)
    (directory / "data").mkdir(mode=0o700)
    (directory / "data/kernels").symlink_to(small_kernel.parents[1])
    boincvm_image(environment, "build", "--kernel", "small", "quick")
    return environment


def run(home: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BOINCVM, "run", "--image", "quick", *arguments],
        env={**home, "BOINCVM_GOLDEN": "no"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_both_kernels_are_listed(uml_kernel: Path, small_kernel: Path) -> None:
    done = subprocess.run(
        [BOINCVM, "image", "kernel", "ls", "--json"], check=True, capture_output=True, text=True
    )
    kernels = {kernel["name"]: kernel for kernel in json.loads(done.stdout)}
    assert [kernels[name]["path"] for name in ("small", "uml")] == [
        str(small_kernel),
        str(uml_kernel),
    ]
    for kernel in kernels.values():
        assert Path(kernel["path"]).read_bytes().startswith(b"\x7fELF")
        assert kernel["recipe"]["source"].startswith("linux-source-")


def test_a_machine_boots_it(home: dict[str, str]) -> None:
    image = boincvm_image(home, "inspect", "quick")
    assert not [name for name in image["packages"] if name["name"].startswith("linux-image")]  # type: ignore[attr-defined]
    script = "uname -r; nproc; test -e /proc/modules || echo no modules"
    done = run(home, "--cpus", "2", "--", "sh", "-c", script)
    assert done.stdout == f"{image['kernel_release']}\n2\nno modules\n", done.stderr


def test_a_machine_of_virtualbox_boots_it(
    home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a network, into which a port of the host leads."""
    use_virtualbox(monkeypatch)
    environment = {**home, "BOINCVM_GOLDEN": "no", "PATH": os.environ["PATH"]}
    limits = ("--boot-limit", str(BOOT_LIMIT), "--silence-limit", str(BOOT_LIMIT))
    machine = ("--driver", "virtualbox", "--image", "quick", "--memory", "256M")
    check_published_port(*machine, *limits, environment=environment)


def test_what_it_has_built_in(home: dict[str, str], tmp_path: Path) -> None:
    """A network card, and what programs of the image may need from a kernel."""
    script = """
        set -e
        ip=$(busybox ifconfig eth0 | grep -o 'addr:1[0-9.]*'); echo $ip
        grep -cw -e overlay -e fuse -e ext4 -e tmpfs -e cgroup2 -e mqueue /proc/filesystems
        test -e /proc/self/ns/user; test -c /dev/loop-control; test -d /proc/sys/net/ipv6
        busybox mount -t tmpfs none /mnt; echo data >/mnt/file; cat /mnt/file
    """
    done = run(home, "--network", "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["addr:10.0.2.15", "6", "data"]


def test_a_guest_that_panics_is_told(home: dict[str, str]) -> None:
    done = run(home, "--", "sh", "-c", "echo c >/proc/sysrq-trigger")
    assert "kernel panicked: sysrq triggered crash" in done.stderr


def test_a_machine_turns_itself_off(home: dict[str, str]) -> None:
    done = run(home, "--", "busybox", "poweroff", "-f")
    assert "turned itself off" in done.stderr


def test_the_sources_that_apt_finds_are_those_of_the_index(tmp_path: Path) -> None:
    """The suite's index is signed, and contains the digest of the download."""
    source = SourceArchive("trixie-backports", None, tmp_path).find()
    assert source.package.startswith("linux-source-")
    assert source.file_name.startswith(f"{source.package}_")
    assert len(bytes.fromhex(source.sha256)) == 32
