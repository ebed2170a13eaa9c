"""The network of a User-mode Linux: that of QEMU's machines, by a QEMU without a machine."""

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from boincvm.host.process_tree import descendants, stands_still
from boincvm.hypervisor.contract import EndCause, Machine, MachineSpec
from boincvm.hypervisor.registry import open_driver
from support.bench import Bench, read_line, wait_for_end
from support.driven import answering, shell
from support.published_port import check_published_port

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("uml_kernel")]
LIMIT = 60.0
HOST_AS_SEEN_BY_THE_GUEST = "10.0.2.2"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from the host\n" * 100_000)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """Return the address, for a guest, of a file on a server of this host."""
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{HOST_AS_SEEN_BY_THE_GUEST}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
async def machine(base_image: Path, tmp_path: Path) -> Machine:
    directory = tmp_path / "machine"
    directory.mkdir(mode=0o700)
    files = (base_image / "kernel", base_image / "initrd", base_image / "root.qcow2")
    spec = MachineSpec(directory, *files, memory=128 << 20, cpus=1, network=True)
    return (await open_driver("uml", None)).machine(spec)


async def test_a_guest_is_connected_and_cut_off(machine: Machine, server: str) -> None:
    """When the cable is unplugged, no frame passes; when it is plugged in, they do again."""
    fetch = f"busybox wget -q -O - {server}"
    card = machine.network
    assert card is not None
    try:
        async with answering(machine) as link:
            assert await shell(link, f"{fetch} | sha256sum") == await shell(
                link, "yes from the host | head -n 100000 | sha256sum"
            )
            assert len(machine.process_ids()) == 2
            watch = asyncio.create_task(machine.ended())
            await asyncio.sleep(0)
            watch.cancel()
            await asyncio.wait((watch,))
            assert len(machine.process_ids()) == 2  # nobody waits for its end, and it goes on
            await card.connect(connected=False)
            assert await shell(link, f"timeout 1 {fetch} || echo none") == "none\n"
            assert stands_still(machine.process_ids()[1])  # whatever the guest makes of its card
            await card.connect(connected=True)
            assert (await shell(link, fetch)).startswith("from the host\n")
    finally:
        await machine.destroy()


def test_a_published_port_leads_into_the_guest(base_image: Path) -> None:
    check_published_port("--driver", "uml")


async def test_its_network_is_killed(machine: Machine) -> None:
    """So is the machine, because a guest would wait for its network forever."""
    try:
        async with answering(machine):
            kernel, network = machine.process_ids()
            os.kill(network, signal.SIGKILL)
            async with asyncio.timeout(LIMIT):
                end = await machine.ended()
            assert end.cause is EndCause.KILLED
            assert "the machine's network has ended" in end.detail
            assert not Path(f"/proc/{kernel}").exists()
    finally:
        await machine.destroy()


@pytest.mark.parametrize("killed", ["the kernel", "boincvm"])
def test_nothing_of_it_is_left(bench: Bench, killed: str) -> None:
    """`bench` checks the files."""
    program = ("sh", "-c", "echo begun; read _")  # it starts no other, and waits
    run = bench.start("--driver", "uml", "--network", "--", *program, stdin=subprocess.PIPE)
    assert read_line(run.stdout) == b"begun\n"
    assert [left for left in bench.left_overs() if left.startswith("process")]
    found = []
    for pid in descendants(run.pid):
        with suppress(ProcessLookupError, FileNotFoundError):  # others of the guest end
            handle = os.pidfd_open(pid)
            found.append((handle, ""))
            found[-1] = handle, Path(f"/proc/{pid}/comm").read_text().strip()
    assert len([name for _, name in found if name.startswith("qemu-system")]) == 1
    kernels = [handle for handle, name in found if name == "linux"]
    if killed == "boincvm":
        run.kill()
    else:
        signal.pidfd_send_signal(kernels[0], signal.SIGKILL)
    for handle, _ in found:
        wait_for_end(handle)
    run.wait(LIMIT)
