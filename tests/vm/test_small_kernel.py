"""Our own kernels: built from Debian's sources, and machines that boot them."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from boincvm.image.initrd import Entry, cpio
from boincvm.image.kernels.source import SourceArchive
from boincvm.image.store import ImageStore
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


SWAP = b"""#!/bin/busybox sh
b=/bin/busybox nvme=/sys/bus/pci/drivers/nvme
$b mount -t devtmpfs devtmpfs /dev
$b mount -t sysfs sysfs /sys
card=$(cd $nvme && echo 0000:*)
for i in $($b seq 100); do
    read -r namespace </sys/block/nvme0n1/nsid
    [ "$namespace" = 1 ] || break
    echo $card >$nvme/unbind
    echo $card >$nvme/bind
done
$b umount /sys /dev
exec /init
"""
"""Has the kernel look for the namespaces of the NVMe controller until it finds the second first,
or a hundred times."""
DISKS = (
    "cat /sys/block/nvme0n1/nsid; grep ' / ext4' /proc/mounts | cut -d' ' -f1;"
    " PYTHONPATH=/usr/lib/boincvm/agent.pyz python3.11 -S -c"
    " 'from boincvm_agent import transfer_disk; print(transfer_disk._device())'; poweroff -f"
)


def test_the_disks_are_found_in_any_order(home: dict[str, str], tmp_path: Path) -> None:
    """As VirtualBox has them: namespaces of one controller, which Linux looks for all at once."""
    with ImageStore(Path(home["BOINCVM_HOME"]) / "data/images").open("quick") as image:
        initrd = tmp_path / "initrd"
        # Not behind it: the kernel would take it for more of what is compressed.
        initrd.write_bytes(cpio([Entry("swap", 0o100755, SWAP)]) + image.initrd.read_bytes())
        (tmp_path / "transfer").write_bytes(bytes(1 << 20))
        arguments = f'console=ttyS0 quiet loglevel=1 panic=-1 rdinit=/swap boincvm.shell="{DISKS}"'
        root = f"file={image.root},format=qcow2,snapshot=on,if=none,id=root"
        transfer = f"file={tmp_path / 'transfer'},format=raw,if=none,id=transfer"
        done = subprocess.run(
            ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "256M", "-nodefaults",
             "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", image.kernel,
             "-initrd", initrd, "-append", arguments, "-drive", root, "-drive", transfer,
             "-device", "nvme,id=card,serial=1", "-device", "nvme-ns,bus=card,nsid=1,drive=root",
             "-device", "nvme-ns,bus=card,nsid=2,drive=transfer"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )  # fmt: skip
    found, *disks = done.stdout.split()[:3]  # the kernel's last words follow
    assert found in ("1", "2"), done.stdout
    in_order = ["/dev/nvme0n1", "/dev/nvme0n2"]
    assert disks == (in_order if found == "1" else in_order[::-1]), done.stdout


def test_what_it_has_built_in(home: dict[str, str], tmp_path: Path) -> None:
    """A network card, and what programs of the image may need from a kernel."""
    script = """
        set -e
        ip=$(busybox ifconfig eth0 | grep -o 'addr:1[0-9.]*'); echo $ip
        grep -cw -e overlay -e fuse -e ext4 -e tmpfs -e cgroup2 -e mqueue /proc/filesystems
        test -e /proc/self/ns/user; test -c /dev/loop-control; test -d /proc/sys/net/ipv6
        busybox mount -t tmpfs none /mnt; echo data >/mnt/file; cat /mnt/file
        python3 -c 'import fcntl, os; fcntl.fcntl(os.open("/", 0), fcntl.F_NOTIFY, fcntl.DN_MODIFY)'
    """
    done = run(home, "--network", "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["addr:10.0.2.15", "6", "data"]


def test_a_guest_that_panics_is_reported(home: dict[str, str]) -> None:
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
