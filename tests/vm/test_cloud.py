"""Cloud mode: a machine that firmware boots, which its seed sets up; no boincvm has started it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.controller.controller import Controller, run_controller
from boincvm.controller.hosts.bus_connection import Listen
from boincvm.image.cloud.disc import disc_of
from boincvm.image.export import export_image
from boincvm.image.store import ImageStore
from support.certificates import Authority
from support.controller.controlled import Controlled
from support.controller.invited import invite

pytestmark = pytest.mark.timeout(300)
LIMIT = 240.0
GATEWAY = "10.0.2.2"
"""The host, for a machine on QEMU's own network."""


@asynccontextmanager
async def machine(
    disk: Path, seed: Path | None, log: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a machine as any cloud does; `log`: what it writes to its serial line."""
    drives = ["-drive", f"file={disk},format=qcow2,if=virtio"]
    if seed is not None:
        drives += ["-drive", f"file={seed},format=raw,if=virtio,readonly=on"]
    process = await asyncio.create_subprocess_exec(
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "256M", "-nodefaults"),
        *("-display", "none", "-no-reboot", "-serial", f"file:{log}", *drives),
        *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"),
    )  # fmt: skip
    try:
        yield process
    except BaseException:
        print(log.read_text(errors="replace"))  # shown if the test has failed
        raise
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until_new(controller: Controller, former: str) -> str:
    """Wait for the guest in another life than the former one; return which."""
    async for _ in controller.events.follow(0):
        guest = controller.hub.registry.get("lab.one")
        if guest is not None and guest.instance != former:
            return guest.instance
    raise AssertionError("there are no more events")


def write_seed(path: Path, *options: str) -> None:
    assert main(["image", "seed", *options, str(path)]) == 0


@pytest.mark.usefixtures("base_image")
async def test_a_machine_becomes_a_guest_by_its_seed(tmp_path: Path) -> None:
    """It has its name and its file, runs its command once, and is on the bus after each boot."""
    disk, seed, log = (tmp_path / name for name in ("disk.qcow2", "seed.iso", "log"))
    with ImageStore().open("base") as image:
        export_image(image, disk, "qcow2", command=None)
    authority = Authority(tmp_path, "authority")
    pair = authority.sign("bus", f"IP:{GATEWAY}")
    listen = Listen("127.0.0.1", 0, pair.certificate, pair.key)
    async with run_controller(tmp_path / "controller", listen=listen) as controller:
        asked = Controlled(controller)
        bus = await invite(controller, "lab")
        (tmp_path / "passcode").write_text(bus.passcode)
        (tmp_path / "words").write_text("from the seed\n")
        write_seed(
            seed,
            *("--hostname", "one", "--file", f"{tmp_path}/words:/opt/in/words"),
            *("--run", "echo again >>/root/boots", "--label", "site=cloud"),
            *("--broker", f"stomp://lab@{GATEWAY}:{bus.port}", "--broker-ca"),
            *(authority.pair.certificate, "--passcode-file", str(tmp_path / "passcode")),
        )
        script = "hostname; cat /opt/in/words /root/boots"
        former = ""
        for attached in (seed, None):
            async with machine(disk, attached, log) as process:
                async with asyncio.timeout(LIMIT):
                    former = await until_new(controller, former)
                answers = await asked.run("site=cloud", "sh", "-c", script)
                assert answers == {"lab.one": (0, "one\nfrom the seed\nagain\n")}
                await asked.begin("lab.one", "busybox", "poweroff")
                async with asyncio.timeout(LIMIT):
                    await process.wait()


@pytest.mark.usefixtures("base_image")
async def test_a_seed_that_is_refused(tmp_path: Path) -> None:
    """The machine says why, and is powered off."""
    disk, seed, log = (tmp_path / name for name in ("disk.qcow2", "seed.iso", "log"))
    with ImageStore().open("base") as image:
        export_image(image, disk, "qcow2", command=None)
    config = b"#cloud-config\nhostname: one\n"
    seed.write_bytes(disc_of("cidata", {"meta-data": b"instance-id: i\n", "user-data": config}))
    async with machine(disk, seed, log) as process, asyncio.timeout(LIMIT):
        assert await process.wait() == 0
    text = log.read_text(errors="replace")
    assert "the seed on /dev/vdb is refused: its user-data is YAML: write JSON" in text
    assert "this machine was never set up, and is powered off" in text
